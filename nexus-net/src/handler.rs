//! The one trait that users implement: what a connection does.

use bytes::BytesMut;

use crate::{CloseReason, Connection, LoopContext};

/// The protocol of one connection: a value that lives on the connection's loop.
///
/// Every method runs on the loop's thread and must not block: hand what blocks to a
/// [`WorkerPool`](crate::WorkerPool). The calls come in this order:
///
/// ```text
///   opened ─► { data | eof | woken | timer | drained | draining }* ─► closed
/// ```
///
/// A connection that is never made (see [`TcpClient`](crate::TcpClient)) is not `opened` but gets
/// `closed`. While it is being made, wakes and timers reach the handler already, before `opened`, so
/// that what waits for the connection can time out. After a
/// [`close`](crate::Connection::close) they still do, until `closed`.
///
/// A panic in a method closes this connection with
/// [`CloseReason::HandlerPanicked`]; the loop goes on.
pub trait Handler {
    /// The connection is established.
    fn opened(&mut self, conn: &mut Connection<'_>) {
        let _ = conn;
    }

    /// Bytes arrived. `input` holds everything not yet consumed, oldest first.
    ///
    /// Consume from the front (`split_to`, `advance`, `clear`); what is left is kept and is there
    /// again, with more behind it, at the next call. It is not called again for the rest alone, so
    /// take every complete frame now. `split_to(n).freeze()` makes a frame that outlives the call
    /// without a copy. It shares its buffer with up to 256 KiB of other input, which stays in memory
    /// as long as the frame does: copy what is small and kept for long.
    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut);

    /// The peer has shut down its side; nothing more will arrive. Closes unless overridden; an
    /// override can finish an answer first and then close, or shut down its side.
    fn eof(&mut self, conn: &mut Connection<'_>) {
        conn.close();
    }

    /// Somebody called [`ConnHandle::wake`](crate::ConnHandle::wake); several calls may come as one.
    fn woken(&mut self, conn: &mut Connection<'_>) {
        let _ = conn;
    }

    /// A timer of [`Connection::set_timer`] is due.
    fn timer(&mut self, conn: &mut Connection<'_>, token: u64) {
        let _ = (conn, token);
    }

    /// The output fell below the low water mark after it had been above the high one, or all of it
    /// was handed to the kernel after [`Connection::notify_drained`].
    fn drained(&mut self, conn: &mut Connection<'_>) {
        let _ = conn;
    }

    /// The server is draining: finish what is in work, then close. Closes at once unless
    /// overridden; a connection that is still there at the drain's deadline is cut off.
    fn draining(&mut self, conn: &mut Connection<'_>) {
        conn.close();
    }

    /// The connection has ended; the last call.
    fn closed(&mut self, context: &mut LoopContext<'_>, reason: CloseReason) {
        let _ = (context, reason);
    }
}
