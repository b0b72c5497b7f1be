//! A provider that is asked for more than it can do, and finds out by measuring what that is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64};

use nexus_rpc::{AdaptiveLimit, ConcurrencyLimit, RetryOptions};
use parking_lot::MutexGuard;

use crate::http::Http;
use crate::*;

/// The limit takes some of its windows to move.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many calls are out at a time.
const CALLS: usize = 200;

/// The limit at first, and at most: so many that it takes 40 ticks to do them.
const LIMIT_MAX: usize = 160;

/// A service of a known capacity: each tick it does so many calls, in the order in which they came. What a
/// call waits is counted in ticks, so that a slow machine changes nothing about it.
struct Machine {
    state: Mutex<State>,
    ticked: Condvar,
}

struct State {
    ticks: u64,
    calls_per_tick: usize,
    queue: VecDeque<(u64, Responder<Text>)>,
    done: u64,
    ticks_waited: u64,
    ended: bool,
}

impl Machine {
    /// Long beside the moments for which a busy machine keeps a thread waiting, which show as latency.
    const TICK: Duration = Duration::from_millis(5);

    fn new(calls_per_tick: usize) -> Arc<Self> {
        let state = State {
            ticks: 0,
            calls_per_tick,
            queue: VecDeque::new(),
            done: 0,
            ticks_waited: 0,
            ended: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            ticked: Condvar::new(),
        })
    }

    fn run(&self) {
        // What makes a tick take its time; nobody notifies it.
        let passing = Condvar::new();
        let mut state = self.state.lock();
        while !state.ended {
            passing.wait_for(&mut state, Self::TICK);
            state.ticks += 1;
            let count = state.calls_per_tick.min(state.queue.len());
            let calls: Vec<_> = state.queue.drain(..count).collect();
            let waited = calls.iter().map(|(came, _)| state.ticks - came);
            state.ticks_waited += waited.sum::<u64>();
            state.done += calls.len() as u64;
            MutexGuard::unlocked(&mut state, || {
                for (_, responder) in calls {
                    responder.complete(Ok(text("done")));
                }
            });
            self.ticked.notify_all();
        }
    }

    fn wait_for_tick(&self) {
        let mut state = self.state.lock();
        let now = state.ticks;
        self.ticked
            .wait_while(&mut state, |state| state.ticks == now && !state.ended);
    }

    /// What the next so many calls wait, on the average, in ticks.
    fn mean_wait(&self, calls: u64) -> f64 {
        let before = {
            let state = self.state.lock();
            (state.done, state.ticks_waited)
        };
        until("more calls are done", || {
            self.state.lock().done >= before.0 + calls
        });
        let state = self.state.lock();
        (state.ticks_waited - before.1) as f64 / (state.done - before.0) as f64
    }
}

struct Queueing(Arc<Machine>);

impl Modes for Queueing {
    fn pooled(&self, _call: &CallContext, request: Text) -> Result<Text, RpcError> {
        Ok(request)
    }

    fn inline(&self, _call: &CallContext, request: Text) -> Result<Text, RpcError> {
        Ok(request)
    }

    fn later(&self, _call: CallContext, _request: Text, responder: Responder<Text>) {
        let mut state = self.0.state.lock();
        let came = state.ticks;
        state.queue.push_back((came, responder));
    }
}

/// Calls as fast as ticks pass, with `calls` out at a time.
fn call(client: &ModesClient, machine: &Machine, calls: usize, refused: &AtomicU64) {
    let request = text("a");
    let calls: Vec<_> = (0..calls)
        .map(|_| client.later_with(&request, CallOptions::timeout(PATIENCE)))
        .collect();
    for call in calls {
        if let Err(error) = call.wait() {
            assert_eq!(error.code(), ErrorCode::OVERLOADED);
            refused.fetch_add(1, Ordering::SeqCst);
        }
    }
    machine.wait_for_tick();
}

#[test]
fn overload_is_refused_what_is_accepted_waits_little_and_the_limit_grows_with_the_capacity() {
    let machine = Machine::new(4);
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Queueing(Arc::clone(&machine))))
        .options(ProviderOptions {
            concurrency: ConcurrencyLimit::Adaptive(AdaptiveLimit {
                initial: LIMIT_MAX,
                max: LIMIT_MAX,
                probe_interval: Duration::from_secs(1),
                ..AdaptiveLimit::default()
            }),
            ..ProviderOptions::default()
        })
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let http = Mutex::new(Http::connect(provider.local_addr()));
    let limit = || {
        let status = http.lock().get("/status?format=json").json();
        usize::try_from(status["concurrency_limit"].as_u64().unwrap()).unwrap()
    };
    let wait = |what: &str, condition: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !condition() {
            assert!(
                started.elapsed() < PATIENCE,
                "not in time: {what}; the limit is {}",
                limit()
            );
            machine.wait_for_tick();
        }
    };
    let once = RetryOptions {
        attempts_max: 1,
        ..RetryOptions::default()
    };
    let options = ChannelOptions {
        retry: once,
        ..ChannelOptions::default()
    };
    let channel = channel_with([provider.local_addr()], options);
    assert!(channel.wait_ready(ModesClient::SERVICE, LONG));
    let client = ModesClient::new(channel.clone());
    let (refused, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|outer| {
        outer.spawn(|| machine.run());
        // Behind the callers, who wait for it.
        let _ended = Ending(|| machine.state.lock().ended = true);
        std::thread::scope(|scope| {
            let _ended = Ending(|| ended.store(true, Ordering::SeqCst));
            for _ in 0..8 {
                scope.spawn(|| {
                    while !ended.load(Ordering::SeqCst) {
                        call(&client, &machine, CALLS / 8, &refused);
                    }
                });
            }
            wait("the limit falls", &|| limit() < LIMIT_MAX / 8);
            wait("calls are refused", &|| {
                refused.load(Ordering::SeqCst) > 1000
            });
            let low = limit();
            let ticks = machine.mean_wait(1000);
            assert!(ticks < 20.0, "{ticks} ticks at a limit of {low}");

            machine.state.lock().calls_per_tick = 64;
            wait("the limit grows", &|| limit() > LIMIT_MAX / 4);
        });
    });
    assert_eq!(channel.in_flight(ModesClient::SERVICE), 0);
}
