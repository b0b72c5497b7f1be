//! The load on tonic's client. A connection is a `Channel`, a caller a task.

use std::sync::Arc;
use std::time::Instant;

use ::tonic::transport::{Channel, Endpoint};
use nexus_benches::BoxError;
use nexus_benches::rpc::generated::tonic::EchoRequest;
use nexus_benches::rpc::generated::tonic::echo_service_client::EchoServiceClient;
use nexus_benches::rpc::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, Slow};
use tokio::runtime::Runtime;

use crate::client::{ClientArgs, Load, Messages};
use crate::record::Recorder;

pub(crate) struct TonicLoad {
    runtime: Runtime,
    clients: Vec<EchoServiceClient<Channel>>,
    messages: Messages,
    recorder: Arc<Recorder>,
}

impl TonicLoad {
    pub(crate) fn connect(args: &ClientArgs, recorder: Arc<Recorder>) -> Result<Self, BoxError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(args.loops)
            .enable_all()
            .build()?;
        let endpoint = Endpoint::from_shared(format!("http://{}", args.addr))?
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let clients = runtime.block_on(async {
            let mut clients = Vec::new();
            for _ in 0..args.connections {
                clients.push(EchoServiceClient::new(endpoint.connect().await?));
            }
            Ok::<_, ::tonic::transport::Error>(clients)
        })?;
        Ok(Self {
            runtime,
            clients,
            messages: Messages::new(args.size),
            recorder,
        })
    }
}

impl Load for TonicLoad {
    fn start(&self, callers: usize) -> Result<(), BoxError> {
        for (index, client) in self.clients.iter().cycle().take(callers).enumerate() {
            let mut client = client.clone();
            let message = self.messages.fast.clone();
            let recorder = Arc::clone(&self.recorder);
            self.runtime.spawn(async move {
                loop {
                    let called_at = Instant::now();
                    let message = message.clone();
                    match client.echo(EchoRequest { message }).await {
                        Ok(_) => recorder.answered(index, called_at.elapsed(), 1, Slow::No),
                        Err(error) => {
                            eprintln!("{error}");
                            return recorder.failed(index);
                        }
                    }
                }
            });
        }
        Ok(())
    }

    fn call(&self, number: u64, slow: Slow, due: Instant) -> Result<(), BoxError> {
        let index = (number % self.clients.len() as u64) as usize;
        let mut client = self.clients[index].clone();
        let message = self.messages.of(slow).to_owned();
        let recorder = Arc::clone(&self.recorder);
        self.runtime.spawn(async move {
            match client.echo(EchoRequest { message }).await {
                Ok(_) => recorder.answered(index, due.elapsed(), 1, slow),
                Err(_) => recorder.failed(index),
            }
        });
        Ok(())
    }
}
