//! The part of a session that has to do with what was missed: fetching it, and acknowledging what was
//! written.

use std::sync::Arc;
use std::time::Duration;

use chat_proto::ids::code;
use chat_proto::messages::{FetchPendingRequest, FetchPendingResponse};
use nexus_net::Connection;

use super::{Active, Session, SessionMailbox, Shared, State, ToSession};
use crate::delivery::Fetched;
use crate::directory::SessionId;
use crate::push;
use crate::resync::Permit;

const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// How a session's fetching stands.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    /// The next page is fetched once what came before was written: a slow client sets the pace.
    when_written: bool,
    /// Failures in a row.
    failures: u32,
    /// Held while a resync is under way.
    permit: Option<Permit>,
}

impl Fetching {
    /// The next page is to be fetched when all output is written.
    pub(super) fn go_on_when_written(&mut self, conn: &mut Connection<'_>) {
        self.when_written = true;
        conn.notify_drained();
    }
}

impl Session {
    /// Something may have been missed.
    pub(super) fn resync(&mut self, session: SessionId, permit: Permit) {
        if let Some(active) = self.active(session) {
            active.delivery.resync();
            active.fetching.permit = Some(permit);
            self.fetch();
        }
    }

    /// A gap has had its time, or a failed fetch its pause.
    pub(super) fn fetch_timer(&mut self, conn: &mut Connection<'_>, session: SessionId) {
        let (shared, mailbox) = (Arc::clone(&self.shared), Arc::clone(&self.mailbox));
        if let Some(active) = self.active(session) {
            match active.delivery.start_overdue_fetch() {
                Some(request) => active.call_fetch(&shared, mailbox, &request),
                None => active.watch_gaps(conn, shared.options.gap_timeout),
            }
        }
    }

    /// Everything was handed to the kernel.
    pub(super) fn written(&mut self) {
        let (State::LoggedIn(active) | State::LoggingOut(active, _)) = &mut self.state else {
            return;
        };
        for (conversation, sequence) in std::mem::take(&mut active.unacknowledged) {
            self.shared.acks.add(active.user, conversation, sequence);
        }
        if std::mem::take(&mut active.fetching.when_written) {
            self.fetch();
        }
    }

    pub(super) fn fetched(
        &mut self,
        conn: &mut Connection<'_>,
        session: SessionId,
        answer: Option<FetchPendingResponse>,
    ) {
        let gap_timeout = self.shared.options.gap_timeout;
        let Some(active) = self.active(session) else {
            return;
        };
        let Some(answer) = answer else {
            return active.fetch_failed(conn);
        };
        let fetched = Fetched {
            arrivals: answer.pushes.iter().filter_map(push::arrival).collect(),
            marks: answer.marks,
            more: answer.more,
        };
        active.fetching.failures = 0;
        let mut arrivals = Vec::new();
        active.delivery.handle_fetched(fetched, &mut arrivals);
        active.show(conn, arrivals);
        if active.delivery.fetches_everything_now() {
            active.fetching.go_on_when_written(conn);
        } else {
            active.fetching.permit = None;
            active.watch_gaps(conn, gap_timeout);
        }
    }

    fn fetch(&mut self) {
        let (shared, mailbox) = (Arc::clone(&self.shared), Arc::clone(&self.mailbox));
        if let State::LoggedIn(active) | State::LoggingOut(active, _) = &mut self.state
            && let Some(request) = active.delivery.start_fetch()
        {
            active.call_fetch(&shared, mailbox, &request);
        }
    }
}

impl Active {
    /// Starts the timer, if something is missing.
    pub(super) fn watch_gaps(&mut self, conn: &mut Connection<'_>, timeout: Duration) {
        if self.delivery.arm_timer() {
            conn.set_timer(timeout, self.session.0);
        }
    }

    fn fetch_failed(&mut self, conn: &mut Connection<'_>) {
        self.delivery.handle_fetch_failed();
        // Another session may have better luck.
        self.fetching.permit = None;
        let backoff = FIRST_BACKOFF.saturating_mul(1 << self.fetching.failures.min(10));
        self.fetching.failures = self.fetching.failures.saturating_add(1);
        self.watch_gaps(conn, backoff.min(BACKOFF_MAX));
    }

    fn call_fetch(&self, shared: &Shared, mailbox: SessionMailbox, request: &FetchPendingRequest) {
        let session = self.session;
        let call = shared
            .services
            .user
            .fetch_pending_with(request, self.options.clone());
        call.on_complete(move |result| {
            let answer = match result {
                Ok(reply) if reply.message.error_code == code::SUCCESS => Some(reply.message),
                Ok(reply) => {
                    let code = reply.message.error_code;
                    log::debug!(
                        "session {}: fetching what is pending: code {code}",
                        session.0
                    );
                    None
                }
                Err(error) => {
                    log::debug!("session {}: fetching what is pending: {error}", session.0);
                    None
                }
            };
            // Refused if the connection has ended: it stays pending.
            let _ = mailbox.send(ToSession::Fetched { session, answer });
        });
    }
}
