//! What a service consists of, as generated code says it to both sides.

use crate::IncomingCall;

/// A service as its `.proto` defines it.
#[derive(Debug)]
pub struct ServiceDescriptor {
    /// The full name, `package.Service`.
    pub name: &'static str,
    /// The methods, in the order of the file.
    pub methods: &'static [MethodDescriptor],
    /// The `.proto` file that defines it, with its imports: an encoded
    /// `google.protobuf.FileDescriptorSet`. Empty when it is not known; then messages cannot be read as
    /// JSON.
    pub files: &'static [u8],
}

/// A method as its `.proto` defines it.
#[derive(Debug)]
pub struct MethodDescriptor {
    /// The service's full name, `package.Service`.
    pub service: &'static str,
    /// The method's name.
    pub name: &'static str,
    /// The full name of the request message.
    pub request_type: &'static str,
    /// The full name of the response message.
    pub response_type: &'static str,
    /// Where and how the handler runs.
    pub execution: Execution,
    /// Running it twice does no more than running it once
    /// (`option idempotency_level` of the `.proto`).
    pub idempotent: bool,
}

/// Where and how a handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// On the provider's worker pool; may block.
    Pooled,
    /// On the connection's loop; must not block.
    Inline,
    /// Started on the connection's loop, where it must not block, and completed through a
    /// [`Responder`](crate::Responder) from any thread.
    Responder,
}

/// A service that a provider can serve. Implemented by generated code.
pub trait Service: Send + Sync + 'static {
    /// What it is.
    fn descriptor(&self) -> &'static ServiceDescriptor;

    /// Runs the method at this index of the descriptor. On the thread that the method's
    /// [`Execution`] names.
    fn call(&self, method: usize, call: IncomingCall);
}
