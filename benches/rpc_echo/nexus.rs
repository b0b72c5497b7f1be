//! The load on nexus-rpc's client, with callbacks and with threads that wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_benches::BoxError;
use nexus_benches::rpc::Slow;
use nexus_benches::rpc::generated::inline::{EchoRequest, EchoServiceClient};
use nexus_net::LoopGroup;
use nexus_rpc::registry::{Provider, StaticRegistry};
use nexus_rpc::{ChannelOptions, RpcChannel};

use crate::client::{ClientArgs, Load, Messages};
use crate::record::Recorder;

const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// Longer than any call of a measurement should take. (tonic's client has none unless it is asked.)
const TIMEOUT: Duration = Duration::from_secs(10);

/// A channel for each connection: the calls of one channel to one provider share a connection.
fn clients(args: &ClientArgs) -> Result<Vec<EchoServiceClient>, BoxError> {
    let loops = Arc::new(LoopGroup::start_with(
        "client",
        args.loops,
        &args.look_around.options(),
    )?);
    (0..args.connections)
        .map(|_| connect(args.addr, &loops))
        .collect()
}

fn connect(address: SocketAddr, loops: &Arc<LoopGroup>) -> Result<EchoServiceClient, BoxError> {
    let registry = Arc::new(StaticRegistry::new([Provider::new(address)]));
    let options = ChannelOptions {
        timeout: TIMEOUT,
        ..ChannelOptions::default()
    };
    let channel = RpcChannel::new(registry, Arc::clone(loops), options);
    if !channel.wait_ready(EchoServiceClient::SERVICE, CONNECT_DEADLINE) {
        return Err(format!("{address} cannot be reached").into());
    }
    Ok(EchoServiceClient::new(channel))
}

struct Requests {
    fast: EchoRequest,
    slow: EchoRequest,
}

impl Requests {
    fn new(size: usize) -> Self {
        let Messages { fast, slow } = Messages::new(size);
        Self {
            fast: EchoRequest { message: fast },
            slow: EchoRequest { message: slow },
        }
    }

    fn of(&self, slow: Slow) -> &EchoRequest {
        match slow {
            Slow::No => &self.fast,
            Slow::Yes => &self.slow,
        }
    }
}

/// Callers whose next call is made by the callback of the last.
pub(crate) struct NexusLoad {
    connections: Vec<Arc<CallingBack>>,
}

/// One connection, and what its calls need.
struct CallingBack {
    /// Tells the connections' parts of the recorder apart: as many as there are loops, in turn.
    index: usize,
    client: EchoServiceClient,
    requests: Arc<Requests>,
    recorder: Arc<Recorder>,
}

impl NexusLoad {
    pub(crate) fn connect(args: &ClientArgs, recorder: Arc<Recorder>) -> Result<Self, BoxError> {
        let requests = Arc::new(Requests::new(args.size));
        let connections = (0..)
            .zip(clients(args)?)
            .map(|(index, client)| {
                Arc::new(CallingBack {
                    index,
                    client,
                    requests: Arc::clone(&requests),
                    recorder: Arc::clone(&recorder),
                })
            })
            .collect();
        Ok(Self { connections })
    }
}

impl Load for NexusLoad {
    fn start(&self, callers: usize) -> Result<(), BoxError> {
        for connection in self.connections.iter().cycle().take(callers) {
            call_again(Arc::clone(connection));
        }
        Ok(())
    }

    fn call(&self, number: u64, slow: Slow, due: Instant) -> Result<(), BoxError> {
        let index = number % self.connections.len() as u64;
        let connection = Arc::clone(&self.connections[index as usize]);
        let call = connection.client.echo(connection.requests.of(slow));
        call.on_complete(move |result| match result {
            Ok(_) => connection
                .recorder
                .answered(connection.index, due.elapsed(), 1, slow),
            Err(_) => connection.recorder.failed(connection.index),
        });
        Ok(())
    }
}

/// A caller whose call fails makes no more.
fn call_again(connection: Arc<CallingBack>) {
    let called_at = Instant::now();
    let call = connection.client.echo(connection.requests.of(Slow::No));
    call.on_complete(move |result| {
        if let Err(error) = result {
            eprintln!("{error}");
            connection.recorder.failed(connection.index);
            return;
        }
        connection
            .recorder
            .answered(connection.index, called_at.elapsed(), 1, Slow::No);
        call_again(connection);
    });
}

/// Callers that are threads and wait for each answer.
pub(crate) struct BlockingLoad {
    clients: Vec<EchoServiceClient>,
    requests: Arc<Requests>,
    recorder: Arc<Recorder>,
}

impl BlockingLoad {
    pub(crate) fn connect(args: &ClientArgs, recorder: Arc<Recorder>) -> Result<Self, BoxError> {
        Ok(Self {
            clients: clients(args)?,
            requests: Arc::new(Requests::new(args.size)),
            recorder,
        })
    }
}

impl Load for BlockingLoad {
    fn start(&self, callers: usize) -> Result<(), BoxError> {
        for (index, client) in self.clients.iter().cycle().take(callers).enumerate() {
            let (client, requests) = (client.clone(), Arc::clone(&self.requests));
            let recorder = Arc::clone(&self.recorder);
            std::thread::Builder::new().spawn(move || {
                loop {
                    let called_at = Instant::now();
                    match client.echo(&requests.fast).wait() {
                        Ok(_) => recorder.answered(index, called_at.elapsed(), 1, Slow::No),
                        Err(error) => {
                            eprintln!("{error}");
                            return recorder.failed(index);
                        }
                    }
                }
            })?;
        }
        Ok(())
    }

    fn call(&self, _number: u64, _slow: Slow, _due: Instant) -> Result<(), BoxError> {
        Err("a thread that waits cannot keep to a rate: use `--runtime nexus`".into())
    }
}
