//! A job from a loop to a pool thread, and its result back to the loop.

use std::sync::{Arc, mpsc};
use std::time::Instant;

use criterion::Criterion;
use nexus_benches::Runtime;
use nexus_net::{LoopGroup, LoopHandle, WorkerPool};

use crate::post::current_thread;

/// There and back, one at a time.
pub(crate) fn hand_over(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("worker pool, there and back");
    {
        let loops = LoopGroup::start("loop", 1).expect("loops");
        let pool = Arc::new(WorkerPool::start("pool", 1, 1024).expect("a pool"));
        let (sender, receiver) = mpsc::channel();
        group.bench_function(Runtime::Nexus.name(), |bencher| {
            bencher.iter_custom(|rounds| {
                let started = Instant::now();
                let handle = loops.handles()[0].clone();
                nexus_round(handle, Arc::clone(&pool), rounds, sender.clone());
                receiver.recv().expect("the loop runs");
                started.elapsed()
            });
        });
    }
    let runtime = current_thread();
    group.bench_function(Runtime::Tokio.name(), |bencher| {
        bencher.iter_custom(|rounds| {
            let started = Instant::now();
            runtime.block_on(async {
                for _ in 0..rounds {
                    tokio::task::spawn_blocking(|| ()).await.expect("no panic");
                }
            });
            started.elapsed()
        });
    });
    group.finish();
}

fn nexus_round(handle: LoopHandle, pool: Arc<WorkerPool>, rounds: u64, done: mpsc::Sender<()>) {
    if rounds == 0 {
        let _ = done.send(());
        return;
    }
    let executed = Arc::clone(&pool).execute(move || {
        let posted = handle
            .clone()
            .post(move |_| nexus_round(handle, pool, rounds - 1, done));
        posted.expect("the loop runs");
    });
    executed.expect("room in the pool");
}
