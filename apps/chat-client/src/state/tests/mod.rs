//! One behaviour each. Any order of everything: see [`super::properties`].

mod messages;
mod pages;
mod requests;
mod sessions;

use std::time::Duration;

use chat_proto::messages as proto;

use super::testing::*;
use crate::{ChatError, Conversation, Operation};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const GAP: Duration = Duration::from_millis(200);

pub(super) fn refused(operation: Operation, code: i32) -> ChatError {
    ChatError::Refused {
        operation,
        code,
        text: String::new(),
        reason: None,
    }
}

pub(super) fn login_refusal(error_code: i32) -> proto::LoginResponse {
    proto::LoginResponse {
        error_code,
        ..Default::default()
    }
}

pub(super) fn friend_conversation() -> proto::Conversation {
    Conversation::Friend(user(FRIEND)).to_proto()
}
