//! Generates services and clients of nexus-rpc from `.proto` files.
//!
//! Called from a `build.rs`; needs no `protoc`:
//!
//! ```no_run
//! fn main() -> Result<(), nexus_rpc_build::BuildError> {
//!     nexus_rpc_build::Builder::new()
//!         .responder("example.EchoService.Echo")
//!         .compile(&["example/echo.proto"], &["proto"])
//! }
//! ```
//!
//! Each protobuf package becomes one file in `OUT_DIR`, to be included where its items shall live:
//!
//! ```text
//! pub mod example {
//!     include!(concat!(env!("OUT_DIR"), "/example.rs"));
//! }
//! ```
//!
//! It holds the messages, made by prost (`bytes` fields are `bytes::Bytes`, maps are sorted), and for a
//! service `EchoService`:
//!
//! | item | what |
//! |---|---|
//! | `trait EchoService` | to be implemented: one method for each rpc |
//! | `EchoServiceServer<T>` | makes a `nexus_rpc::Service` of an implementation |
//! | `EchoServiceClient` | to call it: for each rpc `echo(&request)` and `echo_with(&request, options)` |
//! | `ECHO_SERVICE` | its `nexus_rpc::ServiceDescriptor`, with the `.proto` files that define it |
//!
//! The crate that includes the file depends on `nexus-rpc` and `prost`, and on `prost-types` if messages hold
//! `google.protobuf.Timestamp` and the like.
//!
//! Files that this crate's reader of `.proto` does not take, such as those of an edition, are compiled by `protoc` or
//! `buf`, and given as descriptors: [`Builder::compile_descriptors`].
//!
//! # Where a handler runs
//!
//! | kind | runs | gives its result |
//! |---|---|---|
//! | default | on the worker pool; may block | by returning it |
//! | [`inline`](Builder::inline) | on the connection's loop; must not block | by returning it |
//! | [`responder`](Builder::responder) | begins on the connection's loop; must not block | through a `Responder`, any time, from any thread |
//!
//! A method is idempotent when its `.proto` says so with `option idempotency_level`. Streaming methods are
//! refused: baidu_std as spoken by nexus-rpc has none.

mod descriptors;
mod files;
mod service;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;

pub use self::descriptors::read_descriptor_set;
use self::service::{Execution, Generator};

/// What to generate.
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is generated before compile"]
pub struct Builder {
    executions: BTreeMap<String, Execution>,
    twice: Option<String>,
    out_dir: Option<PathBuf>,
}

/// Nothing, or not everything, was generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A `.proto` file is missing or wrong. The text names file and place.
    #[error(
        "{0}\na file that protoc takes can be given as descriptors: Builder::compile_descriptors"
    )]
    Proto(String),
    /// A descriptor set cannot be used. The text names the file.
    #[error("{0}")]
    Descriptors(String),
    /// A method streams.
    #[error("{method} streams; nexus-rpc has no streams, only one request and one response")]
    Streaming {
        /// The method's full name.
        method: String,
    },
    /// A method was named for inline or responder that no file has.
    #[error("there is no method {method} in these files")]
    UnknownMethod {
        /// The name as it was given.
        method: String,
    },
    /// A method was named twice.
    #[error("{method} is named more than once for inline or responder")]
    NamedTwice {
        /// The method's full name.
        method: String,
    },
    /// The result cannot be written.
    #[error("cannot write the generated code: {0}")]
    Write(#[from] io::Error),
}

impl Builder {
    /// Every method pooled, output into `OUT_DIR`.
    pub fn new() -> Self {
        Self::default()
    }

    /// The handler of this method (`package.Service.Method`) runs on the connection's loop and returns
    /// its result. It must not block.
    pub fn inline(self, method: impl Into<String>) -> Self {
        self.execution(method.into(), Execution::Inline)
    }

    /// The handler of this method (`package.Service.Method`) is begun on the connection's loop, where
    /// it must not block, and answers through a `Responder`.
    pub fn responder(self, method: impl Into<String>) -> Self {
        self.execution(method.into(), Execution::Responder)
    }

    /// Where to write; by default into cargo's `OUT_DIR`.
    pub fn out_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(dir.into());
        self
    }

    /// Generates code for `protos`, which are looked for, as are their imports, in `includes`. Cargo
    /// is told to run the build script again when one of those folders changes.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn compile(
        self,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), BuildError> {
        for include in includes {
            println!("cargo:rerun-if-changed={}", include.as_ref().display());
        }
        // The error's debug form is the one that shows the place in the file.
        let files = protox::compile(protos, includes)
            .map_err(|error| BuildError::Proto(format!("{error:?}")))?;
        self.generate(files)
    }

    /// Generates code for all files in a descriptor set, which
    /// `protoc --include_imports --descriptor_set_out=FILE` or `buf build -o FILE` has written: for those that
    /// [`compile`](Self::compile) does not take, of an edition or with names that differ only in case. Cargo is told
    /// to run the build script again when it changes.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn compile_descriptors(self, file: impl AsRef<Path>) -> Result<(), BuildError> {
        let file = file.as_ref();
        println!("cargo:rerun-if-changed={}", file.display());
        self.generate(read_descriptor_set(file)?)
    }

    fn generate(self, files: FileDescriptorSet) -> Result<(), BuildError> {
        if let Some(method) = self.twice {
            return Err(BuildError::NamedTwice { method });
        }
        let mut unknown = self.executions.clone();
        for file in &files.file {
            for service in &file.service {
                for method in &service.method {
                    let service = service::full_name(file.package(), service.name());
                    let name = format!("{service}.{}", method.name());
                    if method.client_streaming() || method.server_streaming() {
                        return Err(BuildError::Streaming { method: name });
                    }
                    unknown.remove(&name);
                }
            }
        }
        if let Some((method, _)) = unknown.pop_first() {
            return Err(BuildError::UnknownMethod { method });
        }

        let mut config = prost_build::Config::new();
        if let Some(dir) = self.out_dir {
            config.out_dir(dir);
        }
        config
            .bytes(["."])
            .btree_map(["."])
            // Messages are documented in their .proto file, or not at all.
            .type_attribute(".", "#[allow(missing_docs)]")
            .service_generator(Box::new(Generator::new(self.executions, &files)))
            .compile_fds(files)?;
        Ok(())
    }

    fn execution(mut self, method: String, execution: Execution) -> Self {
        if self.executions.insert(method.clone(), execution).is_some() {
            self.twice = Some(method);
        }
        self
    }
}
