//! A connection's bytes, cut into reads: the same requests whatever the cut, and never more of a body than
//! the limit allows. The last byte of the input is the size of a read.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use nexus_rpc::http::{HttpError, HttpEvent, HttpLimits, RequestParser};

const LIMITS: HttpLimits = HttpLimits {
    head_bytes_max: 512,
    body_bytes_max: 256,
};

fuzz_target!(|data: &[u8]| {
    let Some((&read_bytes, input)) = data.split_last() else {
        return;
    };
    let whole = read([input].into_iter());
    let cut = read(input.chunks(usize::from(read_bytes).max(1)));
    assert_eq!(whole, cut);
});

/// All events, and how many bytes are left or what ended it.
fn read<'a>(reads: impl Iterator<Item = &'a [u8]>) -> (Vec<HttpEvent>, Result<usize, HttpError>) {
    let mut parser = RequestParser::new(LIMITS);
    let mut input = BytesMut::new();
    let mut events = Vec::new();
    for read in reads {
        input.extend_from_slice(read);
        loop {
            match parser.next(&mut input) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    if let HttpEvent::Request(request) = &event {
                        assert!(request.body.len() <= LIMITS.body_bytes_max);
                        assert!(request.path.starts_with('/') || request.path == "*");
                        let _ = (request.field_text("host"), request.query_value("format"));
                    }
                    events.push(event);
                }
                Err(error) => {
                    assert!((400..=505).contains(&error.status()));
                    assert_eq!(parser.next(&mut input), Err(error));
                    return (events, Err(error));
                }
            }
        }
    }
    (events, Ok(input.len()))
}
