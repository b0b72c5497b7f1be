//! Work handed from thread to thread.

use std::sync::mpsc;

use criterion::{Criterion, Throughput};
use nexus_benches::Runtime;
use nexus_net::{LoopGroup, LoopHandle};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Hand-overs of one burst.
const BURST: usize = 10_000;

/// From one loop to another that sleeps, and back: two posts, two wake-ups.
pub(crate) fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("post and wake, there and back");
    {
        let loops = LoopGroup::start("post", 2).expect("loops");
        let [near, far] = [0, 1].map(|n| loops.handles()[n].clone());
        let (sender, receiver) = mpsc::channel();
        group.bench_function(Runtime::Nexus.name(), |bencher| {
            bencher.iter_custom(|rounds| {
                let started = std::time::Instant::now();
                nexus_round(near.clone(), far.clone(), rounds, sender.clone());
                receiver.recv().expect("the loops run");
                started.elapsed()
            });
        });
    }
    let (to_far, far_inbox) = unbounded_channel();
    let (to_near, mut near_inbox) = unbounded_channel();
    let far = std::thread::spawn(move || current_thread().block_on(answer(far_inbox, to_near)));
    let near = current_thread();
    group.bench_function(Runtime::Tokio.name(), |bencher| {
        bencher.iter_custom(|rounds| {
            let started = std::time::Instant::now();
            near.block_on(async {
                for _ in 0..rounds {
                    to_far.send(()).expect("the other thread runs");
                    near_inbox.recv().await.expect("the other thread runs");
                }
            });
            started.elapsed()
        });
    });
    drop(to_far);
    far.join().expect("no panic");
    group.finish();
}

fn nexus_round(near: LoopHandle, far: LoopHandle, rounds: u64, done: mpsc::Sender<()>) {
    if rounds == 0 {
        let _ = done.send(());
        return;
    }
    let posted = far.clone().post(move |_| {
        let posted = near
            .clone()
            .post(move |_| nexus_round(near, far, rounds - 1, done));
        posted.expect("the loop runs");
    });
    posted.expect("the loop runs");
}

async fn answer(mut inbox: UnboundedReceiver<()>, back: UnboundedSender<()>) {
    while inbox.recv().await.is_some() {
        let _ = back.send(());
    }
}

/// Many in a row, from outside to one loop, until the last has run.
pub(crate) fn burst(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("10,000 posts from another thread");
    group.throughput(Throughput::Elements(BURST as u64));
    let (done, all_done) = mpsc::channel();
    {
        let loops = LoopGroup::start("post", 1).expect("loops");
        let handle = &loops.handles()[0];
        group.bench_function(Runtime::Nexus.name(), |bencher| {
            bencher.iter(|| {
                for n in 0..BURST {
                    let done = (n + 1 == BURST).then(|| done.clone());
                    let posted = handle.post(move |_| {
                        if let Some(done) = done {
                            let _ = done.send(());
                        }
                    });
                    posted.expect("the loop runs");
                }
                all_done.recv().expect("the loop runs");
            });
        });
    }
    type Job = Box<dyn FnOnce() + Send>;
    let (sender, mut inbox) = unbounded_channel::<Job>();
    let thread = std::thread::spawn(move || {
        current_thread().block_on(async {
            while let Some(job) = inbox.recv().await {
                job();
            }
        });
    });
    group.bench_function(Runtime::Tokio.name(), |bencher| {
        bencher.iter(|| {
            for n in 0..BURST {
                let done = (n + 1 == BURST).then(|| done.clone());
                let sent = sender.send(Box::new(move || {
                    if let Some(done) = done {
                        let _ = done.send(());
                    }
                }));
                sent.expect("the thread runs");
            }
            all_done.recv().expect("the thread runs");
        });
    });
    drop(sender);
    thread.join().expect("no panic");
    group.finish();
}

pub(crate) fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}
