//! Requests without an answer: given their turn, written, completed.

use std::time::Instant;

use chat_proto::ids::code;
use chat_proto::messages as proto;
use prost::Message as _;

use super::pages::Pages;
use super::session::Session;
use super::wire::{Effect, Request};
use super::{Call, Completion, Origin, Output, Stage, State};
use crate::model::Answer;
use crate::{ChatError, Event};

impl State {
    pub(super) fn call(&mut self, now: Instant, mut request: Request, origin: Origin) -> u64 {
        if let Request::Resume { attempt, .. } = &mut request {
            self.attempts += 1;
            *attempt = self.attempts;
        }
        let timeout = match request {
            Request::Send { .. } => self.options.send_timeout,
            _ => self.options.request_timeout,
        };
        let id = self.next_id;
        self.next_id += 1;
        let deadline = now + timeout;
        self.deadlines.insert((deadline, id));
        self.unsent.push_back(id);
        self.calls.insert(
            id,
            Call {
                id,
                request,
                origin,
                deadline,
                stage: Stage::Unsent,
            },
        );
        id
    }

    pub(super) fn take(&mut self, id: u64) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        self.deadlines.remove(&(call.deadline, id));
        Some(call)
    }

    /// Writes the calls that may go out. They go in the order in which they were made.
    pub(super) fn flush(&mut self, now: Instant) {
        while let Some(&id) = self.unsent.front() {
            let Some(call) = self.calls.get(&id) else {
                self.unsent.pop_front();
                continue;
            };
            if self.may_send(&call.request) {
                let lane = call.request.lane();
                self.unsent.pop_front();
                self.send_in_turn(now, id, lane);
            } else if let Some(code) = self.refusal(&call.request) {
                self.unsent.pop_front();
                if let Some(call) = self.take(id) {
                    let error = ChatError::Refused {
                        operation: call.request.operation(),
                        code,
                        text: String::new(),
                        reason: None,
                    };
                    self.finish(now, call, Err(error));
                }
            } else {
                break;
            }
        }
    }

    pub(super) fn send(&mut self, now: Instant, id: u64) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        call.stage = Stage::Sent;
        let (message_id, _) = call.request.message_ids();
        let me = self.me.as_ref();
        let user = me.map(|me| me.user);
        let content = call
            .request
            .encode(user, me.map_or("", |me| me.name.as_str()), self.run);
        match call.request {
            Request::Login { .. } | Request::Resume { .. } if self.session == Session::Out => {
                self.session = Session::SigningIn;
            }
            Request::Logout => {
                self.session = Session::Leaving;
                self.acknowledge(now);
            }
            _ => {}
        }
        self.write(now, message_id, content, id);
    }

    /// A call has its result, or will get none.
    pub(super) fn finish(
        &mut self,
        now: Instant,
        call: Call,
        result: Result<(Answer, Effect), ChatError>,
    ) {
        let call = match call.request.lane() {
            Some(lane) => match self.leave_lane(now, call, lane, &result) {
                Some(call) => call,
                None => return,
            },
            None => call,
        };
        if call.request.is_login() {
            self.login_ended(now, &call, &result);
        }
        if matches!(call.request, Request::Logout) {
            self.logout_ended(&result);
        }
        if matches!((&call.origin, &result), (Origin::Resumption, Ok(_))) {
            let resent = self
                .calls
                .values()
                .filter(|call| call.stage == Stage::Resend);
            self.events.push_back(Event::Reconnected {
                resent: resent.count(),
            });
        }
        let result = result.map(|(answer, effect)| {
            let more = matches!(effect, Effect::More);
            self.apply(now, effect);
            (answer, more)
        });
        match call.origin {
            Origin::Application(completion) => match result {
                Ok((answer, more)) => self.go_on_with(now, Pages::new(completion, answer, more)),
                Err(error) => self.complete(completion, Err(error)),
            },
            Origin::Page(pages) => self.page_ended(now, &call.request, *pages, result),
            Origin::Resumption => {}
            Origin::Fill(conversation, range) => {
                let result = result.map(|(answer, _)| answer);
                self.filled(now, conversation, range, result);
            }
        }
    }

    /// A call ends without an answer.
    pub(super) fn give_up(&mut self, origin: Origin, result: Result<Answer, ChatError>) {
        match origin {
            Origin::Application(completion) => self.complete(completion, result),
            Origin::Page(pages) => {
                let error = result.err().unwrap_or(ChatError::Disconnected);
                self.end_pages(*pages, error);
            }
            Origin::Resumption | Origin::Fill(..) => {}
        }
    }

    pub(super) fn complete(&mut self, completion: Completion, result: Result<Answer, ChatError>) {
        self.outputs.push_back(Output::Complete(completion, result));
    }

    pub(super) fn handle_error(&mut self, now: Instant, frame: proto::ResponseFrame) {
        let notice = proto::ErrorNotice::decode(frame.content).unwrap_or_default();
        match self.take(frame.request_id) {
            Some(call) => {
                let error = ChatError::Refused {
                    operation: call.request.operation(),
                    code: notice.error_code,
                    text: notice.error_text,
                    reason: None,
                };
                self.finish(now, call, Err(error));
            }
            None if notice.error_code == code::NOT_LOGGED_IN && self.me.is_none() => {
                self.turned_away();
            }
            None => self.events.push_back(Event::Problem {
                code: notice.error_code,
                text: notice.error_text,
            }),
        }
    }
}
