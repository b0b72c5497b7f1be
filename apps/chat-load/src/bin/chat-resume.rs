//! Logins per second through a whole cluster: by the session's token, or by the password.
//!
//! Starts a cluster of its own (release builds, real servers, everything on this machine) and makes users
//! with a few friends each. Then clients connect, log in and leave again, as fast as they are answered;
//! leaving is part of it, since every closed connection is logged out.
//!
//! ```sh
//! cargo run --release -p chat-load --bin chat-resume -- --by token --seconds 10
//! cargo run --release -p chat-load --bin chat-resume -- --by password --seconds 10
//! ```

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use chat_load::parts;
use chat_proto::frame;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use clap::{Parser, ValueEnum};
use nexus_testkit::{Cluster, ClusterOptions, Profile, build_binaries};
use prost::Message;

/// Logins per second through a whole cluster.
#[derive(Parser)]
struct Options {
    /// How the clients log in
    #[arg(long, value_enum, default_value = "token")]
    by: By,
    /// Users, each of whom is logged in by one client at a time
    #[arg(long, default_value_t = 200)]
    users: usize,
    /// Clients at a time
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// How long to measure
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Token,
    Password,
}

const FRIENDS: usize = 10;
const PASSWORD: &str = "load";

type AnyError = Box<dyn Error + Send + Sync>;

struct User {
    id: i32,
    token: Bytes,
}

fn main() -> Result<(), AnyError> {
    let options = Options::parse();
    let cluster = Cluster::start(ClusterOptions::new(build_binaries(Profile::Release)?))?;
    let proxies = [0, 1].map(|index| cluster.proxy(index).address());
    let users = register(&options, proxies)?;
    befriend(&users, proxies[0])?;

    let before = parts::of_cluster(&cluster);
    let (stop, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let times_us = Mutex::new(Vec::new());
    let started = Instant::now();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..options.clients)
            .map(|_| {
                scope.spawn(|| -> Result<(), AnyError> {
                    while !stop.load(Ordering::Relaxed) {
                        let turn = next.fetch_add(1, Ordering::Relaxed);
                        let user = &users[turn % users.len()];
                        let began = Instant::now();
                        log_in(proxies[turn / users.len() % 2], user, options.by)?;
                        let took = began.elapsed().as_micros();
                        let mut times = times_us.lock().map_err(|_| "poisoned")?;
                        times.push(u32::try_from(took)?);
                    }
                    Ok(())
                })
            })
            .collect();
        // Time is what is measured.
        std::thread::sleep(Duration::from_secs(options.seconds));
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| "a client panicked")??;
        }
        Ok::<_, AnyError>(())
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let after = parts::of_cluster(&cluster);

    let mut times = times_us.into_inner().map_err(|_| "poisoned")?;
    times.sort_unstable();
    let logins = times.len() as f64;
    let at = |q: f64| f64::from(times[((logins * q) as usize).min(times.len() - 1)]) / 1000.0;
    let by = match options.by {
        By::Token => "token",
        By::Password => "password",
    };
    println!(
        "{} clients, {} users, {seconds:.1} s: {:.0} logins/s by {by}, p50 {:.1} ms, p99 {:.1} ms",
        options.clients,
        options.users,
        logins / seconds,
        at(0.5),
        at(0.99)
    );
    for (part, usage) in after {
        let cpu = usage.cpu_seconds - before.get(&part).map_or(0.0, |usage| usage.cpu_seconds);
        println!(
            "  {part:<16} {:>7.2} ms of CPU per login",
            1000.0 * cpu / logins
        );
    }
    Ok(())
}

/// Registers the users and logs each in once, for the token.
fn register(options: &Options, proxies: [SocketAddr; 2]) -> Result<Vec<User>, AnyError> {
    (0..options.users)
        .map(|index| {
            let mut client = Client::connect(proxies[index % 2])?;
            let request = RegisterRequest {
                user_name: format!("user {index}").into(),
                user_password: PASSWORD.into(),
            };
            let answer: RegisterResponse = client.ask(MessageId::REGISTER, &request)?;
            expect(answer.error_code)?;
            let id = answer.user_id;
            let answer: LoginResponse = client.ask(MessageId::LOGIN, &login(id))?;
            expect(answer.error_code)?;
            let token = answer.session_token;
            Ok(User { id, token })
        })
        .collect()
}

/// Everybody with the next few.
fn befriend(users: &[User], address: SocketAddr) -> Result<(), AnyError> {
    for (index, user) in users.iter().enumerate() {
        let mut client = Client::connect(address)?;
        let answer: LoginResponse = client.ask(MessageId::RESUME, &resume(user))?;
        expect(answer.error_code)?;
        for other in users.iter().skip(index + 1).take(FRIENDS / 2) {
            let request = AddFriendRequest {
                user_id: user.id,
                friend_id: other.id,
                ..Default::default()
            };
            let answer: AddFriendResponse = client.ask(MessageId::ADD_FRIEND, &request)?;
            expect(answer.error_code)?;
        }
    }
    Ok(())
}

/// One connection, from its first byte to the login's answer.
fn log_in(address: SocketAddr, user: &User, by: By) -> Result<(), AnyError> {
    let mut client = Client::connect(address)?;
    let answer: LoginResponse = match by {
        By::Token => client.ask(MessageId::RESUME, &resume(user))?,
        By::Password => client.ask(MessageId::LOGIN, &login(user.id))?,
    };
    expect(answer.error_code)
}

fn login(user_id: i32) -> LoginRequest {
    LoginRequest {
        user_id,
        user_password: PASSWORD.into(),
        acknowledges: true,
        wants_session_token: true,
        ..Default::default()
    }
}

fn resume(user: &User) -> ResumeRequest {
    ResumeRequest {
        user_id: user.id,
        session_token: user.token.clone(),
        acknowledges: true,
        received: Vec::new(),
        ..Default::default()
    }
}

fn expect(error_code: i32) -> Result<(), AnyError> {
    match error_code {
        code::SUCCESS => Ok(()),
        code => Err(format!("refused with code {code}").into()),
    }
}

struct Client {
    stream: TcpStream,
    input: BytesMut,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self, AnyError> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let input = BytesMut::new();
        Ok(Self { stream, input })
    }

    /// One request and its answer. Pushes in between are passed over.
    fn ask<A: Message + Default>(
        &mut self,
        id: MessageId,
        request: &impl Message,
    ) -> Result<A, AnyError> {
        let request = RequestFrame {
            message_id: id.0,
            content: request.encode_to_vec().into(),
            request_id: 1,
        };
        self.stream.write_all(&frame::to_bytes(&request))?;
        let mut bytes = [0; 8192];
        loop {
            while let Some(frame) = frame::decode::<ResponseFrame>(&mut self.input, 1 << 24)? {
                if frame.request_id == 1 {
                    return Ok(A::decode(frame.content)?);
                }
            }
            match self.stream.read(&mut bytes)? {
                0 => return Err("the proxy has closed".into()),
                count => self.input.extend_from_slice(&bytes[..count]),
            }
        }
    }
}
