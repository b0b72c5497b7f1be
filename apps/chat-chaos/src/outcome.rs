//! What became of a chat that was hurt, and how that is printed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chat_load::Verdict;

use crate::absence::Absence;
use crate::fault::Fault;

/// What one fault did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was done.
    pub fault: Fault,
    /// From when it was done until it was undone: for a killed part, until it said that it is ready.
    pub held: Duration,
    /// How long after its beginning service was whole although it lasted; `None`: it was not.
    pub whole_during: Option<Duration>,
    /// How long after its end service was whole; `None`: it was given up.
    pub whole_after: Option<Duration>,
    /// The longest that any message took, from when it was due until everybody had it.
    pub longest_wait: Duration,
    /// Connections that clients had to make anew.
    pub reconnects: u64,
    /// Sessions that ended though their users did nothing to end them.
    pub sessions_ended: u64,
    /// Of a user who vanished, where one did.
    pub absence: Option<Absence>,
    /// Parts that have ended by themselves; their twins may have hidden it.
    pub fallen: Vec<String>,
    /// What the checker has found from the beginning until now.
    pub verdict: Verdict,
}

impl Outcome {
    /// Whether no promise was broken and the chat recovered.
    pub fn is_good(&self) -> bool {
        let is_told = self.absence.is_none_or(|absence| absence.is_good());
        let stands = self.fallen.is_empty();
        self.verdict.is_clean() && self.whole_after.is_some() && is_told && stands
    }
}

/// The heading of lines that are printed of outcomes.
pub const HEADING: &str = "fault                         held   whole during   whole after   longest wait   \
                           reconnects   ended   verdict";

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.is_good() {
            true => "clean".to_owned(),
            false if !self.verdict.is_clean() => {
                format!("{} VIOLATIONS", self.verdict.violations())
            }
            false if self.whole_after.is_none() => "NOT WHOLE".to_owned(),
            false if !self.fallen.is_empty() => format!("FELL: {}", self.fallen.join(", ")),
            false => "NOT SEEN".to_owned(),
        };
        write!(
            f,
            "{:<26} {:>7}   {:>12}   {:>11}   {:>12}   {:>10}   {:>5}   {verdict}",
            self.fault,
            Seconds(Some(self.held)),
            Seconds(self.whole_during),
            Seconds(self.whole_after),
            Seconds(Some(self.longest_wait)),
            self.reconnects,
            self.sessions_ended,
        )?;
        let Some(absence) = self.absence else {
            return Ok(());
        };
        let (gone, back) = (Seconds(absence.offline_after), Seconds(absence.back_after));
        write!(f, " (offline after {gone}, back after {back})")
    }
}

/// Of each fault how often it was done, and the worst of it.
#[derive(Debug, Default)]
pub struct Summary {
    rows: BTreeMap<Fault, Row>,
}

#[derive(Debug)]
struct Row {
    times: usize,
    worst: Outcome,
}

impl Summary {
    /// Adds an outcome.
    pub fn add(&mut self, outcome: Outcome) {
        match self.rows.get_mut(&outcome.fault) {
            Some(row) => row.add(outcome),
            None => {
                let fault = outcome.fault;
                let row = Row {
                    times: 1,
                    worst: outcome,
                };
                self.rows.insert(fault, row);
            }
        }
    }

    /// Whether there were any, and all of them were good.
    pub fn is_good(&self) -> bool {
        !self.is_empty() && self.rows.values().all(|row| row.worst.is_good())
    }

    /// Whether nothing was done.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl Row {
    fn add(&mut self, outcome: Outcome) {
        self.times += 1;
        let worst = &mut self.worst;
        worst.held = worst.held.max(outcome.held);
        worst.whole_during = worse(worst.whole_during, outcome.whole_during);
        worst.whole_after = worse(worst.whole_after, outcome.whole_after);
        worst.longest_wait = worst.longest_wait.max(outcome.longest_wait);
        worst.reconnects = worst.reconnects.max(outcome.reconnects);
        worst.sessions_ended = worst.sessions_ended.max(outcome.sessions_ended);
        worst.absence = worst.absence.zip(outcome.absence).map(|(a, b)| Absence {
            offline_after: worse(a.offline_after, b.offline_after),
            back_after: worse(a.back_after, b.back_after),
        });
        worst.fallen.extend(outcome.fallen);
        worst.verdict = outcome.verdict;
    }
}

/// Not at all is worse than late.
fn worse(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    Some(a?.max(b?))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "times   {HEADING}")?;
        for Row { times, worst } in self.rows.values() {
            writeln!(f, "{times:>5}   {worst}")?;
        }
        Ok(())
    }
}

/// `12.3 s`, or `-` for never.
struct Seconds(Option<Duration>);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => f.pad(&format!("{:.1} s", time.as_secs_f64())),
            None => f.pad("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(whole_after_s: Option<u64>, lost: u64) -> Outcome {
        Outcome {
            fault: Fault::VanishClients,
            held: Duration::from_secs(2),
            whole_during: None,
            whole_after: whole_after_s.map(Duration::from_secs),
            longest_wait: Duration::from_millis(2500),
            reconnects: 3,
            sessions_ended: 0,
            absence: None,
            fallen: Vec::new(),
            verdict: Verdict {
                lost,
                ..Verdict::default()
            },
        }
    }

    #[test]
    fn a_line_says_how_it_ended() {
        assert!(outcome(Some(1), 0).to_string().ends_with("clean"));
        assert!(outcome(None, 0).to_string().ends_with("NOT WHOLE"));
        assert!(outcome(Some(1), 2).to_string().ends_with("2 VIOLATIONS"));
        let mut fell = outcome(Some(1), 0);
        fell.fallen.push("chat-server-1".to_owned());
        assert!(!fell.is_good());
        assert!(fell.to_string().ends_with("FELL: chat-server-1"));
    }

    #[test]
    fn a_run_without_a_fault_shows_nothing() {
        assert!(!Summary::default().is_good());
    }

    #[test]
    fn a_vanished_user_has_to_go_offline_and_to_get_in_again() {
        let with = |offline_after, back_after| Outcome {
            absence: Some(Absence {
                offline_after,
                back_after,
            }),
            ..outcome(Some(1), 0)
        };
        let some = Some(Duration::from_secs(8));
        let good = with(some, some);
        assert!(good.is_good());
        let words = "clean (offline after 8.0 s, back after 8.0 s)";
        assert!(good.to_string().ends_with(words), "{good}");
        let at_once = Some(Duration::from_millis(100));
        for bad in [with(None, some), with(some, None), with(at_once, some)] {
            assert!(!bad.is_good());
            assert!(bad.to_string().contains("NOT SEEN"), "{bad}");
        }
        let mut summary = Summary::default();
        for one in [good, with(None, some)] {
            summary.add(one);
        }
        let text = summary.to_string();
        assert!(text.contains("offline after -, back after 8.0 s"), "{text}");
    }

    #[test]
    fn the_summary_keeps_the_worst() {
        let mut summary = Summary::default();
        for after in [Some(1), Some(4), Some(2)] {
            summary.add(outcome(after, 0));
        }
        let text = summary.to_string();
        assert!(
            text.contains("4.0 s") && text.contains("    3   vanish"),
            "{text}"
        );
        summary.add(outcome(None, 0));
        assert!(summary.to_string().contains("NOT WHOLE"), "{summary}");
    }
}
