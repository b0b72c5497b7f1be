//! The client as applications use it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chat_proto::conversation::{GroupId, UserId};
use chat_proto::frame::RESPONSE_FRAME_BYTES_MIN;
use crossbeam_channel::{Receiver, TrySendError};
use nexus_net::{Error, LoopGroup, LoopHandle, TcpClient};

use crate::driver::{Handed, Shared, Sink};
use crate::model::FromAnswer;
use crate::state::{Password, Request};
use crate::{
    ChatError, ClientOptions, Conversation, Event, Friend, Group, HistoryPage, LoginSnapshot,
    Pending, Sent, SessionToken, Status, Who, time,
};

const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer times in the options would only overflow somewhere.
const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// One user's connection to the chat.
///
/// Every method may be called from any thread and returns at once; what it returns is
/// [waited](Pending::wait) for, or told of by a [callback](Pending::on_complete). Requests go out in
/// the order of the calls, before the connection is made and between two connections they wait,
/// up to [`ClientOptions::request_timeout`].
///
/// Dropping it closes the connection, which signs the user out, and fails what has no answer.
#[derive(Debug)]
pub struct ChatClient {
    shared: Arc<Shared>,
    tcp: Option<TcpClient>,
    /// The client's own loop, if it has one. Dropped last.
    loops: Option<LoopGroup>,
}

impl ChatClient {
    /// A client on a loop thread of its own. Events come through the receiver.
    ///
    /// The receiver holds [`ClientOptions::events_max`] events. When it is full the connection is
    /// not read until some were taken; that delays answers, too. When it is dropped, messages are no
    /// longer acknowledged, and wait for the next login.
    ///
    /// # Errors
    /// [`Error::Options`], [`Error::Loop`], [`Error::Thread`]. A server that cannot be reached is no
    /// error: [`Event::Unreachable`] tells of each attempt.
    pub fn connect(
        address: SocketAddr,
        options: ClientOptions,
    ) -> Result<(Self, Receiver<Event>), Error> {
        let loops = LoopGroup::start("chat-client", 1)?;
        let (mut client, events) = Self::connect_on(loops.next(), address, options)?;
        client.loops = Some(loops);
        Ok((client, events))
    }

    /// As [`connect`](Self::connect), on a loop that others may use as well: thousands of clients can
    /// share one.
    ///
    /// # Errors
    /// [`Error::Options`], [`Error::LoopGone`].
    pub fn connect_on(
        handle: &LoopHandle,
        address: SocketAddr,
        options: ClientOptions,
    ) -> Result<(Self, Receiver<Event>), Error> {
        let (sender, receiver) = crossbeam_channel::bounded(options.events_max);
        let sink = move |event| match sender.try_send(event) {
            Ok(()) => Handed::Yes,
            Err(TrySendError::Full(event)) => Handed::Full(event),
            Err(TrySendError::Disconnected(_)) => Handed::Gone,
        };
        let client = Self::start(handle, address, options, Box::new(sink))?;
        Ok((client, receiver))
    }

    /// As [`connect_on`](Self::connect_on), with a callback for events. It is called on the loop's
    /// thread and must not block. A message counts as received once it returns.
    ///
    /// # Errors
    /// [`Error::Options`], [`Error::LoopGone`].
    pub fn connect_with(
        handle: &LoopHandle,
        address: SocketAddr,
        options: ClientOptions,
        mut on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, Error> {
        let sink = move |event| {
            on_event(event);
            Handed::Yes
        };
        Self::start(handle, address, options, Box::new(sink))
    }

    /// Makes an account. The answer is the id to sign in with.
    ///
    /// # Errors
    /// As for every request here, when waited for: [`ChatError::Refused`] with the server's code,
    /// [`ChatError::Timeout`], [`ChatError::Disconnected`], [`ChatError::SignedOut`],
    /// [`ChatError::Busy`], [`ChatError::Protocol`].
    pub fn register(&self, name: &str, password: &str) -> Pending<UserId> {
        self.request(Request::Register {
            name: name.to_owned(),
            password: Password(password.to_owned()),
        })
    }

    /// Signs in, by the id or by the name. From then on the client resumes the session by itself whenever the connection was lost,
    /// until [`logout`](Self::logout), [`Event::SignedOut`] or [`close`](Self::close).
    pub fn login(&self, user: impl Into<Who>, password: &str) -> Pending<LoginSnapshot> {
        self.request(Request::Login {
            user: user.into(),
            password: Password(password.to_owned()),
        })
    }

    /// Goes on with a session that another client, of an earlier process as a rule, began
    /// ([`LoginSnapshot::token`]). If that one is still there it is signed out. Otherwise as
    /// [`login`](Self::login).
    ///
    /// # Errors
    /// [`ChatError::Refused`] with [`SESSION_ENDED`](chat_proto::ids::code::SESSION_ENDED) when only the
    /// password helps, besides those of all requests.
    pub fn resume(&self, token: &SessionToken) -> Pending<LoginSnapshot> {
        self.request(Request::Resume {
            token: token.clone(),
            received: Vec::new(),
            attempt: 0,
        })
    }

    /// Signs out; the connection stays. The session's token is no longer valid then; when there is no
    /// connection at the moment it is only forgotten here.
    pub fn logout(&self) -> Pending<()> {
        self.request(Request::Logout)
    }

    /// Who is signed in, also while the session is being resumed after a lost connection.
    pub fn user(&self) -> Option<UserId> {
        self.shared.user()
    }

    /// How the client stands with the server at this moment.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Sends a text to a friend. See [`send`](Self::send).
    pub fn send_to_friend(&self, friend: UserId, text: &str) -> Pending<Sent> {
        self.send(Conversation::Friend(friend), text)
    }

    /// Sends a text to a group. See [`send`](Self::send).
    pub fn send_to_group(&self, group: GroupId, text: &str) -> Pending<Sent> {
        self.send(Conversation::Group(group), text)
    }

    /// Sends a text. When the connection is lost before the answer, or the server cannot take it at the
    /// moment, it is sent again, up to [`ClientOptions::send_timeout`]; the server stores it once. Texts
    /// to one conversation are stored in the order of the calls: the next is sent when the one before
    /// was answered.
    pub fn send(&self, to: Conversation, text: &str) -> Pending<Sent> {
        let client_message_id = rand::random_range(1..=u64::MAX);
        self.send_with_id(to, text, client_message_id, &time::now_text())
    }

    /// Sends a text under an id of the caller's choice: unique among the user's messages, and not 0.
    /// A message that failed in a way that leaves open whether it was stored can be sent again
    /// under its id, with the same text and the same `time` ([`time::now_text`] of the first send), without
    /// appearing twice. Another message under a used id is refused.
    pub fn send_with_id(
        &self,
        to: Conversation,
        text: &str,
        client_message_id: u64,
        time: &str,
    ) -> Pending<Sent> {
        self.request(Request::Send {
            to,
            text: text.to_owned(),
            client_message_id,
            time: time.to_owned(),
        })
    }

    /// Makes a user a friend, whom the id or the name names. The answer has both.
    pub fn add_friend(&self, user: impl Into<Who>) -> Pending<Friend> {
        self.request(Request::AddFriend(user.into()))
    }

    /// Ends a friendship.
    pub fn delete_friend(&self, friend: UserId) -> Pending<()> {
        self.request(Request::DeleteFriend(friend))
    }

    /// Makes a group, with the user as its admin.
    pub fn create_group(&self, name: &str, description: &str) -> Pending<Group> {
        self.request(Request::CreateGroup {
            name: name.to_owned(),
            description: description.to_owned(),
        })
    }

    /// Joins a group.
    pub fn join_group(&self, group: GroupId) -> Pending<Group> {
        self.request(Request::JoinGroup(group))
    }

    /// Leaves a group.
    pub fn leave_group(&self, group: GroupId) -> Pending<()> {
        self.request(Request::LeaveGroup(group))
    }

    /// Deletes a group, for all of its members. For its admin.
    pub fn delete_group(&self, group: GroupId) -> Pending<()> {
        self.request(Request::DeleteGroup(group))
    }

    /// The user's friends, all of them, by id.
    pub fn friends(&self) -> Pending<Vec<Friend>> {
        self.request(Request::Friends)
    }

    /// The user's groups, all of them, by id and with all their members.
    pub fn groups(&self) -> Pending<Vec<Group>> {
        self.request(Request::Groups)
    }

    /// Messages of a conversation, ascending from sequence `first` on; at most `count_max`, at
    /// most 500, and about a mebibyte: see [`HistoryPage`].
    pub fn history(
        &self,
        conversation: Conversation,
        first: u64,
        count_max: u32,
    ) -> Pending<HistoryPage> {
        self.request(Request::History {
            conversation,
            first,
            count_max,
        })
    }

    /// Closes: acknowledges what was received, fails what has no answer, and waits until the
    /// connection is closed, at most 5 s. Not for an event loop's thread; drop the client there.
    pub fn close(mut self) {
        self.shut_down(CLOSE_TIMEOUT);
    }

    fn start(
        handle: &LoopHandle,
        address: SocketAddr,
        options: ClientOptions,
        sink: Sink,
    ) -> Result<Self, Error> {
        check(&options).map_err(Error::Options)?;
        let tcp_options = nexus_net::ClientOptions {
            connection: options.connection.clone(),
            backoff: options.backoff.clone(),
            tls: options.tls.clone(),
            fallbacks: options
                .more_addresses
                .iter()
                .map(|&address| address.into())
                .collect(),
            ..nexus_net::ClientOptions::default()
        };
        let shared = Shared::new(handle, options, sink);
        let links = Arc::clone(&shared);
        let tcp = TcpClient::start(handle, address, tcp_options, move |_| {
            Box::new(links.link())
        })?;
        Ok(Self {
            shared,
            tcp: Some(tcp),
            loops: None,
        })
    }

    fn request<T: FromAnswer + Send + 'static>(&self, request: Request) -> Pending<T> {
        let (promise, pending) = Pending::new();
        let completion = move |result: Result<_, ChatError>| {
            promise.complete(result.and_then(|answer| {
                T::from_answer(answer)
                    .ok_or_else(|| ChatError::Protocol("an answer of another kind".to_owned()))
            }));
        };
        self.shared.request(request, Box::new(completion));
        pending
    }

    fn shut_down(&mut self, timeout: Duration) {
        let Some(tcp) = self.tcp.take() else {
            return;
        };
        let (promise, closed) = Pending::new();
        self.shared.close(promise);
        // Queued behind the close: the last acknowledgements are written before.
        drop(tcp);
        if !timeout.is_zero() && !nexus_net::on_loop_thread() {
            let _ = closed.wait(timeout);
        }
    }
}

impl Drop for ChatClient {
    fn drop(&mut self) {
        // The client's own loop ends with it, so it has to be given the time.
        let timeout = match self.loops {
            Some(_) => Duration::from_secs(1),
            None => Duration::ZERO,
        };
        self.shut_down(timeout);
    }
}

/// What is out of range, if anything.
fn check(options: &ClientOptions) -> Result<(), &'static str> {
    let times = [
        options.request_timeout,
        options.send_timeout,
        options.heartbeat_interval,
        options.silence_max,
        options.ack_delay,
        options.gap_delay,
    ];
    if times.iter().any(|&time| time > TIME_MAX) {
        return Err("a time is longer than a year");
    }
    if options.silence_max <= options.heartbeat_interval {
        return Err("silence_max is not above heartbeat_interval");
    }
    if options.frame_bytes_max < RESPONSE_FRAME_BYTES_MIN {
        return Err("frame_bytes_max has no room for the largest answer, 4 MiB");
    }
    if options.events_max == 0 || options.calls_max == 0 {
        return Err("events_max or calls_max is 0");
    }
    Ok(())
}
