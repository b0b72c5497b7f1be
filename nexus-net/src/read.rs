//! Reading from a socket into the spare room of a buffer.
//!
//! The only `unsafe` of the crate. A buffer would otherwise have to be zeroed before each read.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

use bytes::{BufMut, BytesMut};
use socket2::SockRef;

use crate::transport::Socket;

/// Reads once, at most `max` bytes, and appends them to `buffer`. 0 means end of stream.
///
/// The room is `buffer`'s spare capacity: reserve it first.
pub(crate) fn read_some(socket: &Socket, buffer: &mut BytesMut, max: usize) -> io::Result<usize> {
    let spare = buffer.spare_capacity_mut();
    let room = spare.len().min(max);
    let spare: &mut [MaybeUninit<u8>] = &mut spare[..room];
    debug_assert!(room > 0, "no room to read into");
    let count = SockRef::from(socket).recv(spare)?;
    assert!(
        count <= room,
        "recv reported more bytes than there was room for"
    );
    // SAFETY: recv(2) has initialised the first `count` bytes of the spare capacity, and `count`
    // is no more than the room it was given.
    unsafe { buffer.advance_mut(count) };
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (reader, _) = listener.accept().unwrap();
        (writer, Socket::Tcp(mio::net::TcpStream::from_std(reader)))
    }

    #[test]
    fn appends_behind_what_is_there_and_leaves_the_rest_of_the_capacity_alone() {
        let (mut writer, reader) = pair();
        writer.write_all(b"hello world").unwrap();
        let mut buffer = BytesMut::with_capacity(64);
        buffer.extend_from_slice(b"> ");
        // Blocking socket: `from_std` does not change the mode.
        let first = read_some(&reader, &mut buffer, 5).unwrap();
        assert_eq!(first, 5);
        assert_eq!(&buffer[..], b"> hello");
        let second = read_some(&reader, &mut buffer, 1024).unwrap();
        assert_eq!(second, 6);
        assert_eq!(&buffer[..], b"> hello world");
    }

    #[test]
    fn end_of_stream_reads_as_zero() {
        let (writer, reader) = pair();
        drop(writer);
        let mut buffer = BytesMut::with_capacity(16);
        assert_eq!(read_some(&reader, &mut buffer, 16).unwrap(), 0);
        assert!(buffer.is_empty());
    }
}
