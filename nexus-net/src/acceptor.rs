//! A listener on a loop: accepts, and hands each connection to the loop it is placed on.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Address;
use crate::connection::Phase;
use crate::core::{Core, Due, NewConnection};
use crate::listener::Listener;
use crate::tcp_server::{Refused, ServerShared, Stage};
use crate::timer_wheel::TimerKey;
use crate::transport::Socket;

/// Connections accepted in one turn before the others get theirs.
const ACCEPTS_PER_TURN: usize = 128;
const PAUSE_WITHOUT_DESCRIPTORS: Duration = Duration::from_millis(50);
const LOG_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Acceptor {
    listener: Listener,
    /// Behind `listener`, so dropped after it.
    _listening: Listening,
    server: Arc<ServerShared>,
    /// Kept open so that, out of descriptors, a waiting peer can still be accepted and told by a
    /// close rather than left to hang (muduo's and libev's remedy).
    reserve: Option<File>,
    /// When to try again without a descriptor even for turning peers away.
    retry: Option<TimerKey>,
    last_log: Option<Instant>,
}

enum TurnedAway {
    One,
    NobodyWaits,
    /// Another thread has the descriptor.
    NoReserve,
}

/// Says that the listener is closed when it is.
struct Listening(Arc<ServerShared>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.listener_closed();
    }
}

impl Acceptor {
    pub(crate) fn new(listener: Listener, server: Arc<ServerShared>) -> Self {
        Self {
            listener,
            _listening: Listening(Arc::clone(&server)),
            server,
            reserve: open_reserve(),
            retry: None,
            last_log: None,
        }
    }

    pub(crate) fn register(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
    ) -> io::Result<()> {
        registry.register(self.listener.as_source(), token, mio::Interest::READABLE)
    }

    pub(crate) fn belongs_to(&self, server: &Arc<ServerShared>) -> bool {
        Arc::ptr_eq(&self.server, server)
    }

    /// Accepts what waits. `false`: the server no longer accepts and this is to be dropped.
    pub(crate) fn accept(&mut self, core: &mut Core, own_index: usize) -> bool {
        if let Some(retry) = self.retry.take() {
            core.timers.cancel(retry);
        }
        if self.server.has_reached(Stage::Closed) {
            let _ = core.registry.deregister(self.listener.as_source());
            return false;
        }
        // Before the next connection takes the descriptor.
        self.reserve = self.reserve.take().or_else(open_reserve);
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((socket, peer)) => self.place(core, socket, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if out_of_descriptors(&error) => {
                    self.log(&format!(
                        "cannot accept: {error}; connections are turned away"
                    ));
                    match self.turn_away() {
                        TurnedAway::One => {}
                        TurnedAway::NobodyWaits => return true,
                        TurnedAway::NoReserve => {
                            let pause = PAUSE_WITHOUT_DESCRIPTORS;
                            self.retry = Some(core.start_timer(pause, Due::Accept(own_index)));
                            return true;
                        }
                    }
                }
                // The peer is gone already, or the network said something about it (accept(2)).
                Err(error) => self.log(&format!("accept: {error}")),
            }
        }
        core.ready_listeners.push(own_index);
        true
    }

    fn place(&mut self, core: &mut Core, socket: Socket, peer: Address) {
        match self.server.admit() {
            Ok(()) => {}
            Err(Refused::NotAccepting) => return,
            Err(Refused::Full) => {
                self.log(
                    "the server's limit of connections is reached; connections are turned away",
                );
                return;
            }
        }
        let server = Arc::clone(&self.server);
        let Some(target) = server.place().filter(|target| !target.is_current()) else {
            core.inbox.metrics.connection_added();
            adopt(core, server, socket, peer);
            return;
        };
        target.metrics().connection_added();
        let target = target.clone();
        let posted = target.post({
            let server = Arc::clone(&server);
            move |context| adopt(context.core, server, socket, peer)
        });
        if posted.is_err() {
            target.metrics().connection_removed();
            server.connection_ended();
        }
    }

    /// Accepts one connection with the reserved descriptor and closes it.
    fn turn_away(&mut self) -> TurnedAway {
        if self.reserve.take().is_none() {
            return TurnedAway::NoReserve;
        }
        let accepted = self.listener.accept();
        let outcome = match &accepted {
            Ok(_) => TurnedAway::One,
            // Without a descriptor accept(2) says EMFILE also when nobody waits.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => TurnedAway::NobodyWaits,
            Err(error) if out_of_descriptors(error) => TurnedAway::NoReserve,
            Err(_) => TurnedAway::One,
        };
        drop(accepted);
        // Another thread may have been quicker.
        self.reserve = open_reserve();
        outcome
    }

    fn log(&mut self, message: &str) {
        if self
            .last_log
            .is_none_or(|last| last.elapsed() >= LOG_INTERVAL)
        {
            self.last_log = Some(Instant::now());
            log::warn!("{}: {message}", self.server.address());
        }
    }
}

/// Takes an accepted connection into its loop.
fn adopt(core: &mut Core, server: Arc<ServerShared>, socket: Socket, peer: Address) {
    if server.has_reached(Stage::Ended) {
        core.inbox.metrics.connection_removed();
        server.connection_ended();
        return;
    }
    let phase = server.first_phase(&peer);
    let added = server.transport(socket).and_then(|transport| {
        core.add(NewConnection {
            transport,
            peer: peer.clone(),
            phase,
            options: server.connection_options(),
            server: Some(Arc::clone(&server)),
        })
    });
    match added {
        Ok(index) => {
            if phase == Phase::Open {
                core.make_server_handler(index);
            }
            if server.has_reached(Stage::Draining) {
                core.ask_to_drain(index);
            }
        }
        Err(error) => {
            log::warn!("cannot take in a connection from {peer}: {error}");
            core.inbox.metrics.connection_removed();
            server.connection_ended();
        }
    }
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

fn out_of_descriptors(error: &io::Error) -> bool {
    // EMFILE and ENFILE, and the memory errors that go away by themselves likewise.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOMEM: i32 = 12;
    const ENOBUFS: i32 = 105;
    matches!(
        error.raw_os_error(),
        Some(ENFILE | EMFILE | ENOMEM | ENOBUFS)
    )
}
