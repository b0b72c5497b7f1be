//! How much one answer holds: every answer has room in a frame to a client, whatever is stored.
//!
//! | answer | holds |
//! |---|---|
//! | history | [`HISTORY`] |
//! | pending messages, at a login and later | `ServerOptions::pending_page`, at most [`PENDING_BYTES_MAX`] |
//! | friends, groups, members | [`LIST_BYTES_MAX`]; a login has less by its page of pending messages |
//! | a group that was joined | 512 KiB of members (`chat-store`) |

use chat_proto::frame::RESPONSE_CONTENT_BYTES_MAX;
use chat_store::PageLimit;

/// A page of history.
pub(crate) const HISTORY: PageLimit = PageLimit {
    messages_max: 500,
    bytes_max: 1 << 20,
};
/// The largest page of pending messages.
pub(crate) const PENDING_BYTES_MAX: usize = RESPONSE_CONTENT_BYTES_MAX / 4;
/// What an answer has beside its lists: codes, texts, the user, the token.
const BESIDE_BYTES: usize = 16 << 10;
/// What lists take in one answer at most, by the `bytes` of their entries.
pub(crate) const LIST_BYTES_MAX: usize = RESPONSE_CONTENT_BYTES_MAX - BESIDE_BYTES;

/// The page of pending messages, not larger than an answer has room for.
pub(crate) fn pending(page: PageLimit) -> PageLimit {
    PageLimit {
        bytes_max: page.bytes_max.min(PENDING_BYTES_MAX),
        ..page
    }
}

/// What a login has for lists, beside this page of pending messages.
pub(crate) fn login_list_bytes_max(pending: PageLimit) -> usize {
    /// One message always fits.
    const A_MESSAGE: usize = 68 << 10;
    LIST_BYTES_MAX - pending.bytes_max.clamp(A_MESSAGE, PENDING_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use nexus_rpc::ProviderOptions;

    use super::*;
    use crate::ServerOptions;

    #[test]
    fn an_answer_has_room_in_a_call() {
        let options = ServerOptions::new("127.0.0.1:0".parse().unwrap());
        let ProviderOptions { limits, .. } = options.provider;
        assert!(limits.body_bytes_max > 2 * RESPONSE_CONTENT_BYTES_MAX);
    }
}
