//! Traces in Chrome's Trace Event Format, which Perfetto and `chrome://tracing` open.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::error::ProfileError;
use super::record::{Record, Span};
use super::state::State;
use crate::kasmina::files::write_file_with;

/// The two processes of a trace: what the host did, and what the device did.
const HOST: u32 = 1;
const DEVICE: u32 = 2;

/// A trace; times are in microseconds.
#[derive(Serialize)]
pub(super) struct Trace {
    #[serde(rename = "traceEvents")]
    events: Vec<Value>,
    #[serde(rename = "displayTimeUnit")]
    display_time_unit: &'static str,
    #[serde(rename = "otherData")]
    other: Value,
}

/// The trace of a profiler that measures nothing.
pub(super) fn empty() -> Trace {
    Trace { events: Vec::new(), display_time_unit: "ns", other: json!({}) }
}

/// The trace of the records and samples that are kept, in the order of time.
pub(super) fn of(state: &State, device: &str, device_name: &str) -> Trace {
    let mut events = metadata(state, device_name);
    let mut timed = Vec::new();
    for thread in 0..state.threads.len() {
        let records = state.records.iter().filter(|record| record.thread == thread);
        let host = records.clone().map(|record| {
            let (start_us, duration_us) = (record.host_start_us, record.host_us);
            (record, Span { start_us, duration_us })
        });
        lane(state, HOST, host, &mut timed);
        let device = records.filter_map(|record| Some((record, record.device?)));
        lane(state, DEVICE, device, &mut timed);
    }
    for sample in state.samples.iter() {
        let event = json!({
            "name": state.counters[sample.counter].id.title(),
            "ph": "C",
            "ts": sample.time_us,
            "pid": HOST,
            "args": { "total": sample.total },
        });
        timed.push((sample.time_us, event));
    }
    // Stable: of events that begin together the outer stays first.
    timed.sort_by(|a, b| a.0.total_cmp(&b.0));
    events.extend(timed.into_iter().map(|(_, event)| event));
    let other = json!({
        "device": device,
        "device_name": device_name,
        "dropped_records": state.records.dropped(),
        "dropped_samples": state.samples.dropped(),
    });
    Trace { events, display_time_unit: "ns", other }
}

/// Names of processes and lanes.
fn metadata(state: &State, device_name: &str) -> Vec<Value> {
    let named = |kind: &str, pid: u32, tid: usize, name: &str| json!({ "name": kind, "ph": "M", "pid": pid, "tid": tid, "args": { "name": name } });
    let sorted = |pid: u32| {
        let args = json!({ "sort_index": pid });
        json!({ "name": "process_sort_index", "ph": "M", "pid": pid, "tid": 0, "args": args })
    };
    let mut events = vec![named("process_name", HOST, 0, "host"), sorted(HOST)];
    for (tid, thread) in state.threads.iter().enumerate() {
        events.push(named("thread_name", HOST, tid + 1, &thread.name));
    }
    if state.has_device_times() {
        events.extend([named("process_name", DEVICE, 0, device_name), sorted(DEVICE)]);
        for (tid, thread) in state.threads.iter().enumerate() {
            let name = format!("stream, from {}", thread.name);
            events.push(named("thread_name", DEVICE, tid + 1, &name));
        }
    }
    events
}

/// The complete events of one thread in one process, the outer before the inner.
///
/// A viewer takes an event that reaches past the one around it, or into the one after it, for a mistake. Times of the
/// device are rounded, so an event may do so by nanoseconds: it is cut.
fn lane<'a>(
    state: &State,
    pid: u32,
    records: impl Iterator<Item = (&'a Record, Span)>,
    timed: &mut Vec<(f64, Value)>,
) {
    let mut records: Vec<_> = records.collect();
    records.sort_by_key(|(record, _)| record.sequence);
    let mut around: Vec<(u32, f64, f64)> = Vec::new();
    for (record, span) in records {
        let (mut start_us, mut end_us) =
            (in_ticks(span.start_us), in_ticks(span.start_us + span.duration_us));
        while let Some(before) = around.pop_if(|outer| outer.0 >= record.depth) {
            start_us = start_us.max(before.2);
        }
        end_us = end_us.max(start_us);
        if let Some(&(_, outer_start_us, outer_end_us)) = around.last() {
            start_us = start_us.clamp(outer_start_us, outer_end_us);
            end_us = end_us.clamp(start_us, outer_end_us);
        }
        around.push((record.depth, start_us, end_us));
        let mut args = json!({ "sequence": record.sequence });
        let id = &state.names[record.name].id;
        if let Some(label) = state.label_of(id) {
            args["label"] = label.into();
        }
        if record.bytes > 0 {
            args["bytes"] = record.bytes.into();
            if span.duration_us > 0.0 {
                args["gb_per_s"] = (record.bytes as f64 / span.duration_us * 1e-3).into();
            }
        }
        let event = json!({
            "name": id.name,
            "cat": if pid == HOST { "host" } else { "device" },
            "ph": "X",
            "ts": start_us,
            "dur": end_us - start_us,
            "pid": pid,
            "tid": record.thread + 1,
            "args": args,
        });
        timed.push((start_us, event));
    }
}

/// To 2⁻¹⁰ µs, about a nanosecond. Such times, up to a hundred days, have sums and differences without an error: a
/// viewer that adds `dur` to `ts` gets the very end, so that nesting is exact.
fn in_ticks(time_us: f64) -> f64 {
    (time_us * 1024.0).round() / 1024.0
}

/// Writes a trace whole or not at all.
pub(super) fn write(path: &Path, trace: &Trace) -> Result<(), ProfileError> {
    write_file_with(path, |file| Ok(serde_json::to_writer(file, trace)?))
        .map_err(|source| ProfileError::Write { path: path.to_owned(), source })
}
