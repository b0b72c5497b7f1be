//! Who is let in: proxies, which show the cluster's secret.
//!
//! What a proxy says of its clients is believed: it has authenticated them. So nobody else may say it.

use chat_node::secret::ClusterSecret;
use nexus_net::Address;
use nexus_rpc::{AuthContext, Authenticator, ErrorCode, RpcError};

use crate::log_limit::LogLimit;

static STRANGER: LogLimit = LogLimit::new();

/// Lets in whoever shows the secret.
pub(crate) struct ProxiesOnly(pub(crate) ClusterSecret);

impl Authenticator for ProxiesOnly {
    fn verify(&self, data: &[u8], peer: &Address) -> Result<AuthContext, RpcError> {
        if self.0.is_shown(data) {
            return Ok(AuthContext::new("proxy"));
        }
        if STRANGER.allows() {
            let what = match data {
                [] => "no secret",
                _ => "another secret",
            };
            log::warn!("{peer}: refused, it shows {what} of the cluster");
        }
        Err(RpcError::new(
            ErrorCode::UNAUTHENTICATED,
            "not a proxy of this cluster",
        ))
    }
}
