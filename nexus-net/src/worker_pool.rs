//! Threads for what blocks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, TrySendError, bounded};
use parking_lot::Mutex;

use crate::Error;

type Job = Box<dyn FnOnce() + Send>;

/// The pool's queue is full, or the pool was shut down; the job was dropped without having run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker pool takes no more jobs")]
pub struct PoolFull;

/// Counters of a pool, readable from any thread.
#[derive(Debug, Default)]
pub struct PoolMetrics {
    queued: AtomicUsize,
    running: AtomicUsize,
    completed: AtomicU64,
    panicked: AtomicU64,
    refused: AtomicU64,
}

impl PoolMetrics {
    /// Jobs waiting for a thread.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Jobs being run.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Jobs that have ended, those that panicked included.
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Jobs that panicked.
    pub fn panicked(&self) -> u64 {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Jobs that were refused because the queue was full or the pool was shut down.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Named threads that run jobs from one bounded queue, in the order they came.
///
/// A panic in a job is caught and counted; the thread goes on. Dropping the pool runs what was
/// queued and waits for the threads.
pub struct WorkerPool {
    sender: Mutex<Option<Sender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    metrics: Arc<PoolMetrics>,
}

impl WorkerPool {
    /// Starts `threads` threads, named `<name>-<n>`, with a queue of at most `queue_max` jobs.
    ///
    /// # Errors
    /// [`Error::Options`] when a number is 0, [`Error::Thread`] when the system refuses a thread.
    pub fn start(name: &str, threads: usize, queue_max: usize) -> Result<Self, Error> {
        if threads == 0 || queue_max == 0 {
            return Err(Error::Options(
                "a worker pool needs threads and room in its queue",
            ));
        }
        let (sender, receiver) = bounded::<Job>(queue_max);
        let metrics = Arc::new(PoolMetrics::default());
        let pool = Self {
            sender: Mutex::new(Some(sender)),
            threads: Mutex::new(Vec::new()),
            metrics: Arc::clone(&metrics),
        };
        for n in 0..threads {
            let name = format!("{name}-{n}");
            let receiver = receiver.clone();
            let metrics = Arc::clone(&metrics);
            let thread = std::thread::Builder::new()
                .name(name.clone())
                .spawn(move || {
                    for job in receiver {
                        metrics.queued.fetch_sub(1, Ordering::Relaxed);
                        run(job, &metrics);
                    }
                })
                .map_err(|source| Error::Thread { name, source })?;
            pool.threads.lock().push(thread);
        }
        Ok(pool)
    }

    /// Queues a job. From any thread; never blocks.
    ///
    /// # Errors
    /// [`PoolFull`]; the job is dropped.
    pub fn execute(&self, job: impl FnOnce() + Send + 'static) -> Result<(), PoolFull> {
        let sender = self.sender.lock().clone();
        let Some(sender) = sender else {
            self.metrics.refused.fetch_add(1, Ordering::Relaxed);
            return Err(PoolFull);
        };
        // Counted first: the job may be taken before the count otherwise.
        self.metrics.queued.fetch_add(1, Ordering::Relaxed);
        match sender.try_send(Box::new(job)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.metrics.queued.fetch_sub(1, Ordering::Relaxed);
                self.metrics.refused.fetch_add(1, Ordering::Relaxed);
                Err(PoolFull)
            }
        }
    }

    /// The pool's counters.
    pub fn metrics(&self) -> &PoolMetrics {
        &self.metrics
    }

    /// Takes no more jobs, runs those that are queued, and waits for the threads. Calls after the
    /// first return at once. Blocks.
    pub fn shutdown(&self) {
        drop(self.sender.lock().take());
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl std::fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerPool")
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}

fn run(job: Job, metrics: &PoolMetrics) {
    metrics.running.fetch_add(1, Ordering::Relaxed);
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        metrics.panicked.fetch_add(1, Ordering::Relaxed);
        log::error!("a job of a worker pool panicked");
    }
    metrics.running.fetch_sub(1, Ordering::Relaxed);
    metrics.completed.fetch_add(1, Ordering::Relaxed);
}
