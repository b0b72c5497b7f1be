//! A provider that answers as a test wants it, on blocking sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;

use bytes::BytesMut;
use nexus_rpc::wire::{Frame, Limits, RpcMeta, decode, encode_payload};

use crate::*;

/// What a fake does with a request.
pub(crate) enum Asked {
    /// Answers with the request's own message.
    Echo,
    /// Answers with this code.
    Answer(ErrorCode),
    /// Never answers.
    Nothing,
    /// Closes the connection without an answer.
    Close,
}

/// Ends with the process: its threads wait for connections.
pub(crate) struct Fake {
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    connections: AtomicUsize,
    connections_asked: AtomicUsize,
    refusing: AtomicBool,
    /// Of all connections, in the order they came; those that were refused are there, too.
    streams: Mutex<Vec<(TcpStream, Arc<AtomicBool>)>>,
    /// The metas of all requests, in the order they came.
    metas: Mutex<Vec<RpcMeta>>,
}

impl Fake {
    /// Answers the nth request of all its connections as `what(n)` says.
    pub(crate) fn start(what: impl Fn(usize) -> Asked + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let for_threads = Arc::clone(&counts);
        let what = Arc::new(what);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (counts, what) = (Arc::clone(&for_threads), Arc::clone(&what));
                let stream = stream.unwrap();
                if counts.refusing.load(Ordering::SeqCst) {
                    let _ = stream.shutdown(Shutdown::Both);
                }
                let silent = Arc::new(AtomicBool::new(false));
                let kept = (stream.try_clone().unwrap(), Arc::clone(&silent));
                counts.streams.lock().push(kept);
                counts.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || serve(stream, &counts, &*what, &silent));
            }
        });
        Self { address, counts }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Requests of one service: probes are of another.
    pub(crate) fn requests_for(&self, service: &str) -> usize {
        let metas = self.counts.metas.lock();
        let of_service = |meta: &&RpcMeta| {
            let request = meta.request.as_ref();
            request.is_some_and(|request| request.service_name() == service.as_bytes())
        };
        metas.iter().filter(of_service).count()
    }

    /// Ends every connection as soon as it is there, or no longer.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.counts.refusing.store(refusing, Ordering::SeqCst);
    }

    /// Ends the nth connection, from 0.
    pub(crate) fn cut(&self, nth: usize) {
        let _ = self.counts.streams.lock()[nth].0.shutdown(Shutdown::Both);
    }

    /// Answers nothing on the nth connection from now on, but leaves it open.
    pub(crate) fn silence(&self, nth: usize) {
        self.counts.streams.lock()[nth]
            .1
            .store(true, Ordering::SeqCst);
    }

    pub(crate) fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Connections on which at least one request came.
    pub(crate) fn connections_asked(&self) -> usize {
        self.counts.connections_asked.load(Ordering::SeqCst)
    }

    pub(crate) fn metas(&self) -> Vec<RpcMeta> {
        self.counts.metas.lock().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    counts: &Counts,
    what: &dyn Fn(usize) -> Asked,
    silent: &AtomicBool,
) {
    let (mut input, mut piece) = (BytesMut::new(), [0; 4096]);
    let mut asked = false;
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        input.extend_from_slice(&piece[..count]);
        while let Ok(Some(frame)) = decode(&mut input, &Limits::default()) {
            if !std::mem::replace(&mut asked, true) {
                counts.connections_asked.fetch_add(1, Ordering::SeqCst);
            }
            counts.metas.lock().push(frame.meta.clone());
            let asked_for = what(counts.requests.fetch_add(1, Ordering::SeqCst));
            if silent.load(Ordering::SeqCst) {
                continue;
            }
            let out = match asked_for {
                Asked::Nothing => continue,
                Asked::Close => {
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
                Asked::Echo => answer(&frame, None),
                Asked::Answer(code) => answer(&frame, Some(RpcError::new(code, "no"))),
            };
            let _ = stream.write_all(&out);
        }
    }
}

fn answer(frame: &Frame, error: Option<RpcError>) -> BytesMut {
    let id = frame.meta.correlation_id();
    let (mut meta, payload) = match &error {
        Some(error) => (RpcMeta::for_failure(id, error), &[][..]),
        None => (RpcMeta::for_success(id), &frame.payload[..]),
    };
    let mut out = BytesMut::new();
    encode_payload(&mut meta, payload, &[], &Limits::default(), &mut out).unwrap();
    out
}
