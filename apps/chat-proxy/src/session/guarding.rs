//! The part of a session that keeps its client within the limits: how many connections, how long
//! until it logs in or ends a frame, how many logins, requests and messages.

use std::time::Instant;

use chat_bus::Bucket;
use chat_proto::client_address::ClientAddress;
use chat_proto::ids::code;
use chat_proto::messages::RequestFrame;
use nexus_net::{Address, Charge, Connection, TimerId};

use super::{Active, Refusal, Session, Shared, State, TOO_MANY, Timer, notice, refuse};
use crate::clients::Seat;
use crate::requests::UserRequest;

const TOO_MANY_MESSAGES: Refusal = (code::RATE_LIMITED, "too many messages, slow down");
const TOO_MANY_LOGINS: Refusal = (
    code::RATE_LIMITED,
    "too many logins from your address, try again later",
);
const TOO_MANY_CONNECTIONS: Refusal =
    (code::RATE_LIMITED, "too many connections from your address");

/// What is watched of one connection.
pub(super) struct Guard {
    /// `None`: there are too many from the client's address.
    seat: Option<Seat>,
    requests: Bucket,
    /// Runs while nobody has logged in.
    login: Option<TimerId>,
    /// Runs while a frame is incomplete.
    frame: Option<TimerId>,
    /// What the connection holds while nobody has logged in.
    pub(super) held: Held,
}

/// Bytes that a connection holds, and what they are.
pub(super) struct Held {
    pub(super) charge: Charge,
    /// The beginning of a frame.
    pub(super) input_bytes: usize,
    /// A long login that is being answered.
    pub(super) login_bytes: usize,
    /// Nothing is read until the login is answered.
    pub(super) waits_for_login: bool,
}

impl Guard {
    pub(super) fn new(shared: &Shared, peer: &Address) -> Self {
        let address = match peer.as_tcp() {
            Some(peer) => ClientAddress::from(peer.ip()),
            None => ClientAddress::UNKNOWN,
        };
        let most = shared.options.clients.connections_per_address_max;
        Self {
            seat: shared.addresses.enter(address, most),
            requests: Bucket::default(),
            login: None,
            frame: None,
            held: Held {
                charge: Charge::none(&shared.unauthenticated),
                input_bytes: 0,
                login_bytes: 0,
                waits_for_login: false,
            },
        }
    }

    /// From where the client connects.
    pub(super) fn address(&self) -> ClientAddress {
        self.seat
            .as_ref()
            .map_or(ClientAddress::UNKNOWN, Seat::address)
    }
}

impl Session {
    /// The connection begins: lets it in, or tells it that there are too many and closes.
    pub(super) fn let_in(&mut self, conn: &mut Connection<'_>) {
        if self.guard.seat.is_none() {
            log::debug!("{}: {}; closed", conn.peer_addr(), TOO_MANY_CONNECTIONS.1);
            return self.turn_away(conn, TOO_MANY_CONNECTIONS);
        }
        self.expect_login(conn);
    }

    /// From here on the client has so much time to log in.
    pub(super) fn expect_login(&mut self, conn: &mut Connection<'_>) {
        self.stop_expecting_login(conn);
        let timeout = self.shared.options.clients.login_timeout;
        self.guard.login = Some(conn.set_timer(timeout, Timer::LogIn.token()));
    }

    pub(super) fn stop_expecting_login(&mut self, conn: &mut Connection<'_>) {
        if let Some(timer) = self.guard.login.take() {
            conn.cancel_timer(timer);
        }
    }

    pub(super) fn login_timer(&mut self, conn: &mut Connection<'_>) {
        self.guard.login = None;
        match self.state {
            State::Anonymous if self.in_flight == 0 => {
                log::debug!("{}: nobody logged in; closed", conn.peer_addr());
                self.turn_away(conn, (code::NOT_LOGGED_IN, "nobody logged in for too long"));
            }
            // It has asked in time, and is being answered.
            State::Anonymous | State::LoggingIn(_) => self.expect_login(conn),
            State::LoggedIn(_) | State::LoggingOut(..) | State::Closed => {}
        }
    }

    /// After each read. `is_new`: what is there of a frame is of one that has begun just now.
    pub(super) fn watch_frame(&mut self, conn: &mut Connection<'_>, rest: usize, is_new: bool) {
        if (rest == 0 || is_new)
            && let Some(timer) = self.guard.frame.take()
        {
            conn.cancel_timer(timer);
        }
        if rest > 0 && self.guard.frame.is_none() {
            let timeout = self.shared.options.clients.frame_timeout;
            self.guard.frame = Some(conn.set_timer(timeout, Timer::Frame.token()));
        }
    }

    pub(super) fn frame_timer(&mut self, conn: &mut Connection<'_>) {
        self.guard.frame = None;
        if self.finishing {
            return;
        }
        // It cannot finish what is not read of it, while there is too much that it has not taken.
        let is_read = conn.output_bytes() < self.shared.options.output_low_bytes
            && !self.guard.held.waits_for_login;
        if !is_read {
            let timeout = self.shared.options.clients.frame_timeout;
            self.guard.frame = Some(conn.set_timer(timeout, Timer::Frame.token()));
        } else if conn.is_open() {
            log::info!("{}: half a frame; closed", conn.peer_addr());
            self.turn_away(conn, (code::INVALID, "a frame took too long"));
        }
    }

    pub(super) fn turn_away(&mut self, conn: &mut Connection<'_>, (code, text): Refusal) {
        notice(conn, 0, code, text);
        self.leave();
        conn.close();
    }

    /// Whether one more request can be taken now; if so, it counts.
    pub(super) fn takes_one_more(&mut self) -> bool {
        let options = &self.shared.options;
        let rate = options.clients.requests_per_connection;
        self.in_flight < options.requests_in_flight_per_session_max
            && self.guard.requests.spend(rate, Instant::now()).is_ok()
    }

    /// Takes a login, a resume or a registration, which count for the client's address too.
    ///
    /// # Errors
    /// It can not be taken now, for this reason.
    pub(super) fn take_login(&mut self) -> Result<(), Refusal> {
        if !self.takes_one_more() {
            return Err(TOO_MANY);
        }
        let rate = self.shared.options.clients.logins_per_address;
        let address = self.guard.address();
        match self.shared.addresses.takes_login(address, rate) {
            true => Ok(()),
            false => Err(TOO_MANY_LOGINS),
        }
    }

    /// Forwards a message of the user, if that has not sent too many.
    pub(super) fn forward_message<R: UserRequest>(
        &mut self,
        conn: &mut Connection<'_>,
        frame: RequestFrame,
    ) {
        let rate = self.shared.options.clients.messages_per_user;
        if let State::LoggedIn(active) = &mut self.state
            && active.messages.spend(rate, Instant::now()).is_err()
        {
            let (code, text) = TOO_MANY_MESSAGES;
            return refuse::<R>(conn, frame.request_id, code, text);
        }
        self.forward::<R>(conn, frame);
    }

    /// The user leaves, and may come back.
    pub(super) fn keep_pace(&self, active: &Active) {
        let paces = &self.shared.paces;
        paces.keep(active.user, active.messages, Instant::now());
    }
}
