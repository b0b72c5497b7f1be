//! Who calls: what a caller shows is checked before any of its calls is looked at.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use nexus_net::Address;

use crate::{ErrorCode, RpcError};

/// Checks what callers show of themselves.
///
/// Over baidu_std a caller shows it with the first call of a connection, and the result holds for the
/// connection: a refused call is answered with [`ErrorCode::UNAUTHENTICATED`], and the connection is closed.
/// Over HTTP it is the header `authorization` of each request.
pub trait Authenticator: Send + Sync + 'static {
    /// Says who shows `data`; it is empty when the caller shows nothing. Runs on the connection's loop and
    /// must not block.
    ///
    /// # Errors
    /// Why the caller is refused. The text travels to it; the code is always
    /// [`ErrorCode::UNAUTHENTICATED`].
    fn verify(&self, data: &[u8], peer: &Address) -> Result<AuthContext, RpcError>;
}

/// Who a caller is, as an [`Authenticator`] has found. Handlers and interceptors see it in
/// [`CallContext::auth`](crate::CallContext::auth).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthContext {
    user: String,
    roles: Vec<String>,
}

impl AuthContext {
    /// A caller with this name and without roles.
    pub fn new(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            roles: Vec::new(),
        }
    }

    /// Adds a role.
    #[must_use]
    pub fn with_role(mut self, role: impl Into<String>) -> Self {
        self.roles.push(role.into());
        self
    }

    /// The caller's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether the caller has this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }

    /// The caller's roles, in the order they were added.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }
}

/// Asks the authenticator. One that panics has let nobody in.
pub(super) fn verify(
    authenticator: &dyn Authenticator,
    data: &[u8],
    peer: &Address,
) -> Result<Arc<AuthContext>, RpcError> {
    let refuse = |text| Err(RpcError::new(ErrorCode::UNAUTHENTICATED, text));
    match catch_unwind(AssertUnwindSafe(|| authenticator.verify(data, peer))) {
        Ok(Ok(auth)) => Ok(Arc::new(auth)),
        Ok(Err(error)) => refuse(error.text().to_owned()),
        Err(_) => {
            log::error!("{peer}: the authenticator panicked");
            refuse("the caller cannot be verified".to_owned())
        }
    }
}
