//! [`CallTime`]: when a call was asked for, and until when its answer is waited for.
//!
//! The time-out that travels with each call counts from when its server reads it. A server that stood still, or whose
//! connection was silent, reads late and cannot tell. So a proxy says when by its clock, and the server compares.

use std::fmt;
use std::str::FromStr;

/// By the clock of the proxy that calls: UTC, milliseconds since 1970.
///
/// Its text form is `epoch:asked:deadline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallTime {
    /// 0: the clocks of the two are taken to agree. The proxy raises it when an answer shows that they do not; the
    /// server then compares with the quickest call of that epoch.
    pub epoch: u32,
    /// When the client's request reached the proxy, or the earliest that it can have.
    pub asked_ms: i64,
    /// When the proxy gives the call up.
    pub deadline_ms: i64,
}

impl fmt::Display for CallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.epoch, self.asked_ms, self.deadline_ms)
    }
}

/// The text is not of the form `epoch:asked:deadline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedCallTime;

impl FromStr for CallTime {
    type Err = MalformedCallTime;

    fn from_str(text: &str) -> Result<Self, MalformedCallTime> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or(MalformedCallTime);
        let (epoch, asked, deadline) = (part()?, part()?, part()?);
        let time = |text: &str| text.parse().map_err(|_| MalformedCallTime);
        Ok(Self {
            epoch: epoch.parse().map_err(|_| MalformedCallTime)?,
            asked_ms: time(asked)?,
            deadline_ms: time(deadline)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_as_it_was_written() {
        for (epoch, asked_ms, deadline_ms) in
            [(0, 0, 0), (u32::MAX, i64::MIN, i64::MAX), (1, -2, 3)]
        {
            let time = CallTime {
                epoch,
                asked_ms,
                deadline_ms,
            };
            assert_eq!(time.to_string().parse(), Ok(time));
        }
    }

    #[test]
    fn other_texts_are_no_time() {
        for text in [
            "", "1", "1:2", "1:2:", "-1:2:3", "1:2:3:4", "a:2:3", "1:2:3 ",
        ] {
            assert_eq!(text.parse::<CallTime>(), Err(MalformedCallTime), "{text:?}");
        }
    }
}
