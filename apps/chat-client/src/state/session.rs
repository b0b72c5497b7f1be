//! Who is signed in: signing in, going on after a lost link, and signing out.

use std::time::{Duration, Instant};

use chat_proto::conversation::UserId;
use chat_proto::ids::code;

use super::wire::{Effect, Request};
use super::{Call, Link, Origin, Output, Stage, State, signed_out};
use crate::model::Answer;
use crate::{ChatError, Event, SessionToken};

/// A session that is displaced for a second time within so long is shared with another program.
const DISPUTE_TIME: Duration = Duration::from_secs(60);

/// Where the present connection stands. See the picture in [`super`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    Out,
    SigningIn,
    In,
    Leaving,
}

/// Who is signed in, and what it takes to resume the session.
pub(super) struct Me {
    pub(super) user: UserId,
    pub(super) name: String,
    pub(super) token: Option<SessionToken>,
}

impl State {
    /// Signed in, yet not on the present connection.
    pub(super) fn is_between_sessions(&self) -> bool {
        self.me.is_some() && matches!(self.session, Session::Out | Session::SigningIn)
    }

    /// The code with which the server would refuse a request that may not be sent; `None` while it
    /// may become possible.
    pub(super) fn refusal(&self, request: &Request) -> Option<i32> {
        if !matches!(self.link, Link::Up { .. }) {
            return None;
        }
        let nobody_expected = self.session == Session::Out && self.me.is_none();
        match request {
            request if request.is_login() && self.session == Session::In => {
                Some(code::ALREADY_LOGGED_IN)
            }
            request if request.needs_login() && nobody_expected => Some(code::NOT_LOGGED_IN),
            _ => None,
        }
    }

    pub(super) fn may_send(&self, request: &Request) -> bool {
        if !matches!(self.link, Link::Up { ending: None, .. }) {
            return false;
        }
        match (request, self.session) {
            (Request::Register { .. }, _) => true,
            (request, session) if request.is_login() => {
                session == Session::Out && self.me.is_none()
            }
            // After what was asked for before it.
            (Request::Logout, session) => session == Session::In && self.lanes.is_empty(),
            (_, session) => session == Session::In,
        }
    }

    pub(super) fn resume(&mut self, now: Instant) {
        self.resume_at = None;
        let Some(me) = &self.me else {
            return;
        };
        if !matches!(self.link, Link::Up { .. }) || self.session != Session::Out {
            return;
        }
        let Some(token) = me.token.clone() else {
            return self.sign_out("the server cannot resume sessions".to_owned());
        };
        let received = self.received();
        let request = Request::Resume {
            token,
            received,
            attempt: 0,
        };
        let id = self.call(now, request, Origin::Resumption);
        // Ahead of what waits for it.
        self.unsent.pop_back();
        self.send(now, id);
    }

    /// A login was answered, or was not.
    pub(super) fn login_ended(
        &mut self,
        now: Instant,
        call: &Call,
        result: &Result<(Answer, Effect), ChatError>,
    ) {
        if call.stage == Stage::Unsent || self.session != Session::SigningIn {
            return;
        }
        let again = matches!(call.origin, Origin::Resumption);
        match result {
            Ok((Answer::Login(snapshot), _)) => {
                self.session = Session::In;
                self.resume_failures = 0;
                self.me = Some(Me {
                    user: snapshot.user,
                    name: snapshot.name.clone(),
                    token: snapshot.token.clone(),
                });
            }
            Err(ChatError::Refused { code, .. }) => {
                self.session = Session::Out;
                if again && *code != code::SESSION_ENDED {
                    self.resume_failures = self.resume_failures.saturating_add(1);
                    // Who connects at which moment is random already.
                    let delay = self.options.backoff.delay(self.resume_failures, 1.0);
                    self.resume_at = Some(now + delay);
                } else if again && let Err(error) = result {
                    self.sign_out(error.to_string());
                }
            }
            // Whether the server has signed the user in is unknown. With the connection that ends.
            _ => self.reset("no good answer to the login"),
        }
    }

    /// A logout was answered, or was not.
    pub(super) fn logout_ended(&mut self, result: &Result<(Answer, Effect), ChatError>) {
        if self.session != Session::Leaving {
            return;
        }
        match result {
            Ok(_) => {}
            Err(ChatError::Refused { .. }) => self.session = Session::In,
            // A connection that closes logs its user out.
            Err(_) => self.reset("no good answer to the logout"),
        }
    }

    /// The session went on on another connection. As a rule this client has made that itself, and given it up since: so
    /// it comes back. But of two programs that share a token one has to give way.
    pub(super) fn displaced(&mut self, now: Instant, reason: String) {
        let is_disputed = self
            .displaced_at
            .is_some_and(|last| now < last + DISPUTE_TIME);
        self.displaced_at = Some(now);
        match is_disputed || self.session != Session::In {
            true => self.ended_by_server(reason),
            false => self.reset("the session went on on another connection"),
        }
    }

    /// The server has ended the session, and closes.
    pub(super) fn ended_by_server(&mut self, reason: String) {
        // A new login must not have to wait for that.
        self.outputs.push_back(Output::Reset);
        self.expect_end();
        self.sign_out(reason);
    }

    /// The server signed the user out.
    pub(super) fn sign_out(&mut self, reason: String) {
        self.end_session(&signed_out(reason.clone()));
        self.events.push_back(Event::SignedOut { reason });
    }

    /// The server ends a connection on which nobody has signed in for long. That is no news for the application: the
    /// next connection is there before somebody signs in, as a rule. The server has read nothing that it has not answered.
    pub(super) fn turned_away(&mut self) {
        for call in self.calls.values_mut() {
            call.stage = Stage::Unsent;
        }
        self.session = Session::Out;
        // The server closes as well; a login must not have to wait for that.
        self.outputs.push_back(Output::Reset);
        self.expect_end();
    }

    /// Forgets who was signed in and fails, with `error`, what only that user could ask.
    pub(super) fn end_session(&mut self, error: &ChatError) {
        if self.session == Session::SigningIn {
            // Its answer must not sign anybody in.
            self.reset("signed out");
        }
        self.session = Session::Out;
        self.me = None;
        self.resume_at = None;
        self.stop_sync();
        self.clear_lanes();
        self.end_waiting_pages(error);
        self.retain_calls(|call| {
            let stays = match &call.request {
                request if request.is_login() => call.stage == Stage::Unsent,
                request => !request.needs_login(),
            };
            if stays {
                None
            } else {
                Some(Err(error.clone()))
            }
        });
    }

    /// The link is gone. What was under way fails, save what can be done again without harm.
    pub(super) fn lose_session(&mut self) {
        if self.session == Session::Leaving {
            // A connection that closes logs its user out: that is what was asked for.
            self.me = None;
        }
        self.session = Session::Out;
        self.resume_at = None;
        self.stop_sync();
        self.clear_lanes();
        self.end_waiting_pages(&ChatError::Disconnected);
        let lasts = self.me.is_some();
        self.retain_calls(|call| match (&call.request, call.stage) {
            (Request::Logout, Stage::Sent) => Some(Ok(Answer::Done)),
            (Request::Send { .. }, _) if lasts => None,
            (_, Stage::Unsent) if matches!(call.origin, Origin::Application(_)) => None,
            _ => Some(Err(ChatError::Disconnected)),
        });
        // The order of the ids is the order in which they were made.
        self.unsent = self.calls.keys().copied().collect();
        for call in self.calls.values_mut() {
            call.stage = match call.stage {
                Stage::Sent | Stage::Resend => Stage::Resend,
                Stage::Unsent => Stage::Unsent,
            };
        }
    }

    /// Completes each call for which `verdict` has a result.
    fn retain_calls(&mut self, verdict: impl Fn(&Call) -> Option<Result<Answer, ChatError>>) {
        for (id, call) in std::mem::take(&mut self.calls) {
            match verdict(&call) {
                None => {
                    self.calls.insert(id, call);
                }
                Some(result) => {
                    self.deadlines.remove(&(call.deadline, id));
                    self.give_up(call.origin, result);
                }
            }
        }
    }
}
