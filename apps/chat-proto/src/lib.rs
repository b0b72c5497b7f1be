//! What the parts of the chat say to each other: the clients' messages and frames, and the services
//! that proxies call. The `.proto` files and the tables in them are the reference.
//!
//! | module | owns |
//! |---|---|
//! | [`messages`] | everything generated from `proto/chat/` |
//! | [`ids`] | message ids and error codes of the client protocol |
//! | [`conversation`] | the ids of users, groups and conversations |
//! | [`frame`] | the clients' framing, sans-IO |
//! | [`client_address`] | whom a limit per address concerns |
//! | [`call_time`] | when a call was asked for, and until when its answer is waited for |

pub mod call_time;
pub mod client_address;
pub mod conversation;
pub mod frame;
pub mod ids;

/// Messages, services and clients, generated from `proto/chat/`.
#[allow(missing_docs, clippy::all)]
pub mod messages {
    include!(concat!(env!("OUT_DIR"), "/nexus.chat.rs"));
}
