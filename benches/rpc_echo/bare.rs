//! A client that is hardly one: it copies prepared frames out, and counts the answers that come in.
//!
//! What a server does under it is the server's own ceiling, whatever an RPC client costs.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nexus_benches::BoxError;
use nexus_benches::rpc::Slow;
use nexus_benches::rpc::generated::inline::{ECHO_SERVICE, EchoRequest};
use nexus_net::{
    CloseReason, Connection, ConnectionOptions, Handler, LoopContext, LoopGroup, LoopHandle,
};
use nexus_rpc::wire::{Limits, RpcMeta, encode_frame, frame_bytes};

use crate::client::{ClientArgs, Load, Messages};
use crate::record::Recorder;

const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct BareLoad {
    loops: LoopGroup,
    args: ClientArgs,
    recorder: Arc<Recorder>,
}

impl BareLoad {
    pub(crate) fn connect(args: &ClientArgs, recorder: Arc<Recorder>) -> Result<Self, BoxError> {
        Ok(Self {
            loops: LoopGroup::start_with("bare", args.loops, &args.look_around.options())?,
            args: args.clone(),
            recorder,
        })
    }
}

impl Load for BareLoad {
    fn start(&self, callers: usize) -> Result<(), BoxError> {
        let connections = self.args.connections;
        let (opened, all_opened) = mpsc::channel();
        for index in 0..connections {
            // The first ones get what does not divide evenly.
            let depth = callers / connections + usize::from(index < callers % connections);
            let batch = batch(self.args.size, depth)?;
            let repeater = Repeater {
                index,
                frame_bytes: batch.len() / depth.max(1),
                batch,
                sent: VecDeque::new(),
                recorder: Arc::clone(&self.recorder),
                opened: opened.clone(),
            };
            connect(self.loops.next(), &self.args, repeater)?;
        }
        let deadline = Instant::now() + CONNECT_DEADLINE;
        for _ in 0..connections {
            all_opened.recv_timeout(deadline.saturating_duration_since(Instant::now()))??;
        }
        Ok(())
    }

    fn call(&self, _number: u64, _slow: Slow, _due: Instant) -> Result<(), BoxError> {
        Err("the bare client keeps to no rate".into())
    }
}

fn connect(handle: &LoopHandle, args: &ClientArgs, repeater: Repeater) -> Result<(), BoxError> {
    let address = args.addr;
    handle.post(move |context| {
        let opened = repeater.opened.clone();
        // It reads however much waits to be written, as any caller has to.
        let defaults = ConnectionOptions::default();
        let options = Arc::new(ConnectionOptions {
            output_high_bytes: defaults.output_bytes_max,
            ..defaults
        });
        if let Err(error) = context.connect(address, options, |_| Box::new(repeater)) {
            let _ = opened.send(Err(error.to_string()));
        }
    })?;
    Ok(())
}

/// `depth` request frames back to back. They differ in their ids, as those of any client.
fn batch(size: usize, depth: usize) -> Result<Bytes, BoxError> {
    let method = &ECHO_SERVICE.methods[0];
    let message = Messages::new(size).fast;
    let request = EchoRequest { message };
    let mut frames = BytesMut::new();
    for id in 0..depth as i64 {
        // Far from 0, so that all take the same room.
        let mut meta = RpcMeta::for_request(method.service, method.name, (1 << 32) + id);
        encode_frame(&mut meta, &request, &[], &Limits::default(), &mut frames)?;
    }
    Ok(frames.freeze())
}

/// Keeps as many requests under way as the batch has frames.
struct Repeater {
    index: usize,
    batch: Bytes,
    frame_bytes: usize,
    /// When requests were sent and how many of them are not answered, oldest first. That answers come
    /// in another order now and then is overlooked.
    sent: VecDeque<(Instant, u64)>,
    recorder: Arc<Recorder>,
    opened: mpsc::Sender<Result<(), String>>,
}

impl Repeater {
    fn send(&mut self, conn: &mut Connection<'_>, now: Instant, count: usize) {
        conn.send(self.batch.slice(..count * self.frame_bytes));
        self.sent.push_back((now, count as u64));
    }

    fn record(&mut self, now: Instant, mut answers: u64) {
        while let Some((sent_at, left)) = self.sent.front_mut()
            && answers > 0
        {
            let count = answers.min(*left);
            self.recorder
                .answered(self.index, now - *sent_at, count, Slow::No);
            answers -= count;
            *left -= count;
            if *left == 0 {
                self.sent.pop_front();
            }
        }
    }
}

impl Handler for Repeater {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        let _ = self.opened.send(Ok(()));
        let depth = self.batch.len() / self.frame_bytes.max(1);
        self.send(conn, Instant::now(), depth);
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        let mut answers = 0;
        let mut end = 0;
        loop {
            match frame_bytes(&input[end..], &Limits::default()) {
                Ok(Some(bytes)) if end + bytes <= input.len() => {
                    end += bytes;
                    answers += 1;
                }
                Ok(_) => break,
                Err(_) => return conn.abort(),
            }
        }
        if answers == 0 {
            return;
        }
        let _ = input.split_to(end);
        let now = Instant::now();
        self.record(now, answers as u64);
        self.send(conn, now, answers);
    }

    fn closed(&mut self, _context: &mut LoopContext<'_>, reason: CloseReason) {
        if let CloseReason::ConnectFailed(error) = &reason {
            let _ = self.opened.send(Err(error.to_string()));
        }
        self.recorder.failed(self.index);
    }
}
