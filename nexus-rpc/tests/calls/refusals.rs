//! Calls that providers refuse before they run: they go on to who has not been asked.

use nexus_rpc::{BudgetOptions, RetryOptions};

use crate::fakes::{Asked, Fake};
use crate::*;

/// A channel without a budget for retries, connected to all of them.
fn channel(fakes: &[Fake], attempts_max: u32, budget: BudgetOptions) -> RpcChannel {
    let options = ChannelOptions {
        retry: RetryOptions {
            attempts_max,
            budget,
            ..RetryOptions::default()
        },
        ..ChannelOptions::default()
    };
    let channel = channel_with(fakes.iter().map(Fake::address), options);
    until("all are connected", || {
        let endpoints = channel.endpoints(ModesClient::SERVICE);
        let ready = nexus_rpc::EndpointState::Ready;
        endpoints.iter().all(|endpoint| endpoint.state == ready)
    });
    channel
}

fn refusing(count: usize, code: ErrorCode) -> Vec<Fake> {
    (0..count)
        .map(|_| Fake::start(move |_| Asked::Answer(code)))
        .collect()
}

fn requests(fakes: &[Fake]) -> usize {
    fakes.iter().map(Fake::requests).sum()
}

fn call(channel: &RpcChannel) -> Result<(), RpcError> {
    let client = ModesClient::new(channel.clone());
    let call = client.inline_with(&text("a"), CallOptions::timeout(LONG));
    call.wait().map(drop)
}

#[test]
fn a_refused_call_reaches_the_one_provider_that_takes_it_whatever_the_attempts_and_the_budget() {
    for code in [ErrorCode::OVERLOADED, ErrorCode::STOPPING] {
        let mut fakes = refusing(6, code);
        fakes.push(Fake::start(|_| Asked::Echo));
        let channel = channel(&fakes, 1, BudgetOptions::none());
        for _ in 0..20 {
            call(&channel).unwrap();
        }
        let well = fakes.pop().unwrap();
        assert_eq!(well.requests(), 20);
        assert!(requests(&fakes) > 0, "nobody refused");
    }
}

#[test]
fn when_all_refuse_each_is_asked_once_and_the_budget_pays_for_the_rest() {
    for (attempts_max, retries, asked) in [(3, 0, 5), (1, 9, 5), (3, 1, 6), (3, 9, 7)] {
        let fakes = refusing(5, ErrorCode::OVERLOADED);
        let budget = BudgetOptions {
            burst: retries,
            ..BudgetOptions::none()
        };
        let channel = channel(&fakes, attempts_max, budget);
        let error = call(&channel).unwrap_err();
        assert_eq!(error.code(), ErrorCode::OVERLOADED);
        assert_eq!(
            requests(&fakes),
            asked,
            "{attempts_max} attempts, {retries} retries"
        );
        assert!(fakes.iter().all(|fake| fake.requests() > 0));
    }
}

#[test]
fn a_large_service_that_refuses_everywhere_is_not_asked_everywhere() {
    let fakes = refusing(24, ErrorCode::OVERLOADED);
    let channel = channel(&fakes, 1, BudgetOptions::none());
    assert_eq!(call(&channel).unwrap_err().code(), ErrorCode::OVERLOADED);
    // 16 for nothing, and the attempt.
    assert_eq!(requests(&fakes), 17);
}
