//! What a load measured, and how it is printed.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checker::Verdict;
use crate::tally::Latencies;

/// What a load measured and found. Counts of messages are of the measured time only, the rest of the whole
/// run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Users.
    pub users: usize,
    /// The measured time.
    pub seconds: f64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages that reached a recipient who had not seen them.
    pub delivered: u64,
    /// From when a message was due until its sender had the answer.
    pub to_ack: Latencies,
    /// From when a message was due until a recipient had it.
    pub to_receive: Latencies,
    /// Sends that were repeated with the same client message id.
    pub sent_again: u64,
    /// Messages that came only when they were asked for.
    pub fetched: u64,
    /// Connections that were lost.
    pub reconnects: u64,
    /// Sends that were refused for good.
    pub refused: u64,
    /// Messages that were due and not sent, because too many waited.
    pub shed: u64,
    /// What the checker found.
    pub verdict: Verdict,
}

impl Report {
    /// Adds that of another process, which ran at the same time.
    pub fn merge(&mut self, other: Self) {
        self.users += other.users;
        self.seconds = self.seconds.max(other.seconds);
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.to_ack.merge(other.to_ack);
        self.to_receive.merge(other.to_receive);
        self.sent_again += other.sent_again;
        self.fetched += other.fetched;
        self.reconnects += other.reconnects;
        self.refused += other.refused;
        self.shed += other.shed;
        self.verdict.merge(other.verdict);
    }

    /// Whether everything was as promised, and every send was taken.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.refused == 0
    }

    fn per_second(&self, count: u64) -> f64 {
        if self.seconds > 0.0 {
            count as f64 / self.seconds
        } else {
            0.0
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} users, {:.1} s: {:.0} acknowledged/s, {:.0} delivered/s",
            self.users,
            self.seconds,
            self.per_second(self.acknowledged),
            self.per_second(self.delivered)
        )?;
        for (what, latencies) in [
            ("send to ack", &self.to_ack),
            ("send to receive", &self.to_receive),
        ] {
            let at = |share| Milliseconds(latencies.quantile(share));
            writeln!(
                f,
                "  {what:<16} p50 {}, p99 {}, p99.9 {}, max {}",
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0)
            )?;
        }
        writeln!(
            f,
            "  sent again {}, connections lost {}, fetched at the end {}, refused {}, not sent {}",
            self.sent_again, self.reconnects, self.fetched, self.refused, self.shed
        )?;
        write!(f, "{}", self.verdict)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  arrived again {} and recognised, unacknowledged at the end {}",
            self.repeated, self.unacknowledged
        )?;
        writeln!(
            f,
            "  lost {}, stored twice {}, out of order {}, gaps {}, corrupted {}, misdelivered {}, \
             sessions ended {}",
            self.lost,
            self.stored_twice,
            self.out_of_order,
            self.gaps,
            self.corrupted,
            self.misdelivered,
            self.sessions_ended
        )?;
        for example in &self.examples {
            writeln!(f, "    {example}")?;
        }
        Ok(())
    }
}

struct Milliseconds(Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ms", self.0.as_secs_f64() * 1e3)
    }
}
