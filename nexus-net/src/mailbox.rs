//! A typed way into a handler from other threads.

use crate::ConnHandle;
use crate::sync::Mutex;

/// Messages from any thread to the handler of one connection.
///
/// The handler keeps one end (an `Arc` of this) and empties it with [`take`](Self::take) in
/// [`Handler::woken`](crate::Handler::woken); others call [`send`](Self::send). Many sends before the
/// handler runs cost one wake-up. When the connection ends the handler calls [`close`](Self::close) in
/// [`Handler::closed`](crate::Handler::closed), which hands it what it had not yet taken; from then on
/// `send` gives the message back. So each message is either handed to the handler or returned to
/// its sender, exactly one of the two.
///
/// There is no limit here; senders bound what they have in flight.
#[derive(Debug)]
pub struct Mailbox<M> {
    conn: ConnHandle,
    queue: Mutex<Option<Vec<M>>>,
}

impl<M> Mailbox<M> {
    /// A mailbox of the connection named by `conn`.
    pub fn new(conn: ConnHandle) -> Self {
        Self {
            conn,
            queue: Mutex::new(Some(Vec::new())),
        }
    }

    /// The connection whose handler reads this.
    pub fn conn(&self) -> &ConnHandle {
        &self.conn
    }

    /// Hands a message to the handler.
    ///
    /// # Errors
    /// The message, when the mailbox is closed.
    pub fn send(&self, message: M) -> Result<(), M> {
        {
            let mut queue = self.queue.lock();
            let Some(messages) = queue.as_mut() else {
                return Err(message);
            };
            messages.push(message);
            if messages.len() > 1 {
                // Whoever sent the first has woken, or is about to wake, the connection.
                return Ok(());
            }
        }
        // A wake that finds the connection, or the whole loop, gone is no loss: the mailbox was open
        // just now, so the handler has yet to close it, and gets the message then.
        let _ = self.conn.wake();
        Ok(())
    }

    /// Moves all messages to `into`, oldest first. For the handler.
    pub fn take(&self, into: &mut Vec<M>) {
        if let Some(messages) = self.queue.lock().as_mut() {
            into.append(messages);
        }
    }

    /// Refuses messages from here on and returns those not yet taken.
    pub fn close(&self) -> Vec<M> {
        self.queue.lock().take().unwrap_or_default()
    }
}
