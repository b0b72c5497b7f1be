//! Messages as JSON: protobuf's own mapping, with what the `.proto` files say and without the Rust types.

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use crate::service::{MethodDescriptor, ServiceDescriptor};
use crate::{ErrorCode, RpcError, json};

/// The messages of one method.
#[derive(Debug, Clone)]
pub(crate) struct JsonMapping {
    request: MessageDescriptor,
    response: MessageDescriptor,
}

/// The files of a service, understood; `None` when it came without, or with others than its own.
pub(crate) fn pool_of(service: &ServiceDescriptor) -> Option<DescriptorPool> {
    if service.files.is_empty() {
        return None;
    }
    match DescriptorPool::decode(service.files) {
        Ok(pool) => Some(pool),
        Err(error) => {
            log::error!("{}: its files cannot be read: {error}", service.name);
            None
        }
    }
}

impl JsonMapping {
    /// The mapping of a method that these files define.
    pub(crate) fn new(pool: &DescriptorPool, method: &MethodDescriptor) -> Option<Self> {
        Some(Self {
            request: pool.get_message_by_name(method.request_type)?,
            response: pool.get_message_by_name(method.response_type)?,
        })
    }

    pub(crate) fn request(&self) -> &MessageDescriptor {
        &self.request
    }

    pub(crate) fn response(&self) -> &MessageDescriptor {
        &self.response
    }

    /// The encoded request that `json` says; nothing at all says the default message.
    pub(crate) fn read_request(&self, json: &[u8]) -> Result<Bytes, RpcError> {
        if json.trim_ascii().is_empty() {
            return Ok(Bytes::new());
        }
        match json::read(&self.request, json) {
            Ok(message) => Ok(Bytes::from(message.encode_to_vec())),
            Err(error) => {
                let what = format!("the body is no {}: {error}", self.request.full_name());
                Err(RpcError::bad_request(what))
            }
        }
    }

    /// An encoded response as JSON.
    pub(crate) fn write_response(&self, message: &[u8]) -> Result<Vec<u8>, RpcError> {
        let unwritable = |error: &dyn std::fmt::Display| {
            let what = format!("the answer cannot be said in JSON: {error}");
            RpcError::new(ErrorCode::BAD_RESPONSE, what)
        };
        let message = DynamicMessage::decode(self.response.clone(), message)
            .map_err(|error| unwritable(&error))?;
        serde_json::to_vec(&message).map_err(|error| unwritable(&error))
    }
}
