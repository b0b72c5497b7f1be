//! One end of a relayed connection. The other is on the same loop and is reached by its id.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Instant};

use bytes::{Buf, Bytes, BytesMut};
use nexus_net::{ConnId, Connection, ConnectionOptions, LoopContext};

use super::socks::{Refused, parse};

#[derive(Clone)]
pub(super) struct Side {
    /// `None` for a client that has not yet said where to.
    pub(super) other: Option<ConnId>,
    /// For a target that is not yet connected: what the client sent behind its request.
    pub(super) early: Option<Bytes>,
    /// When bytes last moved, either way: only both ends together can be idle.
    pub(super) moved: Rc<Cell<Instant>>,
    pub(super) options: Arc<ConnectionOptions>,
}

impl Side {
    pub(super) fn with_other(
        &self,
        context: &mut LoopContext<'_>,
        act: impl FnOnce(&mut Connection<'_>),
    ) {
        if let Some(mut other) = self.other.and_then(|id| context.connection(id)) {
            act(&mut other);
        }
    }

    /// Starts to connect to where the request says, once all of it is there.
    pub(super) fn connect(
        &mut self,
        conn: &mut Connection<'_>,
        input: &mut BytesMut,
    ) -> Result<(), Refused> {
        let Some((address, length)) = parse(input)? else {
            return Ok(());
        };
        input.advance(length);
        let mut target = Box::new(self.clone());
        target.other = Some(conn.id());
        target.early = Some(input.split().freeze());
        let connecting = conn
            .context()
            .connect(address, self.options.clone(), |_| target);
        self.other = Some(connecting.map_err(|_| Refused)?);
        // Until there is a target to write to.
        conn.pause_reading();
        Ok(())
    }
}
