//! What one client may do, on the chat in one process, with clients at several addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use chat_bus::Rate;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use chat_server::PasswordCost;
use chat_standalone::Standalone;
use chat_tests::WireClient;

const PASSWORD: &str = "correct horse";
const HOUR: Duration = Duration::from_secs(60 * 60);
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

struct Setting {
    chat: Standalone,
    _data: tempfile::TempDir,
}

impl Setting {
    fn new(
        adjust: impl FnOnce(&mut chat_server::ServerOptions, &mut chat_proxy::ProxyOptions),
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let any_port: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let chat = Standalone::start(any_port, data.path(), |server, proxy| {
            server.password_cost = PasswordCost::MINIMAL;
            adjust(server, proxy);
        })
        .unwrap();
        nexus_testkit::wait_until("the chat is ready", Duration::from_secs(30), || {
            chat.is_ready()
        });
        Self { chat, _data: data }
    }

    fn connect(&self, from: IpAddr) -> WireClient {
        WireClient::connect_from(from, self.chat.local_addr())
    }

    fn register(&self, from: IpAddr, name: &str) -> RegisterResponse {
        self.connect(from).register(name, PASSWORD)
    }

    fn login(&self, from: IpAddr, user: i32, password: &str) -> i32 {
        self.connect(from).login(user, password, true).error_code
    }

    fn resume(&self, from: IpAddr, user: i32, token: &Bytes) -> i32 {
        self.connect(from).resume(user, token, &[]).error_code
    }
}

#[test]
fn registrations_are_limited_per_address() {
    let setting = Setting::new(|server, _| {
        server.clients.registrations_per_address = Rate::literal(3, HOUR);
    });
    for name in ["one", "two", "three"] {
        assert_eq!(setting.register(HOME, name).error_code, code::SUCCESS);
    }
    let refused = setting.register(HOME, "four");
    assert_eq!(refused.error_code, code::RATE_LIMITED);
    assert!(refused.error_text.contains("try again"), "{refused:?}");
    let other = setting.register(ELSEWHERE, "four");
    assert_eq!(other.error_code, code::SUCCESS);
}

#[test]
fn a_stranger_who_guesses_does_not_lock_the_user_out() {
    let setting = Setting::new(|server, _| {
        server.clients.failed_logins_per_address_and_user = Rate::literal(4, HOUR);
        server.clients.failed_logins_per_user = Rate::literal(6, HOUR);
    });
    let user = setting.register(HOME, "ann").user_id;
    assert_eq!(setting.login(HOME, user, PASSWORD), code::SUCCESS);
    // Many strangers, until nobody unknown gets a try.
    let strangers = (10..20).map(|host| IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)));
    let tried: usize = strangers
        .map(|from| {
            (0..10)
                .filter(|_| setting.login(from, user, "a guess") == code::LOGIN_WRONG_PASSWORD)
                .count()
        })
        .sum();
    assert_eq!(tried, 6);
    assert_eq!(setting.login(ELSEWHERE, user, PASSWORD), code::RATE_LIMITED);
    assert_eq!(setting.login(HOME, user, PASSWORD), code::SUCCESS);
}

#[test]
fn connections_of_one_address_are_limited_and_others_are_not_concerned() {
    let setting = Setting::new(|_, proxy| proxy.clients.connections_per_address_max = 3);
    let mut held: Vec<WireClient> = (0..3).map(|_| setting.connect(HOME)).collect();
    for client in &mut held {
        client.assert_no_push();
    }
    let mut told = setting.connect(HOME).closed();
    let notice = told.pop().expect("told why");
    assert_eq!(notice.message_id, MessageId::ERROR.0);
    setting.connect(ELSEWHERE).assert_no_push();
}

#[test]
fn logins_of_one_address_are_limited_and_others_are_not_concerned() {
    let setting =
        Setting::new(|_, proxy| proxy.clients.logins_per_address = Rate::literal(3, HOUR));
    let user = setting.register(HOME, "ann").user_id;
    assert_eq!(setting.login(HOME, user, PASSWORD), code::SUCCESS);
    let made_up = Bytes::from_static(&[0; 32]);
    assert_eq!(setting.resume(HOME, user, &made_up), code::SESSION_ENDED);
    assert_eq!(setting.resume(HOME, user, &made_up), code::RATE_LIMITED);
    assert_eq!(setting.login(HOME, user, PASSWORD), code::RATE_LIMITED);
    assert_eq!(setting.login(ELSEWHERE, user, PASSWORD), code::SUCCESS);
}

#[test]
fn messages_of_one_user_are_limited_and_what_was_refused_is_not_stored() {
    let setting = Setting::new(|_, proxy| {
        proxy.clients.messages_per_user = Rate::literal(5, HOUR);
    });
    let [ann, bob] = ["ann", "bob"].map(|name| setting.register(HOME, name).user_id);
    let mut client = setting.connect(HOME);
    assert_eq!(client.login(ann, PASSWORD, true).error_code, code::SUCCESS);
    assert_eq!(client.add_friend(bob).error_code, code::SUCCESS);
    let codes: Vec<i32> = (0..8)
        .map(|_| client.chat(bob, "hello").error_code)
        .collect();
    let (sent, refused) = codes.split_at(5);
    assert!(sent.iter().all(|&code| code == code::SUCCESS), "{codes:?}");
    assert!(
        refused.iter().all(|&code| code == code::RATE_LIMITED),
        "{codes:?}"
    );
    let answer = setting.connect(ELSEWHERE).login(bob, PASSWORD, true);
    let pending = answer.offline_message_list.unwrap_or_default().messages;
    let chats = pending.iter().filter(|message| message.content == "hello");
    assert_eq!(chats.count(), 5);
}
