//! The part of a session that has to do with what was missed: fetching it, and acknowledging what was
//! received or written.

use std::sync::Arc;
use std::time::Duration;

use chat_proto::ids::code;
use chat_proto::messages::{
    ConversationAck, DeliveryAck, FetchPendingRequest, FetchPendingResponse, RequestFrame,
};
use nexus_net::Connection;
use prost::Message as _;

use super::{
    Active, NOT_LOGGED_IN, Session, SessionMailbox, Shared, SignOut, State, Timer, ToSession,
    UNREADABLE, notice,
};
use crate::delivery::Fetched;
use crate::directory::SessionId;
use crate::resync::Permit;
use crate::{push, requests};

const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// How a session's fetching stands.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    /// The next page is fetched once what came before was written: a slow client sets the pace.
    when_written: bool,
    /// Failures in a row.
    failures: u32,
    /// Held while a resync's call is under way.
    permit: Option<Permit>,
    /// The next resync is set for a time.
    resync_is_timed: bool,
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
    pub(super) fn resync(&mut self, conn: &mut Connection<'_>, session: SessionId, permit: Permit) {
        let interval = self.shared.options.resync_interval;
        let Some(active) = self.active(session) else {
            return;
        };
        active.resync_after(conn, interval);
        active.delivery.resync();
        // A client that is at a page already gets the rest when it has taken that.
        if !active.fetching.when_written {
            active.fetching.permit = Some(permit);
            self.fetch();
        }
    }

    /// It is time to look for what may have been missed: as soon as it is this session's turn.
    pub(super) fn resync_timer(&mut self, session: SessionId) {
        if let Some(active) = self.active(session) {
            active.fetching.resync_is_timed = false;
            let mailbox = Arc::clone(&self.mailbox);
            self.shared.resync.add(session, mailbox);
        }
    }

    pub(super) fn delivery_ack(&mut self, conn: &mut Connection<'_>, frame: RequestFrame) {
        if !matches!(self.state, State::LoggedIn(_)) {
            return notice(conn, frame.request_id, NOT_LOGGED_IN.0, NOT_LOGGED_IN.1);
        }
        match DeliveryAck::decode(frame.content) {
            Ok(ack) => self.acknowledge(&ack.acks),
            Err(_) => notice(conn, frame.request_id, UNREADABLE.0, UNREADABLE.1),
        }
    }

    /// The client has received this.
    pub(super) fn acknowledge(&self, acks: &[ConversationAck]) {
        let State::LoggedIn(active) = &self.state else {
            return;
        };
        for ack in acks {
            let named = ack.conversation.as_ref();
            // Nobody can have received what was not shown to anybody.
            if let Some(conversation) = named.and_then(|c| requests::named(active.user, c))
                && let Some(up_to) = active.delivery.up_to(conversation)
                && ack.sequence > 0
            {
                let sequence = ack.sequence.min(up_to);
                self.shared.acks.add(active.user, conversation, sequence);
            }
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
        // Further pages wait for the client, for whom nobody else shall wait.
        active.fetching.permit = None;
        let mut arrivals = Vec::new();
        active.delivery.handle_fetched(fetched, &mut arrivals);
        active.show(conn, arrivals);
        if active.delivery.fetches_everything_now() {
            active.fetching.go_on_when_written(conn);
        } else {
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
            conn.set_timer(timeout, Timer::Gap(self.session).token());
        }
    }

    /// Starts the timer of the next resync, unless it runs.
    pub(super) fn resync_after(&mut self, conn: &mut Connection<'_>, delay: Duration) {
        if !std::mem::replace(&mut self.fetching.resync_is_timed, true) {
            conn.set_timer(delay, Timer::Resync(self.session).token());
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
                Ok(reply) if reply.message.error_code == code::NOT_LOGGED_IN => {
                    let reason = SignOut::NewerLogin;
                    // Refused if the connection has ended.
                    let _ = mailbox.send(ToSession::SignOut { session, reason });
                    return;
                }
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

/// When a session's first resync is due: spread over the second half of the interval, for sessions that
/// began together.
pub(super) fn first_resync(session: SessionId, interval: Duration) -> Duration {
    // The golden ratio's multiples, modulo one, are far from each other.
    let [.., spread] = session.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    interval / 2 + interval / 512 * u32::from(spread)
}
