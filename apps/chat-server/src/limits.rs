//! [`ClientLimits`]: what one client may do, and how much of that the cluster lets it do how often.
//!
//! Budgets are counted on the bus, for all nodes together. While that is away each node counts for
//! itself, from the beginning.
//!
//! **Guessing passwords.** An attempt is charged before the password is looked at and given back when
//! it was right, so many attempts at once get no further than one after the other. Three budgets
//! have to allow it:
//!
//! | budget | against | the user at another address |
//! |---|---|---|
//! | of the address with this user | one stranger guessing | is not concerned |
//! | of the address | one stranger who tries many users | is not concerned |
//! | of the user | many strangers guessing together | is not concerned at an address that the user has logged in from lately; elsewhere has to wait |
//!
//! So nobody is locked out where they usually are. Refused attempts charge nothing: one stranger, whom the
//! first budget stops, cannot use up the third.
//!
//! **Made-up tokens** cannot be guessed right, but each costs a look into the store. So a resume is charged to
//! the address like a login, and given back when the token was right. Clients behind one address share what
//! one of them uses up; for a user who has come from there lately the first budget counts instead then, and
//! so the right token is looked at where the right password would have to wait.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use chat_bus::{Budget, Bus, BusError, LocalBudgets, Rate, Spending};
use chat_node::config::{self, Problems};
use chat_proto::client_address::ClientAddress;
use chat_proto::ids::code;
use chat_proto::messages::Rule;
use chat_store::UserId;
use serde::Deserialize;

use crate::failure::Failure;
use crate::log_limit::LogLimit;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const TOO_MANY_FAILED: &str = "too many failed logins";

static COUNTING_ALONE: LogLimit = LogLimit::once_a_minute();
static REFUSED: LogLimit = LogLimit::new();

/// What one client may do. The section `[clients]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientLimits {
    /// Registrations from one address. Default 100 per hour.
    pub registrations_per_address: Rate,
    /// Registrations of everybody together. Default 1,000 per 10 minutes.
    pub registrations: Rate,
    /// Failed logins and resumes from one address. Default 100 per 10 minutes.
    pub failed_logins_per_address: Rate,
    /// Failed logins from one address as one user. Default 10 per 10 minutes.
    pub failed_logins_per_address_and_user: Rate,
    /// Failed logins as one user, from addresses that the user has not logged in from lately. Default
    /// 50 per 25 minutes.
    pub failed_logins_per_user: Rate,
    /// How long an address is one that the user has logged in from lately, or resumed. Default 30 days.
    #[serde(with = "config::duration")]
    pub familiar_address_life: Duration,
    /// Passwords that are hashed at a time; each takes the memory of `PasswordCost`. Default 4.
    pub password_hashes_at_once: usize,
    /// Logins and registrations that wait, each on a worker, until one of those is done; more are
    /// answered "unavailable". Default 8.
    pub password_hashes_waiting_max: usize,
    /// The shortest password that can be chosen, in characters. Default 6.
    pub password_characters_min: usize,
    /// The longest name of a user or a group, in characters. Default 50.
    pub name_characters_max: usize,
    /// The longest description of a group, in characters. Default 250.
    pub description_characters_max: usize,
    /// The longest message, in characters; also at most 64 KiB. Default 16,384.
    pub message_characters_max: usize,
    /// Friends of a user. Default 1,000.
    pub friends_max: usize,
    /// Groups that a user is in. Default 100.
    pub groups_max: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            registrations_per_address: Rate::literal(100, 60 * MINUTE),
            registrations: Rate::literal(1000, 10 * MINUTE),
            failed_logins_per_address: Rate::literal(100, 10 * MINUTE),
            failed_logins_per_address_and_user: Rate::literal(10, 10 * MINUTE),
            failed_logins_per_user: Rate::literal(50, 25 * MINUTE),
            familiar_address_life: 30 * DAY,
            password_hashes_at_once: 4,
            password_hashes_waiting_max: 8,
            password_characters_min: 6,
            name_characters_max: 50,
            description_characters_max: 250,
            message_characters_max: 16 * 1024,
            friends_max: 1000,
            groups_max: 100,
        }
    }
}

impl ClientLimits {
    /// Notes what cannot work.
    pub(crate) fn check(&self, problems: &mut Problems) {
        for (key, value) in [
            ("password_hashes_at_once", self.password_hashes_at_once),
            ("password_characters_min", self.password_characters_min),
            ("name_characters_max", self.name_characters_max),
            ("message_characters_max", self.message_characters_max),
            ("friends_max", self.friends_max),
            ("groups_max", self.groups_max),
        ] {
            let key = format!("clients.{key}");
            problems.require(&key, value > 0, "expected at least 1");
        }
        for (key, value, most) in [
            ("name_characters_max", self.name_characters_max, 63),
            (
                "description_characters_max",
                self.description_characters_max,
                256,
            ),
            ("password_characters_min", self.password_characters_min, 64),
        ] {
            let key = format!("clients.{key}");
            problems.require(&key, value <= most, format!("expected at most {most}"));
        }
        problems.require(
            "clients.familiar_address_life",
            (MINUTE..=366 * DAY).contains(&self.familiar_address_life),
            "expected a minute to a year",
        );
    }
}

/// The budgets of the clients.
pub(crate) struct Limits {
    bus: Arc<dyn Bus>,
    /// For as long as the bus is away.
    alone: LocalBudgets,
    clients: ClientLimits,
}

/// A login, or a resume, that is charged as if it had failed.
pub(crate) struct LoginAttempt {
    budgets: Vec<Budget>,
    familiar: String,
}

impl Limits {
    pub(crate) fn new(bus: Arc<dyn Bus>, clients: ClientLimits) -> Self {
        Self {
            bus,
            alone: LocalBudgets::new(),
            clients,
        }
    }

    /// Charges a registration.
    ///
    /// # Errors
    /// RATE_LIMITED: there were too many.
    pub(crate) fn register(&self, address: ClientAddress) -> Result<(), Failure> {
        let budgets = [
            Budget {
                name: format!("register:{address}"),
                rate: self.clients.registrations_per_address,
            },
            Budget {
                name: "register".to_owned(),
                rate: self.clients.registrations,
            },
        ];
        self.spend(&budgets, "too many registrations")
    }

    /// Charges a login that has yet to show that its password is right. To be followed by
    /// [`succeeded`](Self::succeeded), by [`forget`](Self::forget), or, if it was wrong, by nothing.
    ///
    /// # Errors
    /// RATE_LIMITED: there were too many that failed.
    ///
    /// `user` is the user's id, or what stands for a name that nobody has.
    pub(crate) fn log_in(
        &self,
        address: ClientAddress,
        user: impl Display,
    ) -> Result<LoginAttempt, Failure> {
        let familiar = familiar(address, &user);
        let mut budgets = vec![self.of_both(address, &user), self.of_address(address)];
        if !self.remembers(&familiar) {
            budgets.push(Budget {
                name: format!("login:{user}"),
                rate: self.clients.failed_logins_per_user,
            });
        }
        self.spend(&budgets, TOO_MANY_FAILED)?;
        Ok(LoginAttempt { budgets, familiar })
    }

    /// Charges a resume that has yet to show that its token is right; as [`log_in`](Self::log_in).
    ///
    /// # Errors
    /// RATE_LIMITED: there were too many that failed.
    pub(crate) fn resume(
        &self,
        address: ClientAddress,
        user: UserId,
    ) -> Result<LoginAttempt, Failure> {
        let familiar = familiar(address, &user);
        let mut budgets = vec![self.of_address(address)];
        let mut spending = self.charge(&budgets);
        if spending != Spending::Granted && self.remembers(&familiar) {
            budgets = vec![self.of_both(address, &user)];
            spending = self.charge(&budgets);
        }
        granted(&budgets, spending, TOO_MANY_FAILED)?;
        Ok(LoginAttempt { budgets, familiar })
    }

    /// The password or the token was right.
    pub(crate) fn succeeded(&self, attempt: &LoginAttempt) {
        let life = self.clients.familiar_address_life;
        if let Err(error) = self.bus.remember(&attempt.familiar, life) {
            on_its_own(&error);
            self.alone.remember(&attempt.familiar, life);
        }
        self.forget(attempt);
    }

    /// The password or the token was not looked at.
    pub(crate) fn forget(&self, attempt: &LoginAttempt) {
        if let Err(error) = self.bus.refund(&attempt.budgets) {
            on_its_own(&error);
            self.alone.refund(&attempt.budgets);
        }
    }

    fn of_address(&self, address: ClientAddress) -> Budget {
        Budget {
            name: format!("login-from:{address}"),
            rate: self.clients.failed_logins_per_address,
        }
    }

    fn of_both(&self, address: ClientAddress, user: &impl Display) -> Budget {
        Budget {
            name: format!("login:{user}:{address}"),
            rate: self.clients.failed_logins_per_address_and_user,
        }
    }

    fn remembers(&self, fact: &str) -> bool {
        self.bus.remembers(fact).unwrap_or_else(|error| {
            on_its_own(&error);
            self.alone.remembers(fact)
        })
    }

    fn spend(&self, budgets: &[Budget], refusal: &str) -> Result<(), Failure> {
        granted(budgets, self.charge(budgets), refusal)
    }

    fn charge(&self, budgets: &[Budget]) -> Spending {
        self.bus.spend(budgets).unwrap_or_else(|error| {
            on_its_own(&error);
            self.alone.spend(budgets)
        })
    }
}

/// The fact that the user has come from that address lately.
fn familiar(address: ClientAddress, user: &impl Display) -> String {
    format!("familiar:{user}:{address}")
}

fn granted(budgets: &[Budget], spending: Spending, refusal: &str) -> Result<(), Failure> {
    let Spending::UsedUp { index, wait } = spending else {
        return Ok(());
    };
    let name = budgets.get(index).map_or("", |budget| &budget.name);
    if REFUSED.allows() {
        log::info!("refused: {refusal}: {name}");
    }
    let seconds = wait.as_secs() + 1;
    let text = format!("{refusal}, try again in {seconds} s");
    Err(Failure::new(code::RATE_LIMITED, text).because(Rule::TooOften, seconds))
}

fn on_its_own(error: &BusError) {
    if COUNTING_ALONE.allows() {
        log::warn!("clients' limits are counted by this node alone: {error}");
    }
}

#[cfg(test)]
mod tests {
    use chat_bus::LocalBus;

    use super::*;

    fn limits(change: impl FnOnce(&mut ClientLimits)) -> Limits {
        let mut clients = ClientLimits::default();
        change(&mut clients);
        Limits::new(Arc::new(LocalBus::new()), clients)
    }

    fn address(text: &str) -> ClientAddress {
        text.parse().expect("an address")
    }

    fn user(id: i32) -> UserId {
        UserId::new(id).expect("positive")
    }

    /// How many of many attempts are let through, none of them with the right password.
    fn guesses(limits: &Limits, from: &str, id: i32) -> usize {
        let guess = |_: &usize| limits.log_in(address(from), user(id)).is_ok();
        (0..100).filter(guess).count()
    }

    #[test]
    fn one_stranger_is_stopped_and_the_user_is_not() {
        let limits = limits(|_| {});
        assert_eq!(guesses(&limits, "192.0.2.1", 7), 10);
        // The user from elsewhere, the stranger as somebody else, and somebody else from there.
        for (from, id) in [("192.0.2.2", 7), ("192.0.2.1", 8)] {
            let attempt = limits.log_in(address(from), user(id));
            assert!(attempt.is_ok(), "{from} {id}");
        }
    }

    #[test]
    fn one_stranger_who_tries_many_users_is_stopped() {
        let limits = limits(|_| {});
        let tried: usize = (1..=100)
            .map(|id| guesses(&limits, "2001:db8::1", id))
            .sum();
        assert_eq!(tried, 100);
        // Another address of the same network is no other client.
        assert_eq!(guesses(&limits, "2001:db8::2", 101), 0);
        assert_eq!(guesses(&limits, "2001:db8:0:1::1", 101), 10);
    }

    #[test]
    fn many_strangers_slow_a_user_down_but_not_where_the_user_usually_is() {
        let limits = limits(|_| {});
        let home = address("198.51.100.1");
        let at_home = limits.log_in(home, user(7)).unwrap();
        limits.succeeded(&at_home);
        let strangers = (1..=100).map(|n| guesses(&limits, &format!("192.0.2.{n}"), 7));
        assert_eq!(strangers.sum::<usize>(), 50);
        assert!(limits.log_in(address("203.0.113.1"), user(7)).is_err());
        assert!(limits.log_in(home, user(7)).is_ok());
    }

    #[test]
    fn made_up_tokens_use_up_their_address_and_not_the_way_back_of_those_who_are_known_there() {
        let limits = limits(|clients| {
            clients.failed_logins_per_address = Rate::literal(20, DAY);
            clients.failed_logins_per_address_and_user = Rate::literal(3, DAY);
        });
        let (shared, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let resumes = |from: ClientAddress, id: i32| {
            let tried = (0..30).filter(|_| limits.resume(from, user(id)).is_ok());
            tried.count()
        };
        for id in [7, 8] {
            limits.succeeded(&limits.resume(shared, user(id)).unwrap());
        }
        assert_eq!(resumes(shared, 9), 20);
        // Who was never there waits, as everybody does with the password, and others do nowhere else.
        assert!(limits.resume(shared, user(10)).is_err());
        assert!(limits.log_in(shared, user(7)).is_err());
        assert!(limits.resume(other, user(10)).is_ok());
        // Right tokens of those who are known cost nothing; wrong ones in their name are few.
        for _ in 0..30 {
            limits.succeeded(&limits.resume(shared, user(7)).unwrap());
        }
        assert_eq!(resumes(shared, 8), 3);
        assert!(limits.resume(shared, user(7)).is_ok());
    }

    #[test]
    fn while_the_bus_is_away_a_node_counts_alone() {
        // Nothing listens on port 1.
        let config = chat_bus::RedisConfig::new("redis://127.0.0.1:1");
        let bus = chat_bus::RedisBus::new(config).expect("a good configuration");
        let limits = Limits::new(Arc::new(bus), ClientLimits::default());
        assert_eq!(guesses(&limits, "192.0.2.1", 7), 10);
        let attempt = limits.log_in(address("192.0.2.2"), user(7)).unwrap();
        limits.succeeded(&attempt);
        assert!(limits.remembers("familiar:7:192.0.2.2"));
    }

    #[test]
    fn right_passwords_cost_nothing() {
        let limits = limits(|_| {});
        for _ in 0..500 {
            let attempt = limits.log_in(address("192.0.2.1"), user(7)).unwrap();
            limits.succeeded(&attempt);
        }
    }

    #[test]
    fn registrations_are_limited_by_address_and_in_all() {
        let limits = limits(|clients| {
            clients.registrations_per_address = Rate::literal(3, MINUTE);
            clients.registrations = Rate::literal(5, MINUTE);
        });
        let registered = |from: &str| {
            let from = address(from);
            (0..10).filter(|_| limits.register(from).is_ok()).count()
        };
        assert_eq!(registered("192.0.2.1"), 3);
        assert_eq!(registered("192.0.2.2"), 2);
        let refused = limits.register(address("192.0.2.3")).unwrap_err();
        let (code, text) = refused.into_parts("test");
        assert_eq!(code, code::RATE_LIMITED);
        assert!(text.contains("try again in 12 s"), "{text}");
    }
}
