//! A user who vanishes without a goodbye, and what a friend sees of it.
//!
//! They are users beside those of the load, who come back at once and so are never away.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use chat_client::{ChatClient, ClientOptions, Presence, UserId};
use chat_load::{Roster, Shape};
use nexus_net::ClientTls;

use crate::Error;

/// Two friends.
pub(crate) const SHAPE: Shape = Shape {
    pairs: 1,
    friends: 1,
    groups: 0,
    group_members: 0,
    idle: 0,
};

/// How long the proxies wait for a word of a client: above the load's own patience, so that its users are never
/// taken for gone.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(8);
/// How often the two say a word.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// What may be added to it until a friend sees that the user is gone.
const NEWS_WITHIN: Duration = Duration::from_secs(5);
/// For a login, and for its news.
const LOGIN_WITHIN: Duration = Duration::from_secs(30);
/// How often the friend looks.
const INTERVAL: Duration = Duration::from_millis(50);

/// What a friend saw of a user who vanished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// How long after the last possible word the user was offline; `None`: not in time.
    pub offline_after: Option<Duration>,
    /// How long the next login took, until the friend saw it; `None`: it did not work.
    pub back_after: Option<Duration>,
}

impl Absence {
    /// Whether the friend saw the user go, for being silent and not for a goodbye that was heard after all, and come
    /// back.
    pub fn is_good(&self) -> bool {
        let for_silence = IDLE_TIMEOUT.saturating_sub(HEARTBEAT_INTERVAL);
        self.offline_after.is_some_and(|after| after >= for_silence) && self.back_after.is_some()
    }
}

/// The two users.
pub(crate) struct Friends {
    password: String,
    vanishing: UserId,
    staying: UserId,
    tls: Option<ClientTls>,
}

/// Both are logged in, and the one sees the other.
pub(crate) struct Together<'a> {
    friends: &'a Friends,
    vanishing: ChatClient,
    staying: ChatClient,
}

/// The one has gone.
pub(crate) struct Apart<'a> {
    friends: &'a Friends,
    staying: ChatClient,
}

impl Friends {
    /// The first pair of a roster; `None` when it has none.
    pub(crate) fn of(roster: &Roster, tls: Option<ClientTls>) -> Option<Self> {
        let pair = &roster.conversations.first()?.members;
        Some(Self {
            password: roster.password.clone(),
            vanishing: UserId::new(*pair.first()?)?,
            staying: UserId::new(*pair.get(1)?)?,
            tls,
        })
    }

    /// Logs both in: the one who is going to vanish by `way`, the other by `other_way`.
    ///
    /// # Errors
    /// [`Error::Start`]: it does not work although nothing was done to the chat.
    pub(crate) fn enter(
        &self,
        way: SocketAddr,
        other_way: SocketAddr,
    ) -> Result<Together<'_>, Error> {
        let enter = |user, way| {
            let client = self.log_in(user, way)?;
            client.ok_or(Error::Start("a user cannot log in"))
        };
        let together = Together {
            friends: self,
            vanishing: enter(self.vanishing, way)?,
            staying: enter(self.staying, other_way)?,
        };
        match self.wait_for(&together.staying, Presence::Online, LOGIN_WITHIN) {
            true => Ok(together),
            false => Err(Error::Start("a user who is online does not look so")),
        }
    }

    fn log_in(&self, user: UserId, way: SocketAddr) -> Result<Option<ChatClient>, Error> {
        let options = ClientOptions {
            tls: self.tls.clone(),
            heartbeat_interval: HEARTBEAT_INTERVAL,
            ..ClientOptions::default()
        };
        // Nobody reads the events: there are no messages.
        let (client, _) = ChatClient::connect(way, options)?;
        let until = Instant::now() + LOGIN_WITHIN;
        while Instant::now() < until {
            if client
                .login(user, &self.password)
                .wait(LOGIN_WITHIN)
                .is_ok()
            {
                return Ok(Some(client));
            }
            thread::sleep(INTERVAL);
        }
        Ok(None)
    }

    /// Waits until the friend sees the other one so.
    fn wait_for(&self, staying: &ChatClient, presence: Presence, within: Duration) -> bool {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let friends = staying.friends().wait(left).unwrap_or_default();
            let mut seen = friends.iter().filter(|one| one.user == self.vanishing);
            if seen.any(|one| one.presence == presence) {
                return true;
            }
            thread::sleep(INTERVAL);
        }
    }
}

impl<'a> Together<'a> {
    /// To be called when the one's way is silent: what its client says on leaving is not heard.
    pub(crate) fn part(self) -> Apart<'a> {
        drop(self.vanishing);
        Apart {
            friends: self.friends,
            staying: self.staying,
        }
    }
}

impl Apart<'_> {
    /// Waits until the friend sees that the user is gone, and logs the user in once more by `way`. Nothing was
    /// heard of the user after `begun`.
    ///
    /// # Errors
    /// A client cannot be started.
    pub(crate) fn watch(self, begun: Instant, way: SocketAddr) -> Result<Absence, Error> {
        let Self { friends, staying } = self;
        let within = (begun + IDLE_TIMEOUT + NEWS_WITHIN).saturating_duration_since(Instant::now());
        let is_gone = friends.wait_for(&staying, Presence::Offline, within);
        let offline_after = is_gone.then(|| begun.elapsed());
        let again = Instant::now();
        let client = friends.log_in(friends.vanishing, way)?;
        let is_back =
            client.is_some() && friends.wait_for(&staying, Presence::Online, LOGIN_WITHIN);
        Ok(Absence {
            offline_after,
            back_after: is_back.then(|| again.elapsed()),
        })
    }
}
