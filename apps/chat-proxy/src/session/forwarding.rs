//! The part of a session that forwards requests: at once, or in the order of their conversation.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use chat_proto::conversation::ConversationId;
use chat_proto::ids::code;
use chat_proto::messages::{RegisterRequest, RequestFrame};
use nexus_net::Connection;
use nexus_rpc::Backup;
use prost::Message as _;

use super::state::QueuedCall;
use super::{
    Active, Answered, NOT_LOGGED_IN, NOT_YOURSELF, Own, Session, SessionMailbox, Shared, State,
    TOO_LATE, TOO_MANY, ToSession, UNREADABLE, refuse,
};
use crate::requests::{Request, UserRequest, answer_frame};
use crate::services::{BACKUP_AFTER, Failure};

impl Session {
    pub(super) fn register(&mut self, conn: &mut Connection<'_>, frame: RequestFrame) {
        let request_id = frame.request_id;
        let refuse = |conn: &mut Connection<'_>, (code, text)| {
            refuse::<RegisterRequest>(conn, request_id, code, text);
        };
        if let Err(refusal) = self.take_login() {
            return refuse(conn, refusal);
        }
        let Ok(request) = RegisterRequest::decode(frame.content) else {
            return refuse(conn, UNREADABLE);
        };
        let services = Arc::clone(&self.shared.services);
        let options = services.anonymous(self.guard.address());
        let Some(options) = services.in_time(options, self.asked) else {
            return refuse(conn, (Failure::TOO_LATE.code, Failure::TOO_LATE.text));
        };
        self.in_flight += 1;
        let mailbox = Arc::clone(&self.mailbox);
        let called = Instant::now();
        let call = request.call(&services, options);
        call.on_complete(move |result| {
            let answer = result.map(|reply| reply.message).unwrap_or_else(|error| {
                let failure = services.failure(&error, RegisterRequest::NAME, None, called);
                let failure = failure.of_change();
                RegisterRequest::refusal(failure.code, failure.text)
            });
            // Refused if the connection has ended: nobody waits for the answer.
            let _ = mailbox.send(ToSession::Answered(Answered {
                frame: answer_frame(RegisterRequest::ANSWER_ID, request_id, &answer),
                session: None,
                conversation: None,
                own: None,
                displaced: false,
                is_large: false,
            }));
        });
    }

    /// A request of a user: checks it and calls the service, or has it wait for its turn.
    pub(super) fn forward<R: UserRequest>(
        &mut self,
        conn: &mut Connection<'_>,
        frame: RequestFrame,
    ) {
        let request_id = frame.request_id;
        let takes_it = self.takes_one_more();
        let State::LoggedIn(active) = &mut self.state else {
            return refuse::<R>(conn, request_id, NOT_LOGGED_IN.0, NOT_LOGGED_IN.1);
        };
        let refused = match R::decode(frame.content) {
            Err(_) => UNREADABLE,
            Ok(request) if request.user_id() != active.user.get() => NOT_YOURSELF,
            Ok(_) if !takes_it => TOO_MANY,
            // Its client may have come back elsewhere meanwhile, and made it again.
            Ok(request) if self.stood_still && !R::READS && !request.is_repeatable() => TOO_LATE,
            Ok(request) => {
                self.in_flight += 1;
                let conversation = request.conversation(active.user);
                let (shared, mailbox) = (&self.shared, &self.mailbox);
                let place = Place {
                    request_id,
                    conversation,
                    asked: self.asked,
                };
                let call = active.call_of(shared, mailbox, request, place);
                let room_at = shared.options.output_low_bytes;
                active.call_in_turn(conn, call, conversation, room_at);
                return;
            }
        };
        refuse::<R>(conn, request_id, refused.0, refused.1);
    }
}

/// Where a request stands, and what is to be known of it for its answer.
struct Place {
    request_id: u64,
    conversation: Option<ConversationId>,
    asked: Instant,
}

impl Active {
    /// Calls the service, after the earlier requests for the same conversation.
    fn call_in_turn(
        &mut self,
        conn: &mut Connection<'_>,
        call: QueuedCall,
        conversation: Option<ConversationId>,
        room_at: usize,
    ) {
        if let Some(conversation) = conversation {
            if let Some(queue) = self.queues.get_mut(&conversation) {
                return queue.push_back(call);
            }
            self.queues.insert(conversation, VecDeque::new());
        }
        self.make(conn, call, room_at);
    }

    /// The call that a request becomes.
    fn call_of<R: UserRequest>(
        &self,
        shared: &Arc<Shared>,
        mailbox: &SessionMailbox,
        request: R,
        place: Place,
    ) -> QueuedCall {
        let Place {
            request_id,
            conversation,
            asked,
        } = place;
        let (me, session, mut options) = (self.user, self.session, self.options.clone());
        let is_repeatable = request.is_repeatable();
        if is_repeatable {
            options.idempotent = Some(true);
            options.backup = Backup::After(BACKUP_AFTER);
        }
        let (services, mailbox) = (Arc::clone(&shared.services), Arc::clone(mailbox));
        let call = move || {
            let answered = move |answer: R::Answer| {
                let sequence = R::sequence(&answer);
                let own = conversation
                    .or_else(|| R::opened(me, &answer))
                    .filter(|_| sequence > 0)
                    .map(|conversation| Own {
                        conversation,
                        sequence,
                        message: R::MESSAGE,
                    });
                // Refused if the connection has ended: nobody waits for the answer.
                let _ = mailbox.send(ToSession::Answered(Answered {
                    frame: answer_frame(R::ANSWER_ID, request_id, &answer),
                    session: Some(session),
                    conversation,
                    own,
                    displaced: R::error_code(&answer) == code::NOT_LOGGED_IN,
                    is_large: R::IS_LARGE,
                }));
            };
            // What changes nothing is carried out for as long as its connection is there.
            let asked = match R::READS {
                true => Instant::now(),
                false => asked,
            };
            let Some(options) = services.in_time(options, asked) else {
                let late = Failure::TOO_LATE;
                return answered(R::refusal(late.code, late.text));
            };
            let called = Instant::now();
            request.call(&services, options).on_complete(move |result| {
                answered(result.map(|reply| reply.message).unwrap_or_else(|error| {
                    let failure = services.failure(&error, R::NAME, Some(session), called);
                    let failure = match R::READS || is_repeatable {
                        true => failure,
                        false => failure.of_change(),
                    };
                    R::refusal(failure.code, failure.text)
                }));
            });
        };
        QueuedCall {
            is_large: R::IS_LARGE,
            call: Box::new(call),
        }
    }

    /// One request of the conversation was answered: the next one's turn.
    pub(super) fn call_next(
        &mut self,
        conn: &mut Connection<'_>,
        conversation: ConversationId,
        room_at: usize,
    ) {
        match self
            .queues
            .get_mut(&conversation)
            .and_then(VecDeque::pop_front)
        {
            Some(call) => self.make(conn, call, room_at),
            None => {
                self.queues.remove(&conversation);
            }
        }
    }
}
