//! [`LocalBus`]: presence and messages inside one process.
//!
//! Keeps the contract of [`Bus`] to the letter, leases and lost messages included, so that what
//! works on it works on Redis.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, select_biased};
use parking_lot::Mutex;

use crate::subscription::StopSignal;
use crate::{
    Attempt, Budget, Bus, BusError, BusEvent, Claim, ClaimOrder, HeldSession, LOST_LIFE, LOST_MAX,
    Lease, LocalBudgets, LoginNumber, LoginPolicy, NO_NUMBER, OVER_LIFE, OnEvent, ProxyId,
    Restored, SessionRef, Spending, Subscription, check_sizes, lease_time, over_fact,
};

/// Most messages and bytes that wait for one subscriber; at either limit the backlog is lost.
const BACKLOG_MAX: usize = 16 * 1024;
const BACKLOG_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Users whose past is kept though they are offline, beside as many as are online.
const OFFLINE_MAX: usize = 10_000;

/// A bus for one process; clones share it.
#[derive(Clone, Default)]
pub struct LocalBus {
    presence: Arc<Mutex<Presence>>,
    inboxes: Arc<Mutex<HashMap<ProxyId, Vec<Arc<Inbox>>>>>,
    budgets: Arc<LocalBudgets>,
}

impl LocalBus {
    /// A bus on which nobody is online and nobody listens.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Bus for LocalBus {
    fn claim(
        &self,
        user: i32,
        session: SessionRef,
        order: ClaimOrder,
        policy: LoginPolicy,
    ) -> Result<Claim, BusError> {
        let login = order.login;
        let mut presence = self.presence.lock();
        if self.budgets.remembers(&over_fact(session)) {
            return Ok(Claim::Over);
        }
        let now = Instant::now();
        if presence.other(user, session, now).is_some() && policy == LoginPolicy::OlderWins {
            return Ok(Claim::Refused);
        }
        let latest = presence.latest(user);
        if login != NO_NUMBER && login < latest {
            return Ok(Claim::Outdated { latest });
        }
        let asked = Asked {
            attempt: order.attempt,
            at: now.checked_sub(order.waited).unwrap_or(now),
        };
        if login <= latest
            && (presence.has_lost(user, session, now) || presence.was_overtaken(user, asked))
        {
            return Ok(Claim::Over);
        }
        let replaced = presence.give(user, session, login, Some(asked), now);
        Ok(Claim::Granted { replaced })
    }

    fn claimed_since(&self, user: i32, waited: Duration) -> Result<bool, BusError> {
        let asked = Instant::now().checked_sub(waited);
        let presence = self.presence.lock();
        let last = presence.pasts.get(&user).and_then(|past| past.asked);
        Ok(last.zip(asked).is_some_and(|(last, asked)| last.at > asked))
    }

    fn release(&self, user: i32, session: SessionRef) -> Result<bool, BusError> {
        let mut presence = self.presence.lock();
        // Under the lock, as claims look at it: of the two one comes first.
        self.budgets.remember(&over_fact(session), OVER_LIFE);
        let held = presence.users.get(&user) == Some(&session);
        if held {
            presence.users.remove(&user);
        }
        Ok(held)
    }

    fn locate(&self, users: &[i32]) -> Result<Vec<Option<SessionRef>>, BusError> {
        let presence = self.presence.lock();
        let now = Instant::now();
        Ok(users.iter().map(|&user| presence.live(user, now)).collect())
    }

    fn renew_lease(&self, proxy: ProxyId, time_to_live: Duration) -> Result<Lease, BusError> {
        let mut presence = self.presence.lock();
        let now = Instant::now();
        let kept = presence.has_lease(proxy, now);
        presence
            .leases
            .insert(proxy, now + lease_time(time_to_live));
        if kept {
            return Ok(Lease::Kept);
        }
        presence.forget_dead(now);
        Ok(Lease::New)
    }

    fn restore(&self, proxy: ProxyId, sessions: &[HeldSession]) -> Result<Restored, BusError> {
        let mut presence = self.presence.lock();
        let now = Instant::now();
        let mut restored = Restored::default();
        for &HeldSession {
            user,
            session,
            login,
        } in sessions
        {
            let session = SessionRef { proxy, session };
            let latest = presence.latest(user);
            let is_over = self.budgets.remembers(&over_fact(session));
            if is_over || (login != NO_NUMBER && login < latest) {
                restored.outdated.push(user);
            } else if presence.other(user, session, now).is_some() && login <= latest {
                restored.taken.push(user);
            } else {
                let replaced = presence.give(user, session, login, None, now).into_iter();
                restored.replaced.extend(replaced.map(|lost| (user, lost)));
            }
        }
        Ok(restored)
    }

    fn retain(
        &self,
        proxy: ProxyId,
        is_held: &dyn Fn(i32, u64) -> bool,
    ) -> Result<usize, BusError> {
        let mut presence = self.presence.lock();
        let mut over = Vec::new();
        presence.users.retain(|&user, held| {
            let stays = held.proxy != proxy || is_held(user, held.session);
            if !stays {
                over.push(*held);
            }
            stays
        });
        for session in &over {
            self.budgets.remember(&over_fact(*session), OVER_LIFE);
        }
        Ok(over.len())
    }

    fn end_lease(&self, proxy: ProxyId) -> Result<(), BusError> {
        let mut presence = self.presence.lock();
        presence.leases.remove(&proxy);
        presence.forget_dead(Instant::now());
        Ok(())
    }

    fn publish(&self, messages: &[(ProxyId, Bytes)]) -> Result<(), BusError> {
        check_sizes(messages)?;
        // Held over the whole call: calls that overlap are told apart by every subscriber alike.
        let inboxes = self.inboxes.lock();
        for (proxy, message) in messages {
            for inbox in inboxes.get(proxy).into_iter().flatten() {
                inbox.put(message.clone());
            }
        }
        Ok(())
    }

    fn subscribe(&self, proxy: ProxyId, on_event: OnEvent) -> Subscription {
        let (inbox, arrived) = Inbox::new();
        self.inboxes
            .lock()
            .entry(proxy)
            .or_default()
            .push(Arc::clone(&inbox));
        let inboxes = Arc::clone(&self.inboxes);
        Subscription::spawn(move |stop| {
            deliver(&inbox, &arrived, &stop, on_event);
            let mut inboxes = inboxes.lock();
            if let Some(same_proxy) = inboxes.get_mut(&proxy) {
                same_proxy.retain(|other| !Arc::ptr_eq(other, &inbox));
                if same_proxy.is_empty() {
                    inboxes.remove(&proxy);
                }
            }
        })
    }

    fn spend(&self, budgets: &[Budget]) -> Result<Spending, BusError> {
        Ok(self.budgets.spend(budgets))
    }

    fn refund(&self, budgets: &[Budget]) -> Result<(), BusError> {
        self.budgets.refund(budgets);
        Ok(())
    }

    fn remember(&self, fact: &str, life: Duration) -> Result<(), BusError> {
        self.budgets.remember(fact, life);
        Ok(())
    }

    fn remembers(&self, fact: &str) -> Result<bool, BusError> {
        Ok(self.budgets.remembers(fact))
    }
}

/// Who is where, and whose lease lasts until when.
#[derive(Default)]
struct Presence {
    users: HashMap<i32, SessionRef>,
    pasts: HashMap<i32, Past>,
    leases: HashMap<ProxyId, Instant>,
}

/// What is remembered of a user.
#[derive(Default)]
struct Past {
    latest: LoginNumber,
    /// What the client of the last claim has asked for.
    asked: Option<Asked>,
    /// Sessions that lost the user, and until when they are named.
    lost: VecDeque<(SessionRef, Instant)>,
}

/// When, and by which attempt, a client has asked for its session.
#[derive(Clone, Copy)]
struct Asked {
    attempt: Attempt,
    at: Instant,
}

impl Presence {
    /// Whether the user's client has asked for a session later than for this.
    fn was_overtaken(&self, user: i32, asked: Asked) -> bool {
        let last = self.pasts.get(&user).and_then(|past| past.asked);
        last.is_some_and(|last| {
            let by_count = asked.attempt.is_before(&last.attempt);
            by_count.unwrap_or(asked.at < last.at)
        })
    }

    fn latest(&self, user: i32) -> LoginNumber {
        self.pasts.get(&user).map_or(NO_NUMBER, |past| past.latest)
    }

    fn has_lost(&self, user: i32, session: SessionRef, now: Instant) -> bool {
        let past = self.pasts.get(&user);
        let mut lost = past.into_iter().flat_map(|past| &past.lost);
        lost.any(|&(lost, until)| lost == session && now < until)
    }

    /// The live session that has the user, if it is another one.
    fn other(&self, user: i32, session: SessionRef, now: Instant) -> Option<SessionRef> {
        self.live(user, now).filter(|&held| held != session)
    }

    /// Makes a session that of a user, and returns those that lost the user. `asked`: `None` if it is put back.
    fn give(
        &mut self,
        user: i32,
        session: SessionRef,
        login: LoginNumber,
        asked: Option<Asked>,
        now: Instant,
    ) -> Vec<SessionRef> {
        let other = self.other(user, session, now);
        self.users.insert(user, session);
        if self.pasts.len() > 2 * self.users.len() + OFFLINE_MAX {
            self.pasts.retain(|user, _| self.users.contains_key(user));
        }
        let past = self.pasts.entry(user).or_default();
        let is_known = login <= past.latest && past.asked.is_some();
        past.latest = past.latest.max(login);
        // Of one that is put back it is only known that it was not later than now.
        let unknown = Asked {
            attempt: Attempt::default(),
            at: now,
        };
        match asked {
            Some(asked) => past.asked = Some(asked),
            None if is_known => {}
            None => past.asked = Some(unknown),
        }
        past.lost
            .retain(|&(lost, until)| now < until && lost != session && Some(lost) != other);
        past.lost
            .extend(other.map(|other| (other, now + LOST_LIFE)));
        if past.lost.len() > LOST_MAX {
            past.lost.pop_front();
        }
        past.lost.iter().map(|&(lost, _)| lost).collect()
    }

    fn has_lease(&self, proxy: ProxyId, now: Instant) -> bool {
        self.leases.get(&proxy).is_some_and(|&until| now < until)
    }

    fn live(&self, user: i32, now: Instant) -> Option<SessionRef> {
        self.users
            .get(&user)
            .copied()
            .filter(|held| self.has_lease(held.proxy, now))
    }

    /// Drops what no longer counts. Done when a lease comes or goes, which is seldom.
    fn forget_dead(&mut self, now: Instant) {
        self.leases.retain(|_, &mut until| now < until);
        self.users
            .retain(|_, held| self.leases.contains_key(&held.proxy));
    }
}

/// What waits for one subscriber.
struct Inbox {
    backlog: Mutex<Backlog>,
    /// Holds one token while the backlog has something the subscriber has not been woken for.
    wake: Sender<()>,
}

#[derive(Default)]
struct Backlog {
    messages: VecDeque<Bytes>,
    bytes: usize,
    lost: bool,
}

impl Inbox {
    fn new() -> (Arc<Self>, Receiver<()>) {
        let (wake, arrived) = bounded(1);
        (
            Arc::new(Self {
                backlog: Mutex::default(),
                wake,
            }),
            arrived,
        )
    }

    fn put(&self, message: Bytes) {
        let mut backlog = self.backlog.lock();
        if backlog.messages.len() >= BACKLOG_MAX
            || backlog.bytes + message.len() > BACKLOG_BYTES_MAX
        {
            // As Redis does: a subscriber that is too slow loses all that waits for it.
            *backlog = Backlog {
                lost: true,
                ..Backlog::default()
            };
        }
        backlog.bytes += message.len();
        backlog.messages.push_back(message);
        drop(backlog);
        // Full means that the subscriber is about to look anyway.
        let _ = self.wake.try_send(());
    }

    fn take(&self) -> Backlog {
        std::mem::take(&mut *self.backlog.lock())
    }
}

/// The subscriber's thread.
fn deliver(inbox: &Inbox, arrived: &Receiver<()>, stop: &StopSignal, mut on_event: OnEvent) {
    on_event(BusEvent::Connected);
    loop {
        select_biased! {
            recv(stop.receiver()) -> _ => return,
            recv(arrived) -> _ => {}
        }
        let backlog = inbox.take();
        if backlog.lost {
            log::warn!("a bus subscriber was too slow: messages lost");
            on_event(BusEvent::Lost);
            on_event(BusEvent::Connected);
        }
        for message in backlog.messages {
            if stop.is_set() {
                return;
            }
            on_event(BusEvent::Message(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_subscriber_loses_its_backlog_and_is_told_so() {
        let bus = LocalBus::new();
        let proxy = ProxyId::random();
        let (at_gate, reached) = bounded(0);
        let (open, gate) = bounded::<()>(0);
        let (events, seen) = crossbeam_channel::unbounded();
        let mut first = true;
        let subscription = bus.subscribe(
            proxy,
            Box::new(move |event| {
                if std::mem::take(&mut first) {
                    at_gate.send(()).expect("the test waits");
                    let _ = gate.recv();
                }
                let _ = events.send(event);
            }),
        );
        reached.recv().expect("the subscription starts");
        for _ in 0..=BACKLOG_MAX {
            bus.publish(&[(proxy, Bytes::from_static(b"x"))])
                .expect("published");
        }
        drop(open);
        let next = || {
            seen.recv_timeout(Duration::from_secs(10))
                .expect("an event")
        };
        assert_eq!(next(), BusEvent::Connected);
        assert_eq!(next(), BusEvent::Lost);
        assert_eq!(next(), BusEvent::Connected);
        assert_eq!(next(), BusEvent::Message(Bytes::from_static(b"x")));
        drop(subscription);
        assert!(bus.inboxes.lock().is_empty());
    }

    #[test]
    fn entries_of_dead_proxies_do_not_pile_up() {
        let bus = LocalBus::new();
        for user in 0..100 {
            let proxy = ProxyId::random();
            bus.renew_lease(proxy, Duration::from_secs(60))
                .expect("renewed");
            let session = SessionRef { proxy, session: 1 };
            bus.claim(user, session, 1.into(), LoginPolicy::NewerWins)
                .expect("claimed");
            bus.end_lease(proxy).expect("ended");
        }
        let presence = bus.presence.lock();
        assert!(presence.users.is_empty() && presence.leases.is_empty());
    }

    #[test]
    fn what_is_remembered_of_users_who_are_offline_does_not_pile_up() {
        let bus = LocalBus::new();
        let proxy = ProxyId::random();
        let session = SessionRef { proxy, session: 1 };
        for user in 0..=OFFLINE_MAX as i32 + 10 {
            bus.claim(user, session, 1.into(), LoginPolicy::NewerWins)
                .expect("claimed");
            bus.release(user, session).expect("released");
        }
        assert!(bus.presence.lock().pasts.len() < 100);
    }
}
