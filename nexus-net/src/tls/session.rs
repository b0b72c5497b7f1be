//! The TLS state of one connection.

use std::io::{self, BufRead, IoSlice, Write};

use bytes::BytesMut;
use rustls::Connection;

use super::TlsInfo;
use crate::transport::Socket;

/// The TLS state of one connection. Lives on its loop.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    peer_ended: bool,
}

impl Session {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            peer_ended: false,
        }
    }

    /// The peer has said that it sends nothing more.
    pub(crate) fn peer_ended(&self) -> bool {
        self.peer_ended
    }

    pub(crate) fn info(&self) -> TlsInfo<'_> {
        TlsInfo {
            connection: &self.connection,
        }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Decrypts what came from the socket and appends what is in it to `plain`. `Ok(true)`: the peer
    /// has said that it sends nothing more.
    ///
    /// Bytes of an incomplete record stay in here, at most one record's (16 KiB), or a handshake
    /// message's (64 KiB). After an error an alert for the peer is pending.
    pub(crate) fn decrypt(&mut self, mut cipher: &[u8], plain: &mut BytesMut) -> io::Result<bool> {
        while !cipher.is_empty() && !self.peer_ended {
            // From memory: takes a part of it, as rustls's own buffer allows.
            self.connection.read_tls(&mut cipher)?;
            let state = self
                .connection
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.peer_ended = state.peer_has_closed();
            if state.plaintext_bytes_to_read() > 0 {
                self.take_plain(state.plaintext_bytes_to_read(), plain)?;
            }
        }
        Ok(self.peer_ended)
    }

    fn take_plain(&mut self, mut count: usize, plain: &mut BytesMut) -> io::Result<()> {
        let mut reader = self.connection.reader();
        while count > 0 {
            let chunk = reader.fill_buf()?;
            let len = chunk.len();
            plain.extend_from_slice(chunk);
            reader.consume(len);
            count = count.saturating_sub(len);
        }
        Ok(())
    }

    /// Encrypts as much of `slices` as rustls's buffer takes (64 KiB), once what it held before is
    /// written, and writes it. Returns how much was taken.
    pub(crate) fn write_vectored(
        &mut self,
        socket: &mut Socket,
        slices: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        self.write_pending(socket)?;
        let taken = self.connection.writer().write_vectored(slices)?;
        match self.write_pending(socket) {
            // The rest is pending, and the next write will meet this again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(taken),
            Err(error) => Err(error),
            Ok(()) => Ok(taken),
        }
    }

    /// Writes encrypted bytes until there are none left.
    pub(crate) fn write_pending(&mut self, socket: &mut Socket) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(socket)?;
        }
        Ok(())
    }

    /// Queues the message that ends this side's stream (close_notify, RFC 8446 section 6.1). Once.
    pub(crate) fn end_output(&mut self) {
        self.connection.send_close_notify();
    }
}
