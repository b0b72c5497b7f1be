//! Bytes beside the message: `cargo run -p nexus-rpc --example attachment`.
//!
//! An attachment travels behind the protobuf message and is neither encoded nor compressed: for a picture, a
//! file's piece, or what another encoding made. On both sides it is a `Bytes`, a slice of the buffer that
//! was read. Message and attachment together may have 64 MiB, unless `Limits` say otherwise.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::wire::{ChecksumType, CompressType};
use nexus_rpc::{
    CallContext, CallOptions, ChannelOptions, MetadataKey, Reply, RpcChannel, RpcError, RpcProvider,
};

include!(concat!(env!("OUT_DIR"), "/example.rs"));

/// What the attachment is.
const CONTENT_TYPE: MetadataKey<String> = MetadataKey::new("content-type");

/// Gives the attachment back, turned round.
struct Turning;

impl EchoService for Turning {
    fn echo(&self, call: &CallContext, request: EchoRequest) -> Result<EchoResponse, RpcError> {
        let turned: Vec<u8> = call.attachment().iter().rev().copied().collect();
        call.set_response_attachment(Bytes::from(turned));
        // Small facts about the bytes go well into the metadata.
        if let Some(content) = call.metadata().get(CONTENT_TYPE)? {
            call.set_response_metadata(CONTENT_TYPE, content);
        }
        let message = request.message;
        Ok(EchoResponse { message })
    }
}

/// Sends `bytes` beside a message; returns the answer.
pub(crate) fn run(bytes: Bytes) -> Result<Reply<EchoResponse>, Box<dyn Error>> {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = Arc::new(LoopGroup::start("rpc", 2)?);
    let _provider = RpcProvider::builder()
        .service(EchoServiceServer::new(Turning))
        .registry(Arc::clone(&registry))
        .loops(Arc::clone(&loops))
        .start("127.0.0.1:0".parse()?)?;

    let channel = RpcChannel::new(registry, loops, ChannelOptions::default());
    let client = EchoServiceClient::new(channel);
    let options = CallOptions {
        attachment: bytes,
        // Of the message; the attachment goes as it is.
        compression: CompressType::Gzip,
        checksum: ChecksumType::Crc32c,
        timeout: Some(Duration::from_secs(5)),
        ..CallOptions::default()
    };
    let options = options
        .with_metadata(CONTENT_TYPE, "text/plain".to_owned())
        .wait_for_ready();
    let message = "turn this round".to_owned();
    Ok(client.echo_with(&EchoRequest { message }, options).wait()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let reply = run(Bytes::from_static(b"attached"))?;
    let attachment = String::from_utf8_lossy(&reply.attachment);
    println!("{}: {attachment}", reply.message.message);
    println!("metadata: {:?}", reply.metadata);
    Ok(())
}
