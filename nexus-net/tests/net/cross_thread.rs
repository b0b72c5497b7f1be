//! Work from other threads: complete, in order, and woken once.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use bytes::{Bytes, BytesMut};
use nexus_net::{
    CloseReason, Connection, ConnectionOptions, Handler, LoopContext, LoopGone, LoopGroup, Mailbox,
    ServerOptions, TcpServer,
};
use rand::{RngExt, SeedableRng};

use crate::support::*;

#[test]
fn sends_from_another_thread_keep_their_order_and_leave_together() {
    let served = serve(ConnectionOptions::default(), otherwise);
    let mut stream = served.connect();
    let conn = served.events.opened();
    let metrics = served.loop_handle().metrics();
    let blocked = block(served.loop_handle());
    let turns = metrics.turns();
    let mut expected = Vec::new();
    for n in 0..2000usize {
        // Small ones are copied together, large ones are not; the order is one.
        let piece = pattern(n, if n % 100 == 0 { 5000 } else { 10 });
        expected.extend_from_slice(&piece);
        conn.send(Bytes::from(piece)).unwrap();
    }
    blocked.release();
    let mut all = vec![0; expected.len()];
    stream.read_exact(&mut all).unwrap();
    assert!(all == expected);
    assert!(
        metrics.turns() - turns < 20,
        "{} turns",
        metrics.turns() - turns
    );
}

#[test]
fn sends_of_several_threads_each_keep_their_order() {
    const THREADS: u8 = 4;
    const EACH: usize = 2000;
    let served = serve(ConnectionOptions::default(), otherwise);
    let mut stream = served.connect();
    let conn = served.events.opened();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let conn = conn.clone();
            scope.spawn(move || {
                for n in 0..EACH as u16 {
                    let [high, low] = n.to_be_bytes();
                    conn.send(Bytes::copy_from_slice(&[thread, high, low]))
                        .unwrap();
                }
            });
        }
    });
    let mut next = [0u16; THREADS as usize];
    let mut message = [0; 3];
    for _ in 0..EACH * usize::from(THREADS) {
        stream.read_exact(&mut message).unwrap();
        let [thread, high, low] = message;
        let expected = &mut next[usize::from(thread)];
        assert_eq!(u16::from_be_bytes([high, low]), *expected);
        *expected += 1;
    }
}

#[test]
fn posted_tasks_run_once_each_and_in_order_per_thread() {
    const THREADS: usize = 4;
    const EACH: usize = 5000;
    let loops = LoopGroup::start("posts", 1).unwrap();
    let handle = &loops.handles()[0];
    let next: Arc<Vec<AtomicUsize>> = Arc::new((0..THREADS).map(|_| AtomicUsize::new(0)).collect());
    let ordered = Arc::new(AtomicBool::new(true));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (next, ordered) = (&next, &ordered);
            scope.spawn(move || {
                for n in 0..EACH {
                    let (next, ordered) = (Arc::clone(next), Arc::clone(ordered));
                    handle
                        .post(move |_| {
                            if next[thread].fetch_add(1, Ordering::Relaxed) != n {
                                ordered.store(false, Ordering::Relaxed);
                            }
                        })
                        .unwrap();
                }
            });
        }
    });
    on_loop(handle, |_| ());
    assert!(ordered.load(Ordering::Relaxed));
    for count in next.iter() {
        assert_eq!(count.load(Ordering::Relaxed), EACH);
    }
}

#[test]
fn every_single_post_wakes_a_sleeping_loop() {
    let loops = LoopGroup::start("posts", 1).unwrap();
    for _ in 0..5000 {
        // Waits for each: a wake lost to the race with falling asleep would end it.
        on_loop(&loops.handles()[0], |_| ());
    }
}

#[test]
fn many_wakes_of_a_mailbox_come_as_one() {
    let mailbox = Arc::new(Mutex::new(None));
    let made = Arc::clone(&mailbox);
    let taken = Arc::new(Mutex::new(Vec::new()));
    let takes = Arc::clone(&taken);
    let served = serve(ConnectionOptions::default(), move |conn, call| match call {
        Call::Opened => *made.lock().unwrap() = Some(Arc::new(Mailbox::new(conn.handle()))),
        Call::Woken => {
            let mailbox = made.lock().unwrap().clone();
            if let Some(mailbox) = mailbox {
                mailbox.take(&mut takes.lock().unwrap());
            }
        }
        other => otherwise(conn, other),
    });
    let _stream = served.connect();
    served.events.opened();
    on_loop(served.loop_handle(), |_| ());
    let mailbox = mailbox.lock().unwrap().clone().unwrap();
    let blocked = block(served.loop_handle());
    for n in 0..1000 {
        mailbox.send(n).unwrap();
    }
    blocked.release();
    on_loop(served.loop_handle(), |_| ());
    assert_eq!(*taken.lock().unwrap(), (0..1000).collect::<Vec<_>>());
    let woken = served.events.rest();
    assert_eq!(woken.len(), 1, "{woken:?}");
    assert_eq!(mailbox.close(), Vec::<i32>::new());
    assert_eq!(mailbox.send(7), Err(7));
}

/// Takes from its mailbox until closed, as the documentation asks for.
struct Receiver {
    mailbox: Arc<Mailbox<u64>>,
    taken: Arc<Mutex<Vec<u64>>>,
    closed: mpsc::Sender<()>,
}

impl Handler for Receiver {
    fn data(&mut self, _: &mut Connection<'_>, input: &mut BytesMut) {
        input.clear();
    }

    fn woken(&mut self, _: &mut Connection<'_>) {
        self.mailbox.take(&mut self.taken.lock().unwrap());
    }

    fn closed(&mut self, _: &mut LoopContext<'_>, _: CloseReason) {
        self.taken.lock().unwrap().extend(self.mailbox.close());
        let _ = self.closed.send(());
    }
}

/// Ends a connection while threads send to its mailbox, and counts where each message went.
fn race_mailbox_with(end: impl Fn(&Arc<Mailbox<u64>>, &mut Option<(TcpServer, LoopGroup)>)) {
    const THREADS: u64 = 3;
    const EACH: u64 = 300;
    let mut random = rand::rngs::StdRng::seed_from_u64(seed());
    for round in 0..10 {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (closed, was_closed) = mpsc::channel();
        let (made, mailboxes) = mpsc::channel();
        let loops = LoopGroup::start("race", 1).unwrap();
        let into = Arc::clone(&taken);
        let server = TcpServer::start(&loops, local(), ServerOptions::default(), move |accepted| {
            let mailbox = Arc::new(Mailbox::new(accepted.conn));
            made.send(Arc::clone(&mailbox)).unwrap();
            Box::new(Receiver {
                mailbox,
                taken: Arc::clone(&into),
                closed: closed.clone(),
            })
        })
        .unwrap();
        let _stream = connect(server.local_addr());
        let mailbox = mailboxes.recv_timeout(DEADLINE).unwrap();
        let mut running = Some((server, loops));
        let end_at = random.random_range(0..THREADS * EACH);
        let sent = AtomicUsize::new(0);
        let returned = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (mailbox, sent, returned) = (&mailbox, &sent, &returned);
                scope.spawn(move || {
                    for n in 0..EACH {
                        if let Err(message) = mailbox.send(thread * EACH + n) {
                            assert_eq!(message, thread * EACH + n, "somebody else's message");
                            returned.lock().unwrap().push(message);
                        }
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            while (sent.load(Ordering::Relaxed) as u64) < end_at {
                std::hint::spin_loop();
            }
            end(&mailbox, &mut running);
        });
        was_closed.recv_timeout(DEADLINE).unwrap();
        let mut all = taken.lock().unwrap().clone();
        all.extend(returned.into_inner().unwrap());
        all.sort_unstable();
        assert!(
            all.iter().copied().eq(0..THREADS * EACH),
            "round {round}: {} messages came out",
            all.len()
        );
    }
}

#[test]
fn a_mailbox_delivers_each_message_or_gives_it_back_when_its_connection_ends() {
    race_mailbox_with(|mailbox, _| mailbox.conn().abort().unwrap());
}

#[test]
fn a_mailbox_delivers_each_message_or_gives_it_back_when_its_loop_ends() {
    race_mailbox_with(|_, running| drop(running.take()));
}

#[test]
fn handles_of_ended_connections_miss_their_successors() {
    let served = serve(ConnectionOptions::default(), echo);
    let stream = served.connect();
    let stale = served.events.opened();
    drop(stream);
    served.events.closed();
    served.wait_until_empty();
    // Gets the place of the first on the loop.
    let mut second = served.connect();
    let fresh = served.events.opened();
    assert_ne!(stale.id(), fresh.id());
    stale.send(Bytes::from_static(b"not for you")).unwrap();
    stale.wake().unwrap();
    stale.close().unwrap();
    stale.abort().unwrap();
    assert_echoes(&mut second, b"hello");
    let (stale, fresh) = (stale.id(), fresh.id());
    on_loop(served.loop_handle(), move |context| {
        assert!(context.connection(stale).is_none());
        assert!(context.connection(fresh).is_some());
    });
    assert!(matches!(served.events.next(), Event::Data(_)));
}

#[test]
fn a_loop_that_has_gone_refuses() {
    let served = serve(ConnectionOptions::default(), echo);
    let _stream = served.connect();
    let conn = served.events.opened();
    let handle = served.loop_handle().clone();
    drop(served.loops);
    assert_eq!(handle.post(|_| ()), Err(LoopGone));
    assert_eq!(conn.wake(), Err(LoopGone));
    assert_eq!(conn.send(Bytes::from_static(b"x")), Err(LoopGone));
}

#[test]
fn what_a_loop_accepted_before_it_stopped_runs() {
    for _ in 0..20 {
        let loops = LoopGroup::start("stop", 1).unwrap();
        let handle = loops.handles()[0].clone();
        let ran = Arc::new(AtomicUsize::new(0));
        let mut accepted = 0;
        std::thread::scope(|scope| {
            scope.spawn(move || drop(loops));
            loop {
                let ran = Arc::clone(&ran);
                let posted = handle.post(move |_| {
                    ran.fetch_add(1, Ordering::Relaxed);
                });
                if posted.is_err() {
                    break;
                }
                accepted += 1;
            }
        });
        assert_eq!(ran.load(Ordering::Relaxed), accepted);
    }
}
