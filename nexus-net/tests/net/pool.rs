//! The worker pool.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use nexus_net::{Error, PoolFull, WorkerPool};

use crate::support::{DEADLINE, wait_for};

/// Makes all threads of a pool wait; they go on when the sender is dropped.
fn occupy(pool: &WorkerPool, threads: usize) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(std::sync::Mutex::new(released));
    let (ready, all_ready) = mpsc::channel();
    for _ in 0..threads {
        let (ready, released) = (ready.clone(), Arc::clone(&released));
        pool.execute(move || {
            ready.send(()).unwrap();
            let _ = released.lock().unwrap().recv_timeout(DEADLINE);
        })
        .unwrap();
        all_ready.recv_timeout(DEADLINE).unwrap();
    }
    release
}

#[test]
fn a_full_pool_refuses_and_takes_jobs_again_when_there_is_room() {
    let pool = WorkerPool::start("pool", 1, 2).unwrap();
    let release = occupy(&pool, 1);
    let ran = Arc::new(AtomicUsize::new(0));
    let job = || {
        let ran = Arc::clone(&ran);
        move || {
            ran.fetch_add(1, Ordering::SeqCst);
        }
    };
    assert_eq!(pool.execute(job()), Ok(()));
    assert_eq!(pool.execute(job()), Ok(()));
    assert_eq!(pool.execute(job()), Err(PoolFull));
    assert_eq!(pool.metrics().queued(), 2);
    assert_eq!(pool.metrics().running(), 1);
    assert_eq!(pool.metrics().refused(), 1);
    drop(release);
    wait_for("both jobs", || ran.load(Ordering::SeqCst) == 2);
    wait_for("room", || pool.execute(job()).is_ok());
    pool.shutdown();
    assert_eq!(ran.load(Ordering::SeqCst), 3);
}

#[test]
fn jobs_run_in_the_order_they_came() {
    let pool = WorkerPool::start("pool", 1, 1000).unwrap();
    let (sender, receiver) = mpsc::channel();
    for n in 0..1000 {
        let sender = sender.clone();
        pool.execute(move || sender.send(n).unwrap()).unwrap();
    }
    drop(sender);
    assert!(receiver.iter().eq(0..1000));
}

#[test]
fn a_panicking_job_does_not_shrink_the_pool() {
    let pool = WorkerPool::start("pool", 2, 100).unwrap();
    for _ in 0..20 {
        pool.execute(|| panic!("a job's panic, on purpose"))
            .unwrap();
    }
    wait_for("the panics", || pool.metrics().panicked() == 20);
    // Both threads are there: each of two jobs waits until the other runs, too.
    let meeting = Arc::new(std::sync::Barrier::new(2));
    let (sender, receiver) = mpsc::channel();
    for _ in 0..2 {
        let (meeting, sender) = (Arc::clone(&meeting), sender.clone());
        pool.execute(move || {
            meeting.wait();
            sender.send(()).unwrap();
        })
        .unwrap();
    }
    receiver.recv_timeout(DEADLINE).unwrap();
    receiver.recv_timeout(DEADLINE).unwrap();
    pool.shutdown();
    assert_eq!(pool.metrics().completed(), 22);
    assert_eq!(pool.metrics().running(), 0);
}

#[test]
fn shutdown_runs_what_was_queued_and_refuses_what_comes_after() {
    let pool = Arc::new(WorkerPool::start("pool", 2, 100).unwrap());
    let release = occupy(&pool, 2);
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..50 {
        let ran = Arc::clone(&ran);
        pool.execute(move || {
            ran.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
    }
    let done = Arc::new(AtomicBool::new(false));
    let ending = std::thread::spawn({
        let (pool, done) = (Arc::clone(&pool), Arc::clone(&done));
        move || {
            pool.shutdown();
            done.store(true, Ordering::SeqCst);
        }
    });
    wait_for("the pool to refuse", || pool.execute(|| ()).is_err());
    assert!(!done.load(Ordering::SeqCst), "it waits for the jobs");
    drop(release);
    ending.join().unwrap();
    let probes = pool.metrics().completed() - 52;
    assert_eq!(ran.load(Ordering::SeqCst), 50);
    assert_eq!(pool.metrics().queued(), 0, "after {probes} probes");
}

#[test]
fn a_pool_may_be_dropped_by_its_own_job() {
    let pool = Arc::new(WorkerPool::start("pool", 2, 10).unwrap());
    let (sender, receiver) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let last = Arc::clone(&pool);
    pool.execute(move || {
        let _ = gone.recv_timeout(DEADLINE);
        drop(last);
        sender.send(()).unwrap();
    })
    .unwrap();
    drop(pool);
    drop(go);
    receiver.recv_timeout(DEADLINE).unwrap();
}

#[test]
fn a_pool_without_threads_or_room_is_refused() {
    assert!(matches!(
        WorkerPool::start("pool", 0, 1),
        Err(Error::Options(_))
    ));
    assert!(matches!(
        WorkerPool::start("pool", 1, 0),
        Err(Error::Options(_))
    ));
}
