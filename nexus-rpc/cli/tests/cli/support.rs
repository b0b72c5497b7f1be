//! A shop to call, and the program to call it with.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nexus_rpc::{CallContext, ErrorCode, MetadataKey, ProviderBuilder, RpcError, RpcProvider};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/shop.rs"));
}
use generated::{
    DawdleRequest, DawdleResponse, Kind, PriceRequest, PriceResponse, RefuseRequest,
    RefuseResponse, Shop, ShopServer,
};

/// How long a test waits for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Who buys.
const CUSTOMER: MetadataKey<String> = MetadataKey::new("customer");

/// The calls that reached a shop.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<AtomicUsize>);

impl Calls {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

struct Till(Calls);

impl Shop for Till {
    /// Gives the attachment and the field `customer` back.
    fn price(&self, call: &CallContext, request: PriceRequest) -> Result<PriceResponse, RpcError> {
        self.0.0.fetch_add(1, Ordering::SeqCst);
        call.set_response_attachment(call.attachment().clone());
        if let Some(customer) = call.metadata().get(CUSTOMER)? {
            call.set_response_metadata(CUSTOMER, customer);
        }
        let options = request.options.iter();
        let wrapped = options.filter(|option| option.kind() == Kind::GiftWrapped);
        Ok(PriceResponse {
            cents: u64::from(request.count) * 100,
            article: request.article,
            options: wrapped.map(|option| option.name.clone()).collect(),
        })
    }

    fn refuse(&self, _: &CallContext, request: RefuseRequest) -> Result<RefuseResponse, RpcError> {
        self.0.0.fetch_add(1, Ordering::SeqCst);
        Err(RpcError::new(ErrorCode::new(request.code), request.text))
    }

    fn dawdle(&self, _: &CallContext, request: DawdleRequest) -> Result<DawdleResponse, RpcError> {
        self.0.0.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(request.time_ms.into()));
        Ok(DawdleResponse {})
    }
}

/// A provider of `shop.Shop`.
pub(crate) struct Provider {
    pub(crate) calls: Calls,
    pub(crate) provider: RpcProvider,
}

impl Provider {
    pub(crate) fn start() -> Self {
        Self::start_with(|builder| builder)
    }

    pub(crate) fn start_with(configure: impl FnOnce(ProviderBuilder) -> ProviderBuilder) -> Self {
        let calls = Calls::default();
        let service = ShopServer::new(Till(calls.clone()));
        let builder = configure(RpcProvider::builder().service(service));
        let provider = builder.start(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self {
            calls,
            provider: provider.expect("a provider"),
        }
    }

    /// The registry that knows only this one.
    pub(crate) fn url(&self) -> String {
        format!("list://{}", self.provider.local_addr())
    }
}

/// The file that the shop was generated from.
pub(crate) fn shop_proto() -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/proto/shop.proto");
    file.to_str().expect("a path in UTF-8").to_owned()
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// What it printed; it succeeded and complained of nothing.
    #[track_caller]
    pub(crate) fn printed(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:?}");
        self.out
    }

    /// What it complained of; it failed, printed nothing, and said what to do next.
    #[track_caller]
    pub(crate) fn complained(self) -> String {
        assert_eq!((self.code, self.out.as_str()), (Some(1), ""), "{self:?}");
        assert!(self.err.contains("\n next: "), "{self:?}");
        self.err
    }
}

/// The program, untouched by the environment of whoever runs the tests.
pub(crate) fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexus-rpc"));
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"NEXUS_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

pub(crate) fn run(args: &[&str]) -> Ran {
    Ran::new(program(args).output().expect("it runs"))
}

pub(crate) fn run_with_input(args: &[&str], input: &str) -> Ran {
    let mut command = program(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    Ran::new(child.wait_with_output().expect("it ends"))
}
