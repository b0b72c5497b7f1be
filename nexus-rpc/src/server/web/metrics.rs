//! The counters as Prometheus reads them.

use std::fmt::Error;
use std::sync::Arc;
use std::time::Duration;

use nexus_net::{LAG_BUCKETS, LoopMetrics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::pages::Page;
use crate::server::serving::{MethodEntry, Serving};
use crate::server::stats::Snapshot;

pub(super) fn page(serving: &Arc<Serving>) -> Page {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Counters(Arc::clone(serving))));
    let mut text = String::new();
    match prometheus_text::encode(&mut text, &registry) {
        Ok(()) => Page::new(200, "text/plain; version=0.0.4; charset=utf-8", text),
        Err(error) => {
            log::error!("the metrics cannot be written: {error}");
            Page::plain(500, "the metrics cannot be written")
        }
    }
}

/// A provider's counters, read when they are asked for.
struct Counters(Arc<Serving>);

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

type Labels = [(&'static str, String); 2];

impl Collector for Counters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let serving = &self.0;
        let encoder = &mut encoder;
        self.methods(encoder)?;
        let pool = serving.pool.metrics();
        let whole = |value: usize| [(NONE, value as f64)];
        gauge(
            encoder,
            "nexus_rpc_in_flight",
            "Calls in work.",
            whole(serving.limiter.in_flight()),
        )?;
        gauge(
            encoder,
            "nexus_rpc_concurrency_limit",
            "Calls that may be in work.",
            whole(serving.limiter.limit()),
        )?;
        gauge(
            encoder,
            "nexus_rpc_connections",
            "Open connections.",
            whole(serving.connections.count()),
        )?;
        gauge(
            encoder,
            "nexus_rpc_draining",
            "1 while the provider drains.",
            whole(usize::from(serving.is_draining())),
        )?;
        gauge(
            encoder,
            "nexus_rpc_workers_queued",
            "Calls that wait for a worker.",
            whole(pool.queued()),
        )?;
        gauge(
            encoder,
            "nexus_rpc_workers_running",
            "Workers that run a call.",
            whole(pool.running()),
        )?;
        counter(
            encoder,
            "nexus_rpc_workers_refused",
            "Calls that found the queue full.",
            [(NONE, pool.refused() as f64)],
        )?;
        counter(
            encoder,
            "nexus_rpc_workers_panicked",
            "Calls whose handler panicked on a worker.",
            [(NONE, pool.panicked() as f64)],
        )?;
        self.loops(encoder)
    }
}

/// A bucket's bound that the encoder writes as `+Inf`.
const INFINITE: f64 = f64::MAX;

const NONE: [(&str, String); 0] = [];

impl Counters {
    fn methods(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let methods: Vec<(&MethodEntry, Labels, Snapshot)> = self
            .0
            .methods()
            .iter()
            .map(|method| {
                let descriptor = method.descriptor;
                let labels = [
                    ("service", descriptor.service.to_owned()),
                    ("method", descriptor.name.to_owned()),
                ];
                (method, labels, method.stats.snapshot())
            })
            .collect();
        let of = |value: fn(&MethodEntry, &Snapshot) -> f64| {
            methods
                .iter()
                .map(move |(method, labels, all)| (labels.clone(), value(method, all)))
        };
        counter(
            encoder,
            "nexus_rpc_errors",
            "Calls that ran and failed.",
            of(|_, all| all.errors as f64),
        )?;
        counter(
            encoder,
            "nexus_rpc_refused",
            "Calls that were refused before they ran.",
            of(|_, all| all.refused as f64),
        )?;
        counter(
            encoder,
            "nexus_rpc_request_bytes",
            "Bytes of requests.",
            of(|_, all| all.request_bytes as f64),
        )?;
        counter(
            encoder,
            "nexus_rpc_response_bytes",
            "Bytes of answers.",
            of(|_, all| all.response_bytes as f64),
        )?;
        gauge(
            encoder,
            "nexus_rpc_method_in_flight",
            "Calls of the method in work.",
            of(|method, _| method.limiter.in_flight() as f64),
        )?;
        let mut family = encoder.encode_descriptor(
            "nexus_rpc_latency_seconds",
            "Calls that ran, by the time from their arrival to their answer.",
            None,
            MetricType::Histogram,
        )?;
        for (_, labels, all) in &methods {
            let mut buckets: Vec<(f64, u64)> = all
                .octaves()
                .map(|(bound, calls)| (bound.as_secs_f64(), calls))
                .collect();
            if let Some((bound, _)) = buckets.last_mut() {
                *bound = INFINITE;
            }
            family
                .encode_family(labels)?
                .encode_histogram::<NoLabelSet>(
                    Duration::from_micros(all.latency_us).as_secs_f64(),
                    all.calls(),
                    &buckets,
                    None,
                )?;
        }
        Ok(())
    }

    fn loops(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let loops = &self.0.loops;
        let of = |value: fn(&LoopMetrics) -> f64| {
            loops
                .iter()
                .enumerate()
                .map(move |(i, handle)| ([("loop", i.to_string())], value(handle.metrics())))
        };
        counter(
            encoder,
            "nexus_net_turns",
            "Turns of the loop.",
            of(|loop_| loop_.turns() as f64),
        )?;
        counter(
            encoder,
            "nexus_net_events",
            "Readiness events.",
            of(|loop_| loop_.events() as f64),
        )?;
        counter(
            encoder,
            "nexus_net_tasks",
            "Tasks from other threads.",
            of(|loop_| loop_.tasks() as f64),
        )?;
        counter(
            encoder,
            "nexus_net_read_bytes",
            "Bytes read.",
            of(|loop_| loop_.bytes_read() as f64),
        )?;
        counter(
            encoder,
            "nexus_net_written_bytes",
            "Bytes written.",
            of(|loop_| loop_.bytes_written() as f64),
        )?;
        counter(
            encoder,
            "nexus_net_busy_seconds",
            "Time spent in turns.",
            of(|loop_| loop_.busy().as_secs_f64()),
        )?;
        counter(
            encoder,
            "nexus_net_handshakes_failed",
            "Connections that never opened.",
            of(|loop_| loop_.handshakes_failed() as f64),
        )?;
        gauge(
            encoder,
            "nexus_net_connections",
            "Connections of the loop.",
            of(|loop_| loop_.connections() as f64),
        )?;
        gauge(
            encoder,
            "nexus_net_timers",
            "Live timers.",
            of(|loop_| loop_.timers() as f64),
        )?;
        let mut family = encoder.encode_descriptor(
            "nexus_net_turn_seconds",
            "Turns by how long they took.",
            None,
            MetricType::Histogram,
        )?;
        for (i, handle) in loops.iter().enumerate() {
            let lags = handle.metrics().lags();
            let buckets: Vec<(f64, u64)> = (0..LAG_BUCKETS)
                .zip(lags)
                .map(|(bucket, turns)| {
                    let bound = LoopMetrics::lag_bound(bucket);
                    (bound.map_or(INFINITE, |bound| bound.as_secs_f64()), turns)
                })
                .collect();
            family
                .encode_family(&[("loop", i.to_string())])?
                .encode_histogram::<NoLabelSet>(
                    handle.metrics().busy().as_secs_f64(),
                    lags.iter().sum(),
                    &buckets,
                    None,
                )?;
        }
        Ok(())
    }
}

fn counter<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, f64)>,
) -> Result<(), Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        family
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, f64, f64>(&value, None)?;
    }
    Ok(())
}

fn gauge<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, f64)>,
) -> Result<(), Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}
