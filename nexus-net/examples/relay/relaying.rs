//! What happens to the bytes: what one side reads the other writes. While one is slow to take its
//! bytes, reading from the other pauses.

use std::time::Instant;

use bytes::BytesMut;
use nexus_net::{CloseReason, Connection, Handler, LoopContext};

use super::side::Side;
use super::socks::{GRANTED, REFUSED};

/// Well below the library's own high water mark, at which the slow side would no longer be read
/// either. That suits an echo; here the slow side may have to be heard before it takes more.
const HIGH_BYTES: usize = 256 << 10;

impl Handler for Side {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        let Some(early) = self.early.take() else {
            conn.set_timer(self.options.close_timeout, 0);
            return;
        };
        conn.send(early);
        self.with_other(&mut conn.context(), |client| {
            client.write(&GRANTED);
            client.resume_reading();
        });
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        if self.other.is_none() {
            if self.connect(conn, input).is_err() {
                conn.write(&REFUSED);
                conn.close();
            }
            return;
        }
        self.moved.set(Instant::now());
        let mut full = false;
        self.with_other(&mut conn.context(), |other| {
            other.send(input.split().freeze());
            full = other.output_bytes() > HIGH_BYTES;
            if full {
                other.notify_drained();
            }
        });
        if full {
            conn.pause_reading();
        }
    }

    fn drained(&mut self, conn: &mut Connection<'_>) {
        self.moved.set(Instant::now());
        self.with_other(&mut conn.context(), |other| other.resume_reading());
    }

    fn eof(&mut self, conn: &mut Connection<'_>) {
        match self.other {
            Some(_) => self.with_other(&mut conn.context(), |other| other.shutdown_write()),
            None => conn.close(),
        }
    }

    fn timer(&mut self, conn: &mut Connection<'_>, _token: u64) {
        let left = self
            .options
            .close_timeout
            .saturating_sub(self.moved.get().elapsed());
        if left.is_zero() {
            self.with_other(&mut conn.context(), |other| other.abort());
            conn.abort();
        } else {
            conn.set_timer(left, 0);
        }
    }

    fn closed(&mut self, context: &mut LoopContext<'_>, _reason: CloseReason) {
        self.with_other(context, |other| {
            if self.early.is_some() {
                other.write(&REFUSED);
            }
            other.close();
        });
    }
}
