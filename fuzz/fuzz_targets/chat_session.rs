//! Clients of the whole chat in one process, over real sockets: whatever one of them sends, each request
//! that can be understood is answered once, the connection ends, nothing panics, and what two others
//! said to each other stays as it is. About half of the connections begin with a good login.
#![no_main]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use chat_bus::Rate;
use chat_server::PasswordCost;
use chat_standalone::Standalone;
use chat_tests::WireClient;
use chat_tests::hostile::{Known, Witness, endure, pieces};
use libfuzzer_sys::fuzz_target;
use parking_lot::Mutex;

const PASSWORD: &str = "not so secret";
/// A login as [`pieces`] reads it.
const LOGIN: [u8; 3] = [1, 1, 2];

struct Setting {
    address: SocketAddr,
    known: Known,
    witness: Witness,
    _chat: Standalone,
    _data: tempfile::TempDir,
}

static SETTING: Mutex<Option<Setting>> = Mutex::new(None);

fuzz_target!(|data: &[u8]| {
    let mut setting = SETTING.lock();
    let setting = setting.get_or_insert_with(Setting::new);
    let mut input = data.to_vec();
    if data.first().is_some_and(|first| first % 2 == 0) {
        input.splice(0..0, LOGIN);
    }
    endure(setting.address, &pieces(&input, &setting.known));
    setting.witness.check();
});

impl Setting {
    fn new() -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let chat = Standalone::start(any_port, data.path(), |server, proxy| {
            server.password_cost = PasswordCost::MINIMAL;
            // The witness asks once for each input, on one connection, and many inputs log in.
            let any = Rate::literal(1_000_000, Duration::from_secs(1));
            proxy.clients.requests_per_connection = any;
            proxy.clients.logins_per_address = any;
        })
        .expect("the chat starts");
        while !chat.is_ready() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let address = chat.local_addr();
        let (witness, others) = Witness::new(address);
        let own = WireClient::connect(address).register("mallory", PASSWORD);
        let known = Known {
            own_user: own.user_id,
            password: PASSWORD,
            others,
        };
        Self {
            address,
            known,
            witness,
            _chat: chat,
            _data: data,
        }
    }
}
