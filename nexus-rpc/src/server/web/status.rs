//! What is being served, and to whom.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::pages::{Form, Page, html_page, json_page, text_page};
use crate::server::serving::{MethodEntry, Serving};
use crate::server::stats::Snapshot;

/// Connections that are listed.
const LISTED_MAX: usize = 1000;

/// A method's numbers, in all and of late.
struct MethodNumbers<'a> {
    entry: &'a MethodEntry,
    all: Snapshot,
    recent: Snapshot,
    calls_per_second: f64,
}

fn numbers(serving: &Serving) -> (Duration, Vec<MethodNumbers<'_>>) {
    let (window, before) = serving.recent.before();
    let methods = serving.methods().iter().enumerate();
    let numbers = methods.map(|(i, entry)| {
        let all = entry.stats.snapshot();
        let recent = match before.get(i) {
            Some(before) => all.since(before),
            None => all.clone(),
        };
        MethodNumbers {
            calls_per_second: recent.calls() as f64 / window.as_secs_f64().max(1.0),
            entry,
            all,
            recent,
        }
    });
    let numbers = numbers.collect();
    (window, numbers)
}

pub(super) fn status(serving: &Serving, form: Form) -> Page {
    let (window, methods) = numbers(serving);
    match form {
        Form::Json => json_page(200, &as_json(serving, window, &methods)),
        Form::Html => html_page("status", &as_text(serving, window, &methods)),
        Form::Text => text_page(as_text(serving, window, &methods)),
    }
}

fn as_json(serving: &Serving, window: Duration, methods: &[MethodNumbers<'_>]) -> Value {
    let methods: Vec<Value> = methods
        .iter()
        .map(|method| {
            let descriptor = method.entry.descriptor;
            json!({
                "service": descriptor.service,
                "method": descriptor.name,
                "in_flight": method.entry.limiter.in_flight(),
                "concurrency_limit": limit(method.entry.limiter.limit()),
                "calls_per_second": method.calls_per_second,
                "all": part_json(&method.all),
                "recent": part_json(&method.recent),
            })
        })
        .collect();
    json!({
        "status": if serving.is_draining() { "draining" } else { "serving" },
        "uptime_seconds": serving.started.elapsed().as_secs(),
        "in_flight": serving.limiter.in_flight(),
        "concurrency_limit": limit(serving.limiter.limit()),
        "connections": serving.connections.count(),
        "workers": {
            "queued": serving.pool.metrics().queued(),
            "running": serving.pool.metrics().running(),
            "refused": serving.pool.metrics().refused(),
            "panicked": serving.pool.metrics().panicked(),
        },
        "recent_seconds": window.as_secs(),
        "methods": methods,
    })
}

fn limit(limit: usize) -> Option<usize> {
    (limit < usize::MAX).then_some(limit)
}

fn part_json(part: &Snapshot) -> Value {
    let micros = |of: f64| part.percentile(of).map(|latency| latency.as_micros());
    json!({
        "calls": part.calls(),
        "errors": part.errors,
        "refused": part.refused,
        "request_bytes": part.request_bytes,
        "response_bytes": part.response_bytes,
        "latency_us": {
            "mean": part.latency_us.checked_div(part.calls()),
            "p50": micros(0.5),
            "p90": micros(0.9),
            "p99": micros(0.99),
            "p999": micros(0.999),
            "max": micros(1.0),
        },
    })
}

fn as_text(serving: &Serving, window: Duration, methods: &[MethodNumbers<'_>]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{}, up {} s; {} connections, {} calls in work (limit {}), {} waiting for a worker\n",
        if serving.is_draining() {
            "draining"
        } else {
            "serving"
        },
        serving.started.elapsed().as_secs(),
        serving.connections.count(),
        serving.limiter.in_flight(),
        limit_text(serving.limiter.limit()),
        serving.pool.metrics().queued(),
    );
    for method in methods {
        let descriptor = method.entry.descriptor;
        let _ = writeln!(
            text,
            "{}/{}: {} in work (limit {}), {:.1} calls/s",
            descriptor.service,
            descriptor.name,
            method.entry.limiter.in_flight(),
            limit_text(method.entry.limiter.limit()),
            method.calls_per_second,
        );
        let recent = format!("last {} s", window.as_secs());
        for (name, part) in [("in all", &method.all), (recent.as_str(), &method.recent)] {
            let _ = write!(
                text,
                "  {name:<10} {} calls, {} errors, {} refused",
                part.calls(),
                part.errors,
                part.refused
            );
            for (name, of) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
                if let Some(latency) = part.percentile(of) {
                    let _ = write!(text, ", {name} {latency:?}");
                }
            }
            text.push('\n');
        }
    }
    text
}

fn limit_text(of: usize) -> String {
    limit(of).map_or("none".to_owned(), |limit| limit.to_string())
}

pub(super) fn connections(serving: &Serving, form: Form) -> Page {
    let (count, listed) = (
        serving.connections.count(),
        serving.connections.list(LISTED_MAX),
    );
    if form == Form::Json {
        let listed: Vec<Value> = listed
            .iter()
            .map(|calls| {
                json!({
                    "peer": calls.peer().to_string(),
                    "protocol": calls.protocol(),
                    "open_seconds": calls.opened().elapsed().as_secs(),
                    "calls": calls.total(),
                    "in_flight": calls.in_flight(),
                })
            })
            .collect();
        return json_page(200, &json!({ "count": count, "connections": listed }));
    }
    let mut text = format!("{count} connections\n\n");
    for calls in &listed {
        let _ = writeln!(
            text,
            "{} {}: open for {} s, {} calls, {} in work",
            calls.peer(),
            calls.protocol(),
            calls.opened().elapsed().as_secs(),
            calls.total(),
            calls.in_flight(),
        );
    }
    match form {
        Form::Html => html_page("connections", &text),
        _ => text_page(text),
    }
}
