//! What a press tells: a line each second, and at the end a table, or JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::load::{Missed, Pace};
use super::tally::Tally;
use crate::args::MethodName;
use crate::failure::printable;

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

/// A second of the load, in one line.
pub(super) fn progress(second: u64, tally: &Tally) -> String {
    format!(
        "{second:>5} s {:>9} calls/s {:>7} errors   p50 {:>9}   p99 {:>9}\n",
        tally.successes(),
        tally.failures(),
        ms(tally.quantile(0.5)),
        ms(tally.quantile(0.99)),
    )
}

/// A load that is over.
pub(super) struct Report<'a> {
    pub(super) method: &'a MethodName,
    pub(super) pace: Pace,
    pub(super) callers: usize,
    pub(super) connections: usize,
    /// Until the last call was over.
    pub(super) elapsed: Duration,
    pub(super) tally: &'a Tally,
    pub(super) missed: &'a Missed,
}

impl Report<'_> {
    /// For people.
    pub(super) fn table(&self) -> String {
        let (tally, missed) = (self.tally, self.missed);
        let pace = match self.pace {
            Pace::FlatOut => "flat out".to_owned(),
            Pace::Rate(per_second) => format!("{per_second} calls/s wanted"),
        };
        let (callers, connections) = (self.callers, self.connections);
        let mut text = format!(
            "{}: {pace}, callers {callers}, connections {connections}, {:.1} s\n\n",
            self.method,
            self.elapsed.as_secs_f64(),
        );
        let mut row = |name: &str, value: String| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name:<8} {value:>14}");
        };
        row("calls", tally.successes().to_string());
        row("errors", tally.failures().to_string());
        row("calls/s", format!("{:.0}", self.per_second()));
        if tally.successes() > 0 {
            for (name, share) in QUANTILES {
                row(name, ms(tally.quantile(share)));
            }
            row("max", ms(tally.max()));
        }
        if missed.late > 0 {
            let (count, max) = (missed.late, ms(missed.late_max));
            text += &format!(
                "\n{count} calls were sent late, by up to {max}: all callers were busy, or this machine was. \
                 Their latency counts from when they were due.\n"
            );
        }
        if missed.unsent > 0 {
            let count = missed.unsent;
            text += &format!(
                "\n{count} calls were due and not sent: all callers were busy to the end.\n"
            );
        }
        if tally.failures() > 0 {
            text += "\nerrors by code\n";
        }
        for (code, failed) in tally.by_code() {
            let (count, example) = (failed.count, printable(failed.example.text()));
            text += &format!("{count:>9}  {code}: {example}\n");
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let tally = self.tally;
        let us = |latency: Duration| latency.as_nanos() as f64 / 1e3;
        let mut latency: serde_json::Map<String, Value> = QUANTILES
            .iter()
            .map(|(name, share)| ((*name).to_owned(), us(tally.quantile(*share)).into()))
            .collect();
        latency.insert("max".to_owned(), us(tally.max()).into());
        let errors: Vec<Value> = tally
            .by_code()
            .iter()
            .map(|(code, failed)| {
                json!({
                    "code": code.number(),
                    "name": code.name(),
                    "count": failed.count,
                    "text": failed.example.text(),
                })
            })
            .collect();
        let rate = match self.pace {
            Pace::FlatOut => Value::Null,
            Pace::Rate(per_second) => per_second.into(),
        };
        json!({
            "method": self.method.to_string(),
            "callers": self.callers,
            "connections": self.connections,
            "rate": rate,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "calls": tally.successes(),
            "calls_per_s": self.per_second(),
            "latency_us": latency,
            "late": self.missed.late,
            "late_max_us": us(self.missed.late_max),
            "unsent": self.missed.unsent,
            "errors": tally.failures(),
            "errors_by_code": errors,
        })
    }

    fn per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        match seconds > 0.0 {
            true => self.tally.successes() as f64 / seconds,
            false => 0.0,
        }
    }
}

fn ms(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}
