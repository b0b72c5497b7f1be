//! Hostile clients of the chat in one process, over real sockets.

use std::cell::RefCell;
use std::time::Duration;

use chat_proto::ids::code;
use chat_server::PasswordCost;
use chat_standalone::Standalone;
use chat_tests::WireClient;
use chat_tests::hostile::{Known, Witness, endure, pieces};
use proptest::prelude::*;

const PASSWORD: &str = "not so secret";

#[test]
fn whatever_a_client_sends_is_answered_and_harms_nobody() {
    let data = tempfile::tempdir().unwrap();
    let chat = Standalone::start("127.0.0.1:0".parse().unwrap(), data.path(), |server, _| {
        server.password_cost = PasswordCost::MINIMAL;
    })
    .unwrap();
    nexus_testkit::wait_until("the chat is ready", Duration::from_secs(30), || {
        chat.is_ready()
    });
    let address = chat.local_addr();
    let (witness, others) = Witness::new(address);
    let witness = RefCell::new(witness);
    let own = WireClient::connect(address).register("mallory", PASSWORD);
    assert_eq!(own.error_code, code::SUCCESS);
    let known = Known {
        own_user: own.user_id,
        password: PASSWORD,
        others,
    };
    // Half of the connections begin with a good login.
    let input = (any::<bool>(), prop::collection::vec(any::<u8>(), 0..600));
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(256)
    };
    proptest!(config, |((logs_in, mut input) in input)| {
        if logs_in {
            input.splice(0..0, [1, 1, 2]);
        }
        endure(address, &pieces(&input, &known));
        witness.borrow_mut().check();
    });
    chat.drain(Duration::from_secs(10));
}
