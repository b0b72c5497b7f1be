//! What arrives without being asked for: shown at once, from a thread of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chat_client::{Event, Friend, Group, GroupId, Language, UserId};
use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::phrases;
use super::screen::Announcer;

/// Names that were heard of, so that lines can show them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: HashMap<UserId, String>,
    groups: HashMap<GroupId, String>,
}

impl Names {
    pub(crate) fn me(&mut self, user: UserId, name: &str) {
        self.users.insert(user, name.to_owned());
    }

    /// A name that came along with a message; none may have.
    pub(crate) fn heard_of(&mut self, user: UserId, name: &str) {
        let is_new = !self.users.contains_key(&user) && self.users.len() < USERS_MAX;
        if is_new && !name.is_empty() {
            self.users.insert(user, name.to_owned());
        }
    }

    pub(crate) fn friends(&mut self, friends: &[Friend]) {
        let named = friends.iter().map(|f| (f.user, f.name.clone()));
        self.users.extend(named);
    }

    pub(crate) fn groups(&mut self, groups: &[Group]) {
        for group in groups {
            self.groups.insert(group.group, group.name.clone());
            let named = group.members.iter().map(|m| (m.user, m.name.clone()));
            self.users.extend(named);
        }
    }

    /// A user as shown, by the name that came along, or that is known.
    pub(crate) fn user(&self, user: UserId, name: &str) -> String {
        let known = self.users.get(&user).map(String::as_str);
        match (name, known) {
            ("", None) => format!("({user})"),
            ("", Some(name)) | (name, _) => format!("{name} ({user})"),
        }
    }

    pub(crate) fn group(&self, group: GroupId) -> String {
        match self.groups.get(&group) {
            Some(name) => format!("{name} ({group})"),
            None => format!("({group})"),
        }
    }
}

/// Names of so many users are remembered from messages.
const USERS_MAX: usize = 100_000;

/// Notes that may wait to be shown. More are dropped: they tell of sends that failed.
const NOTES_MAX: usize = 1000;

/// Shows events, and counts messages for who waits for them.
pub(crate) struct Feed {
    shared: Arc<Shared>,
    notes: Sender<String>,
    thread: JoinHandle<()>,
}

struct Shared {
    names: Mutex<Names>,
    /// Messages shown and not yet waited for.
    fresh: Mutex<u64>,
    arrived: Condvar,
    /// Whether a lost connection concerns somebody. At the menu the next one is there before it is needed.
    signed_in: AtomicBool,
    /// The user was told that there is no connection.
    told_away: AtomicBool,
}

impl Feed {
    /// Starts to show. It ends with the client.
    pub(crate) fn start(
        events: Receiver<Event>,
        mut announcer: Announcer,
        language: Language,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            names: Mutex::default(),
            fresh: Mutex::new(0),
            arrived: Condvar::new(),
            signed_in: AtomicBool::new(false),
            told_away: AtomicBool::new(false),
        });
        let (notes, noted) = crossbeam_channel::bounded::<String>(NOTES_MAX);
        let of_thread = Arc::clone(&shared);
        let show = move || {
            loop {
                crossbeam_channel::select! {
                    recv(events) -> event => match event {
                        Ok(event) => of_thread.show(&event, &mut announcer, language),
                        Err(_) => break,
                    },
                    recv(noted) -> note => match note {
                        Ok(note) => announcer.line(&note),
                        Err(_) => break,
                    },
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("feed".to_owned())
            .spawn(show)?;
        Ok(Self {
            shared,
            notes,
            thread,
        })
    }

    /// Shows what is left, once the client is closed. Not where a line editor may be waited for.
    pub(crate) fn finish(self) {
        // A panic was reported by the thread itself.
        let _ = self.thread.join();
    }

    /// A way to have lines shown from threads that must not wait.
    pub(crate) fn notes(&self) -> Sender<String> {
        self.notes.clone()
    }

    /// Somebody has signed in, or out.
    pub(crate) fn signed_in(&self, signed_in: bool) {
        self.shared.signed_in.store(signed_in, Ordering::Release);
    }

    pub(crate) fn names(&self) -> MutexGuard<'_, Names> {
        self.shared.names.lock()
    }

    /// Waits until `count` messages more than waited for before were shown. Whether they were.
    pub(crate) fn wait(&self, count: u64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut fresh = self.shared.fresh.lock();
        while *fresh < count {
            let waited = self.shared.arrived.wait_until(&mut fresh, deadline);
            if waited.timed_out() && *fresh < count {
                return false;
            }
        }
        *fresh -= count;
        true
    }
}

impl Shared {
    /// Whether the user is to hear of an event that is no message.
    fn concerns(&self, event: &Event) -> bool {
        match event {
            Event::Disconnected { .. } => {
                let concerns = self.signed_in.load(Ordering::Acquire);
                self.told_away.fetch_or(concerns, Ordering::AcqRel);
                concerns
            }
            Event::Unreachable { failures, .. } => {
                let concerns = *failures == phrases::FAILURES_TOLD;
                self.told_away.fetch_or(concerns, Ordering::AcqRel);
                concerns
            }
            Event::Connected => self.told_away.swap(false, Ordering::AcqRel),
            Event::Reconnected { .. } => {
                self.told_away.store(false, Ordering::Release);
                true
            }
            Event::SignedOut { .. } => {
                self.signed_in.store(false, Ordering::Release);
                true
            }
            _ => true,
        }
    }

    fn show(&self, event: &Event, announcer: &mut Announcer, language: Language) {
        match event {
            Event::Message(message) => {
                let mut names = self.names.lock();
                names.heard_of(message.sender, &message.sender_name);
                let line = phrases::message(message, &names, announcer.kind(), language);
                drop(names);
                announcer.line(&line);
                *self.fresh.lock() += 1;
                self.arrived.notify_all();
            }
            event if !self.concerns(event) => {}
            event => {
                if let Some(line) = phrases::event(event, language) {
                    announcer.line(&line);
                }
            }
        }
    }
}
