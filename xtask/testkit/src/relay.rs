//! A network between two parts that a test can take away: a relay of TCP connections with a switch.
//!
//! ```text
//! part ── connection ──► Relay ── connection of its own ──► target
//!                          └─ open: passes on    silent: holds    cut: closes
//! ```
//!
//! Silent, it is a network that loses everything: both ends stay open, what they write fills their
//! sockets' buffers, even their closing is not heard at the other side. Opened again, it is the same network
//! healed: what was written meanwhile arrives late, as with TCP's repeated sending. One thing differs from a
//! real loss: a connection that is begun in silence is accepted by the kernel, and then hears nothing.
//!
//! A target that refuses connections is one behind the relay too: after the first refusal the relay does not
//! listen until the target does.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::{Error, free_port};

/// How long the target may take to accept before the connection is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What one direction of a connection reads at a time.
const BUFFER_BYTES: usize = 32 * 1024;
/// How often a target that refused is tried.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Threads here copy bytes and do nothing else.
const STACK_BYTES: usize = 128 * 1024;

/// A relay in front of one address. All methods may be called from any thread. Dropping it closes its
/// connections.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    passage: Passage,
    /// Both sockets of each connection; those that have ended are dropped when the next one comes.
    connections: Vec<Arc<[TcpStream; 2]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    Open,
    Silent,
    Cut,
    /// For good.
    Ended,
}

impl Relay {
    /// Listens on a free port of 127.0.0.1 and passes on what comes to `target`, which need not be there yet.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the port or a thread is refused.
    pub fn start(target: SocketAddr) -> Result<Self, Error> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let starting = || Error::io(format!("starting a relay to {target}"));
        let listener = TcpListener::bind(address).map_err(starting())?;
        let shared = Arc::new(Shared {
            address,
            state: Mutex::new(State {
                target,
                passage: Passage::Open,
                connections: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            spawn(move || shared.accept_all(listener)).map_err(starting())?
        };
        Ok(Self {
            address,
            shared,
            accepting: Some(accepting),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on nothing passes, in neither direction, and nobody is told.
    pub fn silence(&self) {
        self.shared.switch(Passage::Silent);
    }

    /// Closes all connections, and new ones as soon as they come.
    pub fn cut(&self) {
        self.shared.switch(Passage::Cut);
    }

    /// Passes on (again), what was held first.
    pub fn open(&self) {
        self.shared.switch(Passage::Open);
    }

    /// From here on new connections lead to `target`; those that are open stay where they are.
    pub fn lead_to(&self, target: SocketAddr) {
        self.shared.state().target = target;
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        let mut state = self.shared.state();
        state.forget_ended();
        state.connections.len()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.switch(Passage::Ended);
        // The accepting thread looks at the state when it has accepted; where it does not listen it looks
        // by itself.
        let _ = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn target(&self) -> SocketAddr {
        self.state().target
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn switch(&self, passage: Passage) {
        let mut state = self.state();
        state.passage = passage;
        if matches!(passage, Passage::Cut | Passage::Ended) {
            for ends in state.connections.drain(..) {
                close(&ends);
            }
        }
        self.changed.notify_all();
    }

    /// Waits for the end of silence and says whether anything may pass.
    fn may_pass(&self) -> bool {
        let mut state = self.state();
        while state.passage == Passage::Silent {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.passage == Passage::Open
    }

    fn accept_all(self: &Arc<Self>, mut listener: TcpListener) {
        loop {
            let accepted = listener.accept();
            // What is begun in silence waits, and those after it wait in the kernel.
            let may_pass = self.may_pass();
            if self.state().passage == Passage::Ended {
                return;
            }
            let refused = match accepted {
                Ok((stream, _)) if may_pass => self.connect(stream).is_err_and(is_refusal),
                Ok(_) => false,
                Err(_) => {
                    // Out of descriptors, or reset before it was accepted.
                    thread::sleep(RETRY_INTERVAL);
                    false
                }
            };
            if refused {
                drop(listener);
                match self.listen_when_the_target_does() {
                    Some(again) => listener = again,
                    None => return,
                }
            }
        }
    }

    /// `None`: the relay has ended.
    fn listen_when_the_target_does(&self) -> Option<TcpListener> {
        loop {
            let found = TcpStream::connect_timeout(&self.target(), CONNECT_TIMEOUT).is_ok();
            let state = self.state();
            if state.passage == Passage::Ended {
                return None;
            }
            // Under the lock: whoever ends the relay finds it listening or not going to.
            if found && let Ok(listener) = TcpListener::bind(self.address) {
                return Some(listener);
            }
            drop(self.changed.wait_timeout(state, RETRY_INTERVAL));
        }
    }

    fn connect(self: &Arc<Self>, accepted: TcpStream) -> io::Result<()> {
        let connected = TcpStream::connect_timeout(&self.target(), CONNECT_TIMEOUT)?;
        accepted.set_nodelay(true)?;
        connected.set_nodelay(true)?;
        let ends = Arc::new([accepted, connected]);
        {
            let mut state = self.state();
            if matches!(state.passage, Passage::Cut | Passage::Ended) {
                return Ok(());
            }
            state.forget_ended();
            state.connections.push(Arc::clone(&ends));
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let (shared, copied) = (Arc::clone(self), Arc::clone(&ends));
            let copying = spawn(move || shared.copy(&copied, &copied[from], &copied[to]));
            if let Err(error) = copying {
                close(&ends);
                return Err(error);
            }
        }
        Ok(())
    }

    /// One direction, to its end: an orderly one is passed on, any other ends both directions.
    fn copy(&self, ends: &[TcpStream; 2], mut from: &TcpStream, mut to: &TcpStream) {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = from.read(&mut buffer);
            // Also the end of a connection is something that does not pass in silence.
            if !self.may_pass() {
                return close(ends);
            }
            match count {
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(count) if to.write_all(&buffer[..count]).is_ok() => {}
                Ok(_) | Err(_) => return close(ends),
            }
        }
    }
}

impl State {
    /// The two copying threads of a connection hold it too; without them it is over.
    fn forget_ended(&mut self) {
        self.connections.retain(|ends| Arc::strong_count(ends) > 1);
    }
}

fn close(ends: &[TcpStream; 2]) {
    for end in ends {
        // Refused when it is closed already.
        let _ = end.shutdown(Shutdown::Both);
    }
}

fn is_refusal(error: io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("relay".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait_until;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// A server that sends back what it gets, for one connection.
    fn echo() -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let _ = io::copy(&mut &stream, &mut &stream);
        });
        (address, serving)
    }

    fn connect(relay: &Relay) -> TcpStream {
        let stream = TcpStream::connect(relay.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn say(mut stream: &TcpStream, word: &[u8; 4]) {
        stream.write_all(word).unwrap();
    }

    fn hear(mut stream: &TcpStream) -> io::Result<[u8; 4]> {
        let mut word = [0; 4];
        stream.read_exact(&mut word).map(|()| word)
    }

    #[test]
    fn what_is_said_in_silence_arrives_when_it_ends() {
        let (target, _) = echo();
        let relay = Relay::start(target).unwrap();
        let stream = connect(&relay);
        say(&stream, b"open");
        assert_eq!(&hear(&stream).unwrap(), b"open");

        relay.silence();
        say(&stream, b"late");
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let silent = hear(&stream).unwrap_err().kind();
        assert!(matches!(
            silent,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        ));
        assert_eq!(relay.connections(), 1);

        relay.open();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        assert_eq!(&hear(&stream).unwrap(), b"late");
    }

    #[test]
    fn an_end_is_not_heard_in_silence() {
        let (target, serving) = echo();
        let relay = Relay::start(target).unwrap();
        let stream = connect(&relay);
        say(&stream, b"here");
        assert_eq!(&hear(&stream).unwrap(), b"here");
        relay.silence();
        drop(stream);
        assert_eq!(relay.connections(), 1);
        assert!(!serving.is_finished());
        relay.open();
        serving.join().unwrap();
        wait_until("the connection is forgotten", DEADLINE, || {
            relay.connections() == 0
        });
    }

    #[test]
    fn a_cut_closes_what_is_open_and_what_comes_until_it_is_mended() {
        let (target, serving) = echo();
        let relay = Relay::start(target).unwrap();
        let stream = connect(&relay);
        say(&stream, b"here");
        assert_eq!(&hear(&stream).unwrap(), b"here");
        relay.cut();
        assert!(hear(&stream).is_err());
        serving.join().unwrap();
        // Accepted by the kernel perhaps, and closed without a word.
        assert!(hear(&connect(&relay)).is_err());
    }

    #[test]
    fn a_target_that_comes_back_is_reached_again() {
        let (target, serving) = echo();
        let relay = Relay::start(target).unwrap();
        let stream = connect(&relay);
        say(&stream, b"once");
        assert_eq!(&hear(&stream).unwrap(), b"once");
        drop(stream);
        serving.join().unwrap();
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        wait_until(
            "connections are refused as the target does",
            DEADLINE,
            || TcpStream::connect(relay.address()).is_err_and(refused),
        );

        let again = TcpListener::bind(target).unwrap();
        let serving = thread::spawn(move || {
            for stream in again.incoming() {
                let stream = stream.unwrap();
                // The relay tries whether there is somebody.
                if io::copy(&mut &stream, &mut &stream).unwrap_or(0) > 0 {
                    return;
                }
            }
        });
        let mut stream = None;
        wait_until("the relay listens again", DEADLINE, || {
            stream = TcpStream::connect(relay.address()).ok();
            stream.is_some()
        });
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        say(&stream, b"back");
        assert_eq!(&hear(&stream).unwrap(), b"back");
        drop(stream);
        serving.join().unwrap();
    }

    #[test]
    fn half_a_close_is_passed_on() {
        let (target, serving) = echo();
        let relay = Relay::start(target).unwrap();
        let stream = connect(&relay);
        say(&stream, b"last");
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(&hear(&stream).unwrap(), b"last");
        serving.join().unwrap();
        assert_eq!((&stream).read(&mut [0]).unwrap(), 0);
    }
}
