//! Times as texts, in the zone of this system.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

/// Now, as "YYYY-MM-DD HH:MM:SS" of this system's zone: what a message carries as its time.
pub fn now_text() -> String {
    format(&ZonedDateTime::now())
}

/// A server's time, milliseconds since 1970, as the same kind of text; `None` when it is out of
/// range.
pub fn text_of(server_time_ms: i64) -> Option<String> {
    let timestamp = Timestamp::from_millisecond(server_time_ms).ok()?;
    Some(format(&timestamp.to_zoned_datetime(TimeZone::system())))
}

fn format(time: &ZonedDateTime) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_protocols_form() {
        for text in [Some(now_text()), text_of(0), text_of(1_767_225_600_000)] {
            let text = text.unwrap();
            let form: String = text
                .chars()
                .map(|c| if c.is_ascii_digit() { '0' } else { c })
                .collect();
            assert_eq!(form, "0000-00-00 00:00:00", "{text}");
        }
    }

    #[test]
    fn a_time_out_of_range_is_none() {
        assert_eq!(text_of(i64::MAX), None);
    }
}
