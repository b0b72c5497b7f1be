//! Timers among 100,000 others. tokio's side is tokio-util's `DelayQueue`: one owner and values, as
//! with a loop's timers. A `tokio::time::Sleep` per timer costs it more.

use std::future::poll_fn;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use nexus_benches::Runtime;
use nexus_net::{EventLoop, LoopContext, LoopGroup};
use tokio_util::time::DelayQueue;

use crate::post::current_thread;

const LIVE: usize = 100_000;
const FAR: Duration = Duration::from_secs(3600);
/// After this all timers that are to fire have been started and are due.
const SPIN: Duration = Duration::from_millis(60);

/// Starts a timer and cancels it.
pub(crate) fn start_and_cancel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timer start and cancel among 100,000");
    let mut event_loop = EventLoop::new().expect("a loop");
    for n in 0..LIVE {
        event_loop.context().after(spread(n), |_| {});
    }
    let mut n = 0;
    group.bench_function(Runtime::Nexus.name(), |bencher| {
        bencher.iter(|| {
            n += 1;
            let mut context = event_loop.context();
            let timer = context.after(spread(n), |_| {});
            context.cancel_timer(timer);
        });
    });
    let runtime = current_thread();
    let _inside = runtime.enter();
    let mut queue = DelayQueue::new();
    for n in 0..LIVE {
        queue.insert(n, spread(n));
    }
    group.bench_function(Runtime::Tokio.name(), |bencher| {
        bencher.iter(|| {
            n += 1;
            let key = queue.insert(n, spread(n));
            queue.remove(&key);
        });
    });
    group.finish();
}

/// Time-outs as servers have them, none alike.
fn spread(n: usize) -> Duration {
    FAR + Duration::from_millis((n % LIVE) as u64)
}

/// 100,000 timers that are due together.
pub(crate) fn fire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("100,000 timers fire");
    group.throughput(Throughput::Elements(LIVE as u64));
    {
        let loops = LoopGroup::start("timers", 1).expect("loops");
        group.bench_function(Runtime::Nexus.name(), |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| fire_on_loop(&loops)).sum());
        });
    }
    let runtime = current_thread();
    // Kept, as the loop is: a new one would hand out its entries in the order of their addresses.
    let mut queue = DelayQueue::with_capacity(LIVE);
    group.bench_function(Runtime::Tokio.name(), |bencher| {
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| runtime.block_on(fire_on_tokio(&mut queue)))
                .sum()
        });
    });
    group.finish();
}

fn fire_on_loop(loops: &LoopGroup) -> Duration {
    let (sender, receiver) = mpsc::channel();
    let posted = loops.handles()[0].post(move |context: &mut LoopContext<'_>| {
        let due = Instant::now() + SPIN;
        for n in 1..LIVE {
            context.after(delay(n), |_| {});
        }
        // None is due later, and this one was started last.
        context.after(delay(LIVE - 1), move |_| {
            let _ = sender.send(due.elapsed());
        });
        wait_until(due);
    });
    posted.expect("the loop runs");
    receiver.recv().expect("the loop runs")
}

async fn fire_on_tokio(queue: &mut DelayQueue<()>) -> Duration {
    let due = Instant::now() + SPIN;
    for n in 0..LIVE {
        queue.insert((), delay(n));
    }
    wait_until(due);
    while poll_fn(|context| queue.poll_expired(context))
        .await
        .is_some()
    {}
    due.elapsed()
}

fn delay(n: usize) -> Duration {
    Duration::from_millis(1 + (n % 10) as u64)
}

/// Keeps the thread busy, so that what falls due meanwhile fires only then.
fn wait_until(time: Instant) {
    while Instant::now() < time {
        std::hint::spin_loop();
    }
}
