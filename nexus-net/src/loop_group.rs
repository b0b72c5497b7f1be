//! Threads that run loops.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::{Error, EventLoop, LoopHandle, LoopOptions};

/// A number of event loops, each on a thread of its own, named `<name>-<n>`.
///
/// Dropping the group stops the loops and waits for their threads.
#[derive(Debug)]
pub struct LoopGroup {
    handles: Vec<LoopHandle>,
    threads: Vec<JoinHandle<()>>,
    next: AtomicUsize,
}

impl LoopGroup {
    /// Starts `count` loops with default options.
    ///
    /// # Errors
    /// [`Error::Options`] for a count of 0, [`Error::Thread`] or [`Error::Loop`] when the system refuses.
    pub fn start(name: &str, count: usize) -> Result<Self, Error> {
        Self::start_with(name, count, &LoopOptions::default())
    }

    /// Starts `count` loops.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub fn start_with(name: &str, count: usize, options: &LoopOptions) -> Result<Self, Error> {
        if count == 0 {
            return Err(Error::Options("a loop group needs at least one loop"));
        }
        let mut group = Self {
            handles: Vec::new(),
            threads: Vec::new(),
            next: AtomicUsize::new(0),
        };
        for n in 0..count {
            let (handle, thread) = spawn(format!("{name}-{n}"), options.clone())?;
            group.handles.push(handle);
            group.threads.push(thread);
        }
        Ok(group)
    }

    /// The loops, at least one.
    pub fn handles(&self) -> &[LoopHandle] {
        &self.handles
    }

    /// One loop after the other. From any thread.
    pub fn next(&self) -> &LoopHandle {
        &self.handles[self.next.fetch_add(1, Ordering::Relaxed) % self.handles.len()]
    }
}

impl Drop for LoopGroup {
    fn drop(&mut self) {
        for handle in &self.handles {
            handle.stop();
        }
        for (handle, thread) in self.handles.iter().zip(self.threads.drain(..)) {
            // The last owner may be a task on one of the loops; that thread ends by itself.
            if !handle.is_current() && thread.join().is_err() {
                log::error!("an event loop's thread panicked");
            }
        }
    }
}

fn spawn(name: String, options: LoopOptions) -> Result<(LoopHandle, JoinHandle<()>), Error> {
    // The loop is made on its thread and cannot leave it; its handle comes back.
    let (sender, receiver) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || match EventLoop::with_options(&options) {
            Ok(event_loop) => {
                let _ = sender.send(Ok(event_loop.handle()));
                if let Err(error) = event_loop.run() {
                    log::error!("event loop ended: {error}");
                }
            }
            Err(error) => {
                let _ = sender.send(Err(error));
            }
        })
        .map_err(|source| Error::Thread { name, source })?;
    let handle = receiver.recv().map_err(|_| Error::LoopGone)??;
    Ok((handle, thread))
}
