//! The lists that somebody watches: providers of a service, names of services.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::refusal::Trouble;
use super::session::{OperationError, Session};
use crate::registry::Provider;
use crate::registry::observer::Observer;

/// The names of the services, when somebody watches them.
pub(super) struct WatchedNames {
    pub(super) observers: Vec<(u64, Arc<Observer<String>>)>,
    /// The names that were read last. Their nodes are persistent: no loss of a session takes any away.
    pub(super) known: Option<Vec<String>>,
    /// When to read them next.
    pub(super) due: Instant,
    trouble: Trouble,
}

impl WatchedNames {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            observers: Vec::new(),
            known: None,
            due: now,
            trouble: Trouble::default(),
        }
    }

    /// Reads the names, leaves a watch for their next change, and tells. Refused, it says so and tries again
    /// with growing pauses; the known names stay.
    ///
    /// # Errors
    /// When the session is lost.
    pub(super) fn refresh(
        &mut self,
        session: &Session,
        path: &str,
        interval: Duration,
    ) -> Result<(), OperationError> {
        let now = Instant::now();
        self.due = now + interval;
        let names = match names_below(session, path) {
            Ok(names) => names,
            Err(OperationError::Refused(refusal)) => {
                let what = format!("the services are not known: {refusal}");
                self.due = self.trouble.note(&what, now);
                return Ok(());
            }
            Err(lost) => return Err(lost),
        };
        if self.trouble.is_over() {
            log::info!("{path} can be read again");
        }
        for (_, observer) in &self.observers {
            observer.note_names(names.iter().cloned());
        }
        self.known = Some(names);
        for (_, observer) in &self.observers {
            observer.tell();
        }
        Ok(())
    }
}

/// The names below a node, none if it is not there. Leaves a watch in either case.
fn names_below(session: &Session, path: &str) -> Result<Vec<String>, OperationError> {
    let mut names = session.children(path)?;
    // A node that is not there is watched by asking whether it is; it may appear in between.
    if names.is_none() && session.exists(path)?.is_some() {
        names = session.children(path)?;
    }
    Ok(names.unwrap_or_default())
}

/// The providers of a service, when somebody watches them.
pub(super) struct Watched {
    pub(super) observers: Vec<(u64, Arc<Observer<Provider>>)>,
    /// The last list that was believed.
    pub(super) known: Option<Vec<Provider>>,
    /// Whether the present session has shown `known`; otherwise it is from before a reconnect.
    pub(super) confirmed: bool,
    /// When to read it next.
    pub(super) due: Instant,
    trouble: Trouble,
    /// Nodes that hold no provider or cannot be read, and were complained about.
    complained: BTreeSet<String>,
}

impl Watched {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            observers: Vec::new(),
            known: None,
            confirmed: false,
            due: now,
            trouble: Trouble::default(),
            complained: BTreeSet::new(),
        }
    }

    /// Reads the list, leaves a watch for its next change, and tells what is new. Until `doubtful_until`
    /// a list that has become empty over a reconnect is not believed. Refused, it says so and tries again with
    /// growing pauses; the known providers stay.
    ///
    /// # Errors
    /// When the session is lost.
    pub(super) fn refresh(
        &mut self,
        session: &Session,
        path: &str,
        interval: Duration,
        doubtful_until: Instant,
    ) -> Result<(), OperationError> {
        let now = Instant::now();
        self.due = now + interval;
        let providers = match self.fetch(session, path) {
            Ok(providers) => providers,
            Err(OperationError::Refused(refusal)) => {
                let what = format!("the providers in {path} are not known: {refusal}");
                self.due = self.trouble.note(&what, now);
                return Ok(());
            }
            Err(lost) => return Err(lost),
        };
        if self.trouble.is_over() {
            log::info!("{path} can be read again");
        }
        if providers.is_empty() && self.remembers_some() && now < doubtful_until {
            log::info!("{path} is empty right after a reconnect: not believed yet");
            self.due = self.due.min(doubtful_until);
            return Ok(());
        }
        for (_, observer) in &self.observers {
            observer.note(providers.iter().cloned());
        }
        self.known = Some(providers);
        self.confirmed = true;
        for (_, observer) in &self.observers {
            observer.tell();
        }
        Ok(())
    }

    /// Whether providers are known, but only from an earlier session.
    fn remembers_some(&self) -> bool {
        !self.confirmed && self.known.as_ref().is_some_and(|known| !known.is_empty())
    }

    fn fetch(&mut self, session: &Session, path: &str) -> Result<Vec<Provider>, OperationError> {
        let names = names_below(session, path)?;
        self.complained.retain(|name| names.contains(name));
        let mut providers = Vec::with_capacity(names.len());
        for name in names {
            let node = format!("{path}/{name}");
            let why = match session.content(&node) {
                Ok(Some(content)) => match Provider::from_node(&content) {
                    Ok(provider) => {
                        providers.push(provider);
                        continue;
                    }
                    Err(error) => error.to_string(),
                },
                // It has gone since the names were read.
                Ok(None) => continue,
                // One that only its owner may read takes nothing from the others.
                Err(OperationError::Refused(refusal)) => refusal.to_string(),
                Err(lost) => return Err(lost),
            };
            if self.complained.insert(name) {
                log::warn!("{node} is skipped: {why}");
            }
        }
        Ok(providers)
    }
}
