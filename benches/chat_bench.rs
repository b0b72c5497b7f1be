//! Durable one-to-one messages per second, through proxies, servers, MariaDB and Redis.
//!
//! Starts a cluster of its own (release builds, real servers, everything on this machine), makes pairs
//! of friends with one half on each proxy, and has the first of each pair send as fast as its
//! acknowledgements come, a number of pairs at a time. Every message carries the moment it was sent.
//!
//! ```sh
//! cargo run --release -p nexus-benches --bin chat-bench -- --pairs 256 --seconds 10
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use chat_proto::frame;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use clap::Parser;
use nexus_net::{
    CloseReason, ConnHandle, Connection, ConnectionOptions, Handler, LoopContext, LoopGroup,
    Mailbox,
};
use nexus_testkit::{Cluster, ClusterOptions, Process, Profile, build_binaries, wait_until};
use parking_lot::Mutex;
use prost::Message;

/// Durable one-to-one messages per second through a whole cluster.
#[derive(Parser)]
struct Options {
    /// Pairs of friends; each has one message under way at a time
    #[arg(long, default_value_t = 256)]
    pairs: usize,
    /// How long to measure
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Bytes of text in a message
    #[arg(long, default_value_t = 64)]
    size: usize,
}

/// Users that register and log in at a time: hashing their passwords keeps the cores busy.
const ENTERING_MAX: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let cluster = Cluster::start(ClusterOptions::new(build_binaries(Profile::Release)?))?;
    let run = Arc::new(Run::new(&options));
    let loops = LoopGroup::start("load", 1)?;
    connect_all(
        &run,
        &loops,
        cluster.proxy(0).address(),
        cluster.proxy(1).address(),
    );
    wait_until("all connections are open", Duration::from_secs(60), || {
        run.opened.load(Ordering::Relaxed) == 2 * options.pairs
    });
    for _ in 0..ENTERING_MAX {
        run.enter_next();
    }
    wait_until("all users are logged in", Duration::from_secs(300), || {
        run.logged_in.load(Ordering::Relaxed) == 2 * options.pairs
    });
    run.befriend();
    wait_until("all pairs are friends", Duration::from_secs(60), || {
        run.befriended.load(Ordering::Relaxed) == options.pairs
    });
    let cpu_before = cpu_of_all(&cluster);
    let started = Instant::now();
    run.start();
    // Time is what is measured.
    std::thread::sleep(Duration::from_secs(options.seconds));
    run.stop.store(true, Ordering::Relaxed);
    let seconds = started.elapsed().as_secs_f64();
    let cpu_after = cpu_of_all(&cluster);
    let sent = run.acknowledged_us.lock().len();
    wait_until(
        "what was acknowledged has arrived",
        Duration::from_secs(30),
        || run.received_us.lock().len() >= run.acknowledged_us.lock().len(),
    );
    report(&run, &options, seconds, sent);
    for ((name, before), (_, after)) in cpu_before.iter().zip(&cpu_after) {
        println!(
            "  {name:<16} {:>5.0} % of one core",
            100.0 * (after - before) / seconds
        );
    }
    println!(
        "  {:<16} {:>5.0} % of one core",
        "this program",
        100.0 * own_cpu() / seconds
    );
    Ok(())
}

fn report(run: &Run, options: &Options, seconds: f64, sent: usize) {
    println!(
        "{} pairs, {} B texts, {seconds:.1} s: {:.0} messages/s stored and acknowledged",
        options.pairs,
        options.size,
        sent as f64 / seconds
    );
    for (what, times) in [
        ("send to ack", &run.acknowledged_us),
        ("send to receive", &run.received_us),
    ] {
        let mut times = times.lock();
        times.sort_unstable();
        let at = |q: f64| {
            let index = ((times.len() as f64 * q) as usize).min(times.len().saturating_sub(1));
            times
                .get(index)
                .map_or(f64::NAN, |&us| f64::from(us) / 1000.0)
        };
        println!(
            "  {what:<16} p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms",
            at(0.5),
            at(0.99),
            at(0.999)
        );
    }
}

/// CPU seconds of each process of the cluster.
fn cpu_of_all(cluster: &Cluster) -> Vec<(String, f64)> {
    let of = |process: &&Process| {
        (
            process.name().to_owned(),
            cpu_seconds(&process.pid().to_string()),
        )
    };
    cluster.processes().iter().map(of).collect()
}

fn own_cpu() -> f64 {
    cpu_seconds("self")
}

/// User and system time from /proc/PID/stat, in ticks of 10 ms (proc(5)).
fn cpu_seconds(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |field: usize| {
        after_name
            .split_whitespace()
            .nth(field)
            .and_then(|text| text.parse::<f64>().ok())
    };
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

/// What all connections share.
struct Run {
    epoch: Instant,
    size: usize,
    users: Vec<Mutex<LoadEntry>>,
    opened: AtomicUsize,
    entered: AtomicUsize,
    logged_in: AtomicUsize,
    befriended: AtomicUsize,
    stop: AtomicBool,
    acknowledged_us: Mutex<Vec<u32>>,
    received_us: Mutex<Vec<u32>>,
}

#[derive(Default)]
struct LoadEntry {
    id: i32,
    mailbox: Option<Arc<Mailbox<Command>>>,
}

enum Command {
    Enter,
    Befriend(i32),
    Start,
}

impl Run {
    fn new(options: &Options) -> Self {
        Self {
            epoch: Instant::now(),
            size: options.size,
            users: (0..2 * options.pairs).map(|_| Mutex::default()).collect(),
            opened: AtomicUsize::new(0),
            entered: AtomicUsize::new(0),
            logged_in: AtomicUsize::new(0),
            befriended: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            acknowledged_us: Mutex::new(Vec::new()),
            received_us: Mutex::new(Vec::new()),
        }
    }

    /// Even indices send, each to the odd one behind it.
    fn senders(&self) -> impl Iterator<Item = usize> {
        (0..self.users.len()).step_by(2)
    }

    /// Has the next user register and log in.
    fn enter_next(&self) {
        let next = self.entered.fetch_add(1, Ordering::Relaxed);
        if next < self.users.len() {
            self.command(next, Command::Enter);
        }
    }

    fn befriend(&self) {
        for sender in self.senders() {
            let receiver = self.users[sender + 1].lock().id;
            self.command(sender, Command::Befriend(receiver));
        }
    }

    fn start(&self) {
        for sender in self.senders() {
            self.command(sender, Command::Start);
        }
    }

    fn command(&self, user: usize, command: Command) {
        let mailbox = self.users[user].lock().mailbox.clone();
        let delivered = mailbox.is_some_and(|mailbox| mailbox.send(command).is_ok());
        assert!(delivered, "user {user} lost its connection");
    }

    fn now_us(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }
}

fn connect_all(run: &Arc<Run>, loops: &LoopGroup, left: SocketAddr, right: SocketAddr) {
    let run = Arc::clone(run);
    let posted = loops.next().post(move |context| {
        let options = Arc::new(ConnectionOptions::default());
        for index in 0..run.users.len() {
            let address = if index % 2 == 0 { left } else { right };
            let connected = context.connect(address, Arc::clone(&options), |conn| {
                Box::new(LoadUser::new(Arc::clone(&run), index, conn))
            });
            connected.expect("a connection can be started");
        }
    });
    posted.expect("the loop runs");
}

struct LoadUser {
    run: Arc<Run>,
    index: usize,
    id: i32,
    friend: i32,
    mailbox: Arc<Mailbox<Command>>,
    unacknowledged: u32,
    sent_us: u64,
}

impl LoadUser {
    fn new(run: Arc<Run>, index: usize, conn: &ConnHandle) -> Self {
        let mailbox = Arc::new(Mailbox::new(conn.clone()));
        run.users[index].lock().mailbox = Some(Arc::clone(&mailbox));
        Self {
            run,
            index,
            id: 0,
            friend: 0,
            mailbox,
            unacknowledged: 0,
            sent_us: 0,
        }
    }

    fn send(conn: &mut Connection<'_>, id: MessageId, content: &impl Message) {
        let content: Bytes = content.encode_to_vec().into();
        let request = RequestFrame {
            message_id: id.0,
            content,
            request_id: 1,
        };
        conn.write_with(|out| frame::encode(&request, out));
    }

    fn register(&self, conn: &mut Connection<'_>) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let name = format!("load {} {}", now.unwrap_or_default().as_nanos(), self.index);
        let request = RegisterRequest {
            user_name: name.into(),
            user_password: Bytes::from_static(b"load"),
        };
        Self::send(conn, MessageId::REGISTER, &request);
    }

    fn chat(&mut self, conn: &mut Connection<'_>) {
        if self.run.stop.load(Ordering::Relaxed) {
            return;
        }
        self.sent_us = self.run.now_us();
        let mut content = format!("{} ", self.sent_us);
        content.extend(std::iter::repeat_n(
            'x',
            self.run.size.saturating_sub(content.len()),
        ));
        let request = FriendChatRequest {
            sender: Some(Sender {
                user_id: self.id,
                ..Default::default()
            }),
            receiver: Some(Receiver {
                user_id: self.friend,
                ..Default::default()
            }),
            content,
            time: "2026-01-02 03:04:05".to_owned(),
            client_message_id: self.sent_us * 65_536 + self.index as u64,
            ..Default::default()
        };
        Self::send(conn, MessageId::FRIEND_CHAT, &request);
    }

    fn received(&mut self, conn: &mut Connection<'_>, push: &FriendChatRequest) {
        let sent_us = push
            .content
            .split(' ')
            .next()
            .and_then(|text| text.parse::<u64>().ok());
        let took_us = self
            .run
            .now_us()
            .saturating_sub(sent_us.expect("a message of this run"));
        self.run
            .received_us
            .lock()
            .push(took_us.try_into().unwrap_or(u32::MAX));
        self.unacknowledged += 1;
        if self.unacknowledged >= 16 {
            self.unacknowledged = 0;
            let friend_id = push.sender.as_ref().map_or(0, |sender| sender.user_id);
            let conversation = Some(Conversation {
                friend_id,
                group_id: 0,
            });
            let acks = vec![ConversationAck {
                conversation,
                sequence: push.sequence,
            }];
            Self::send(conn, MessageId::DELIVERY_ACK, &DeliveryAck { acks });
        }
    }

    fn on_frame(
        &mut self,
        conn: &mut Connection<'_>,
        frame: ResponseFrame,
    ) -> Result<(), Box<dyn Error>> {
        match MessageId(frame.message_id) {
            MessageId::REGISTER_ANSWER => {
                let answer = RegisterResponse::decode(frame.content)?;
                expect(answer.error_code, &answer.error_text)?;
                self.id = answer.user_id;
                let request = LoginRequest {
                    user_id: self.id,
                    user_password: Bytes::from_static(b"load"),
                    acknowledges: true,
                };
                Self::send(conn, MessageId::LOGIN, &request);
            }
            MessageId::LOGIN_ANSWER => {
                let answer = LoginResponse::decode(frame.content)?;
                expect(answer.error_code, &answer.error_text)?;
                self.run.users[self.index].lock().id = self.id;
                self.run.logged_in.fetch_add(1, Ordering::Relaxed);
                self.run.enter_next();
            }
            MessageId::ADD_FRIEND_ANSWER => {
                let answer = AddFriendResponse::decode(frame.content)?;
                expect(answer.error_code, &answer.error_text)?;
                self.run.befriended.fetch_add(1, Ordering::Relaxed);
            }
            MessageId::FRIEND_CHAT_ANSWER => {
                let answer = FriendChatResponse::decode(frame.content)?;
                expect(answer.error_code, &answer.error_text)?;
                let took_us = self.run.now_us() - self.sent_us;
                self.run
                    .acknowledged_us
                    .lock()
                    .push(took_us.try_into().unwrap_or(u32::MAX));
                self.chat(conn);
            }
            MessageId::RECV_FRIEND => {
                self.received(conn, &FriendChatRequest::decode(frame.content)?);
            }
            MessageId::RECV_ADD_FRIEND => {}
            other => return Err(format!("unexpected message {}", other.0).into()),
        }
        Ok(())
    }
}

fn expect(error_code: i32, text: &str) -> Result<(), String> {
    match error_code {
        code::SUCCESS => Ok(()),
        other => Err(format!("refused with {other}: {text}")),
    }
}

impl Handler for LoadUser {
    fn opened(&mut self, _conn: &mut Connection<'_>) {
        self.run.opened.fetch_add(1, Ordering::Relaxed);
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        while let Some(frame) = frame::decode::<ResponseFrame>(input, 16 << 20).expect("a frame") {
            if let Err(error) = self.on_frame(conn, frame) {
                eprintln!("user {}: {error}", self.index);
                std::process::exit(1);
            }
        }
    }

    fn woken(&mut self, conn: &mut Connection<'_>) {
        let mut commands = Vec::new();
        self.mailbox.take(&mut commands);
        for command in commands {
            match command {
                Command::Enter => self.register(conn),
                Command::Befriend(friend_id) => {
                    self.friend = friend_id;
                    let request = AddFriendRequest {
                        user_id: self.id,
                        friend_id,
                        ..Default::default()
                    };
                    Self::send(conn, MessageId::ADD_FRIEND, &request);
                }
                Command::Start => self.chat(conn),
            }
        }
    }

    fn closed(&mut self, _context: &mut LoopContext<'_>, reason: CloseReason) {
        if !matches!(reason, CloseReason::LoopStopped) {
            eprintln!("user {}: {reason}", self.index);
            std::process::exit(1);
        }
    }
}
