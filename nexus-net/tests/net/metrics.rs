//! What a loop tells of itself.

use std::time::Duration;

use nexus_net::{ConnectionOptions, LoopMetrics};

use crate::support::*;

#[test]
fn a_turn_that_takes_long_is_seen_while_it_runs_and_counted_afterwards() {
    const LONG: Duration = Duration::from_millis(20);
    let served = serve(ConnectionOptions::default(), echo);
    let metrics = served.loop_handle().metrics();
    let blocked = block(served.loop_handle());
    wait_for("the turn to be long", || {
        metrics.present_turn().is_some_and(|turn| turn >= LONG)
    });
    blocked.release();
    wait_for("the loop to sleep", || metrics.present_turn().is_none());
    assert!(metrics.busy() >= LONG);
    let long_turns: u64 = metrics
        .lags()
        .iter()
        .enumerate()
        .filter(|(bucket, _)| LoopMetrics::lag_bound(*bucket).is_none_or(|bound| bound > LONG))
        .map(|(_, turns)| turns)
        .sum();
    assert!(long_turns >= 1);
}

#[test]
fn every_turn_is_in_one_bucket_of_lags() {
    let served = serve(ConnectionOptions::default(), echo);
    let mut stream = served.connect();
    for _ in 0..50 {
        assert_echoes(&mut stream, b"hello");
    }
    let metrics = served.loop_handle().metrics();
    wait_for("the loop to sleep", || metrics.present_turn().is_none());
    assert!(metrics.turns() >= 50);
    assert_eq!(metrics.lags().iter().sum::<u64>(), metrics.turns());
}

#[test]
fn connections_are_counted_while_they_live_and_in_all() {
    let served = serve(ConnectionOptions::default(), echo);
    for _ in 0..3 {
        assert_echoes(&mut served.connect(), b"hello");
        served.wait_until_empty();
    }
    let metrics = served.loop_handle().metrics();
    assert_eq!(metrics.connections_total(), 3);
    wait_for("the count", || metrics.connections() == 0);
}
