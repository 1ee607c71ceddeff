//! The profiler, on the host's clock and on a device that is made up.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::timeline::{Events, Timeline};
use super::*;
use crate::driver::DriverError;

/// A stream on which the test says when work is done.
#[derive(Default)]
struct FakeStream {
    marks_us: Vec<Option<f64>>,
    /// When the next mark is.
    now_us: f64,
    /// Up to where work is done.
    done_us: f64,
    capturing: bool,
    broken: bool,
    waits: usize,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<FakeStream>>);

impl Fake {
    fn with<R>(&self, change: impl FnOnce(&mut FakeStream) -> R) -> R {
        change(&mut self.0.lock().unwrap())
    }

    fn work(&self, duration_us: f64) {
        self.with(|stream| stream.now_us += duration_us);
    }

    fn finish(&self) {
        self.with(|stream| stream.done_us = stream.now_us);
    }
}

impl Events for Fake {
    fn mark(&self, event: usize) -> Result<(), DriverError> {
        self.with(|stream| {
            assert!(!stream.capturing, "a mark in a capture has no time");
            if stream.broken {
                return Err(DriverError::Capturing { what: "a broken stream" });
            }
            stream.marks_us[event] = Some(stream.now_us);
            Ok(())
        })
    }

    fn is_complete(&self, event: usize) -> Result<bool, DriverError> {
        Ok(self.with(|stream| stream.marks_us[event].unwrap() <= stream.done_us))
    }

    fn wait(&self, event: usize) -> Result<(), DriverError> {
        self.with(|stream| {
            stream.waits += 1;
            stream.done_us = stream.done_us.max(stream.marks_us[event].unwrap());
        });
        Ok(())
    }

    fn elapsed_us(&self, start: usize, end: usize) -> Result<f64, DriverError> {
        assert!(self.is_complete(start)? && self.is_complete(end)?);
        let elapsed_us =
            self.with(|stream| stream.marks_us[end].unwrap() - stream.marks_us[start].unwrap());
        assert!(elapsed_us >= 0.0, "the driver is asked from the earlier to the later");
        // As the driver tells it.
        Ok(f64::from((elapsed_us * 1e-3) as f32) * 1e3)
    }

    fn is_capturing(&self) -> bool {
        self.with(|stream| stream.capturing)
    }
}

fn fake(pairs: usize, records: usize) -> (Profiler, Fake) {
    let fake = Fake::default();
    fake.with(|stream| stream.marks_us = vec![None; Timeline::events_for(pairs)]);
    let start = Instant::now();
    let timeline = Timeline::new(Box::new(fake.clone()), pairs, start).unwrap();
    fake.with(|stream| stream.waits = 0);
    let options = Options { records, event_pairs: pairs, nvtx: false };
    (Profiler::assemble(&Device::Cpu, options, start, Some(timeline)), fake)
}

fn wall(records: usize) -> Profiler {
    let options = Options { records, nvtx: false, ..Options::default() };
    Profiler::with_options(&Device::Cpu, options).unwrap()
}

fn trace(profiler: &Profiler) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    profiler.write_trace(&path).unwrap();
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn of_phase<'a>(trace: &'a Value, phase: &str) -> Vec<&'a Value> {
    trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == phase).collect()
}

fn span(event: &Value) -> (f64, f64) {
    let start_us = event["ts"].as_f64().unwrap();
    (start_us, start_us + event["dur"].as_f64().unwrap())
}

#[test]
fn device_times_are_those_between_the_events_of_nested_scopes() {
    let (profiler, stream) = fake(8, 100);
    for duration_us in [10.0, 30.0, 20.0] {
        let _step = profiler.scope("step");
        stream.work(1.0);
        profiler.measure("kernel", 40_000, || stream.work(duration_us));
    }
    assert_eq!(stream.with(|stream| stream.waits), 0, "a step waits for nothing");
    let report = profiler.report().unwrap();
    let close = |got: Option<f64>, expected: f64| (got.unwrap() - expected).abs() < 1e-3;
    let kernel = report.scope("kernel").unwrap();
    assert_eq!((kernel.count, kernel.untimed, kernel.bytes), (3, 0, 120_000));
    assert!(close(Some(kernel.total_us), 60.0) && close(kernel.mean_us, 20.0), "{kernel:?}");
    assert!(close(kernel.min_us, 10.0) && close(kernel.max_us, 30.0), "{kernel:?}");
    assert!(close(kernel.p50_us, 20.0) && close(kernel.p95_us, 30.0), "{kernel:?}");
    assert!(close(kernel.gb_per_s, 2.0), "{kernel:?}");
    let step = report.scope("step").unwrap();
    assert!(close(Some(step.total_us), 63.0) && step.gb_per_s.is_none(), "{step:?}");
    assert_eq!(report.clock, "events");
    let text = report.to_string();
    assert!(text.contains("kernel") && text.contains("20.00") && text.contains("GB/s"), "{text}");
}

#[test]
fn a_scope_that_finds_no_events_is_counted_and_waits_for_nothing() {
    let (profiler, stream) = fake(2, 100);
    let one = || profiler.measure("kernel", 8, || stream.work(5.0));
    (0..3).for_each(|_| one());
    stream.finish();
    (0..2).for_each(|_| one());
    assert_eq!(stream.with(|stream| stream.waits), 0);
    let report = profiler.report().unwrap();
    let kernel = report.scope("kernel").unwrap();
    assert_eq!((kernel.count, kernel.untimed, kernel.bytes), (4, 1, 32));
    assert!(report.to_string().contains("1 scopes have no device time"));
    // Few events serve any number of scopes.
    for _ in 0..1000 {
        one();
        stream.finish();
    }
    assert_eq!(profiler.report().unwrap().scope("kernel").unwrap().count, 1004);
}

#[test]
fn a_capture_has_no_times_and_is_not_disturbed() {
    let (profiler, stream) = fake(4, 100);
    let begun_before = profiler.scope("across");
    stream.with(|stream| stream.capturing = true);
    profiler.measure("captured", 8, || ());
    drop(begun_before);
    let refused = profiler.report();
    assert!(matches!(refused, Err(Error::Driver(DriverError::Capturing { .. }))), "{refused:?}");
    let start = Instant::now();
    assert!(Timeline::new(Box::new(stream.clone()), 1, start).is_err());
    stream.with(|stream| stream.capturing = false);
    // The events of the scope that has no time serve others.
    (0..4).for_each(|_| profiler.measure("after", 8, || stream.work(1.0)));
    let report = profiler.report().unwrap();
    let counts = |name| report.scope(name).map(|scope| (scope.count, scope.untimed)).unwrap();
    assert_eq!((counts("across"), counts("captured"), counts("after")), ((0, 1), (0, 1), (4, 0)));
    assert_eq!(report.scope("across").unwrap().mean_us, None);
}

#[test]
fn a_failed_call_is_told_once_and_what_was_measured_stays() {
    let (profiler, stream) = fake(4, 100);
    profiler.measure("kernel", 0, || stream.work(7.0));
    stream.with(|stream| stream.broken = true);
    profiler.measure("kernel", 0, || ());
    stream.with(|stream| stream.broken = false);
    assert!(profiler.report().is_err());
    let report = profiler.report().unwrap();
    let kernel = report.scope("kernel").unwrap();
    assert_eq!((kernel.count, kernel.untimed), (1, 1));
}

#[test]
fn places_on_the_device_stay_exact_for_an_hour() {
    let (profiler, stream) = fake(4, 4000);
    for _ in 0..3600 {
        stream.work(999_990.0);
        profiler.measure("kernel", 0, || stream.work(10.0));
        stream.finish();
    }
    let trace = trace(&profiler);
    let on_device: Vec<_> =
        of_phase(&trace, "X").into_iter().filter(|event| event["cat"] == "device").collect();
    assert_eq!(on_device.len(), 3600);
    let (first, last) = (span(on_device[0]).0, span(on_device[3599]).0);
    // An f32 of an hour's milliseconds is a quarter of a millisecond wide.
    assert!((last - first - 3599.0 * 1e6).abs() < 100.0, "{}", last - first);
}

#[test]
fn a_trace_has_lanes_nesting_order_and_microseconds() {
    let (profiler, stream) = fake(16, 100);
    for _ in 0..2 {
        let _step = profiler.scope("step");
        profiler.measure("forward", 1000, || {
            stream.work(100.0);
            thread::sleep(Duration::from_millis(2));
        });
        profiler.measure("backward", 2000, || stream.work(200.0));
        profiler.count("clip_activations", 3);
    }
    let trace = trace(&profiler);
    let complete = of_phase(&trace, "X");
    assert_eq!(complete.len(), 12, "six scopes on two processes");
    for (cat, pid) in [("host", 1), ("device", 2)] {
        let lane: Vec<_> = complete.iter().filter(|event| event["cat"] == cat).collect();
        let names: Vec<_> = lane.iter().map(|event| event["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["step", "forward", "backward"].repeat(2));
        assert!(lane.iter().all(|event| event["pid"] == pid && event["tid"] == 1));
        for step in lane.chunks(3) {
            let [step, forward, backward] = [span(step[0]), span(step[1]), span(step[2])];
            assert!(step.0 <= forward.0 && forward.1 <= backward.0 && backward.1 <= step.1);
        }
    }
    let forward = |cat| {
        let found = complete.iter().find(|event| event["name"] == "forward" && event["cat"] == cat);
        *found.unwrap()
    };
    assert!(forward("host")["dur"].as_f64() >= Some(2000.0), "{}", forward("host"));
    assert!((forward("device")["dur"].as_f64().unwrap() - 100.0).abs() < 1e-3);
    assert_eq!(forward("device")["args"]["bytes"], 1000);
    assert_eq!(forward("host")["args"]["sequence"], forward("device")["args"]["sequence"]);

    let totals: Vec<_> = of_phase(&trace, "C").iter().map(|e| &e["args"]["total"]).collect();
    assert_eq!(totals, [3, 6]);
    let timed = |event: &&Value| event["ph"] != "M";
    let events = trace["traceEvents"].as_array().unwrap();
    let times: Vec<_> = events.iter().filter(timed).map(|e| e["ts"].as_f64().unwrap()).collect();
    assert!(times.is_sorted());
    let lanes = of_phase(&trace, "M");
    let named = |kind: &str, pid: u32| lanes.iter().any(|e| e["name"] == kind && e["pid"] == pid);
    assert!(named("process_name", 1) && named("process_name", 2));
    assert!(named("thread_name", 1) && named("thread_name", 2));
}

#[test]
fn an_inner_event_is_cut_to_the_outer_one() {
    let (profiler, _stream) = fake(4, 100);
    let mut state = profiler.inner.as_ref().unwrap().lock();
    for (depth, sequence, start_us, duration_us) in
        [(1, 1, 9.9, 50.0), (0, 0, 10.0, 40.0), (1, 3, 60.0, 1.0), (0, 2, 61.0, 1.0)]
    {
        let (mut record, _) = state.open(None, "scope");
        let host = (start_us, duration_us);
        (record.depth, record.sequence) = (depth, sequence);
        (record.host_start_us, record.host_us) = host;
        state.close(record, None);
    }
    drop(state);
    let trace = trace(&profiler);
    let spans: Vec<_> = of_phase(&trace, "X").into_iter().map(span).collect();
    assert_eq!(spans, [(10.0, 50.0), (10.0, 50.0), (61.0, 62.0), (61.0, 61.0)]);
}

#[test]
fn threads_have_lanes_of_their_own() {
    let profiler = wall(100);
    let outer = profiler.scope("main");
    let other = profiler.clone();
    let worker = thread::Builder::new().name("worker".into());
    worker.spawn(move || drop(other.scope("side"))).unwrap().join().unwrap();
    drop(outer);
    let trace = trace(&profiler);
    let mut lanes: Vec<_> = of_phase(&trace, "X").iter().map(|event| &event["tid"]).collect();
    lanes.dedup();
    assert_eq!(lanes, [1, 2]);
    let names: Vec<_> = of_phase(&trace, "M").iter().map(|e| &e["args"]["name"]).collect();
    assert!(names.contains(&&Value::from("worker")), "{names:?}");
    assert_eq!(trace["otherData"]["device"], "cpu");
}

#[test]
fn without_a_gpu_times_are_the_hosts() {
    let profiler = wall(100);
    profiler.measure("nap", 0, || thread::sleep(Duration::from_millis(3)));
    let report = profiler.report().unwrap();
    let nap = report.scope("nap").unwrap();
    assert_eq!((report.clock, nap.count, nap.untimed), ("wall", 1, 0));
    assert!(nap.total_us >= 3000.0 && nap.total_us == nap.host_mean_us, "{nap:?}");
}

#[test]
fn memory_is_bounded_and_totals_are_not_cut() {
    let profiler = wall(4);
    for _ in 0..10 {
        profiler.measure("scope", 0, || ());
        profiler.count("things", 2);
    }
    let report = profiler.report().unwrap();
    assert_eq!(report.scope("scope").unwrap().count, 10);
    assert_eq!((report.dropped_records, report.dropped_samples), (6, 6));
    assert_eq!(report.counter("things"), Some(20));
    let trace = trace(&profiler);
    assert_eq!((of_phase(&trace, "X").len(), of_phase(&trace, "C").len()), (4, 4));
    assert_eq!(of_phase(&trace, "C")[3]["args"]["total"], 20);
}

#[test]
fn telemetry_overhead_stands_where_both_sides_were_measured() {
    let (profiler, stream) = fake(8, 100);
    profiler.measure(FORWARD, 0, || stream.work(12.0));
    assert_eq!(profiler.report().unwrap().comparisons, []);
    profiler.measure(FORWARD_WITHOUT_TELEMETRY, 0, || stream.work(10.0));
    profiler.compare("nothing", "no such", FORWARD);
    let report = profiler.report().unwrap();
    let [overhead] = &report.comparisons[..] else { panic!("{report:?}") };
    assert_eq!(overhead.name, TELEMETRY_OVERHEAD);
    assert!((overhead.difference_us - 2.0).abs() < 1e-3, "{overhead:?}");
    assert!((overhead.percent - 20.0).abs() < 0.1, "{overhead:?}");
    assert!(report.to_string().contains("telemetry overhead: +2.00 µs (+20.0 %)"), "{report}");
}

#[test]
fn labels_keep_scopes_counters_and_comparisons_apart() {
    let (profiler, stream) = fake(16, 100);
    for (label, duration_us) in [("first", 30.0), ("second", 11.0)] {
        let layer = profiler.labelled(label);
        layer.measure(FORWARD, 1000, || stream.work(duration_us));
        layer.measure(FORWARD_WITHOUT_TELEMETRY, 0, || stream.work(10.0));
        layer.count(CLIP_ACTIVATIONS, duration_us as u64);
    }
    profiler.measure(FORWARD, 0, || stream.work(1.0));
    let report = profiler.report().unwrap();
    let total_us = |label| report.scope_of(label, FORWARD).unwrap().total_us.round();
    assert_eq!((total_us("first"), total_us("second"), report.scopes.len()), (30.0, 11.0, 5));
    assert_eq!(report.counter(CLIP_ACTIVATIONS), Some(41));
    let overheads: Vec<_> =
        report.comparisons.iter().map(|c| (c.label.as_deref(), c.percent.round())).collect();
    assert_eq!(overheads, [(Some("first"), 200.0), (Some("second"), 10.0)]);
    assert!(report.to_string().contains("second: telemetry overhead: +1.00 µs"), "{report}");
    let trace = trace(&profiler);
    let labels: Vec<_> = of_phase(&trace, "X").iter().map(|e| &e["args"]["label"]).collect();
    assert_eq!(labels.iter().filter(|label| ***label == "first").count(), 4, "{labels:?}");
    assert_eq!(of_phase(&trace, "C")[1]["name"], "second: clip_activations");
}

#[test]
fn a_profiler_measures_its_own_device() {
    let profiler = wall(1);
    assert!(profiler.measures(&Device::Cpu) && !profiler.measures(&Device::simt()));
    assert!(Profiler::disabled().measures(&Device::simt()));
    assert!(profiler.labelled("layer").measures(&Device::Cpu));
}

#[test]
fn a_disabled_profiler_has_nothing_to_say() {
    let profiler = Profiler::disabled();
    assert!(!profiler.is_enabled());
    assert_eq!(profiler.measure("scope", 8, || 7), 7);
    profiler.count("things", 1);
    profiler.compare("a", "b", "c");
    profiler.reset().unwrap();
    assert_eq!(profiler.report().unwrap(), Report::default());
    assert_eq!(trace(&profiler)["traceEvents"], serde_json::json!([]));
}

#[test]
fn after_a_reset_only_newer_scopes_count() {
    let profiler = wall(100);
    profiler.measure("warm-up", 0, || ());
    profiler.count("things", 5);
    let open = profiler.scope("across");
    profiler.reset().unwrap();
    drop(open);
    profiler.count("things", 1);
    let report = profiler.report().unwrap();
    let names: Vec<_> = report.scopes.iter().map(|scope| scope.name.as_str()).collect();
    assert_eq!((names, report.counter("things")), (vec!["across"], Some(1)));
}

#[test]
fn a_report_is_json_with_units_in_its_names() {
    let profiler = wall(100);
    profiler.measure("scope", 8, || ());
    let report = serde_json::to_value(profiler.report().unwrap()).unwrap();
    let scope = &report["scopes"][0];
    for field in ["total_us", "mean_us", "min_us", "max_us", "p50_us", "p95_us", "host_mean_us"] {
        assert!(scope[field].as_f64() >= Some(0.0), "{field}: {scope}");
    }
    assert_eq!((&scope["name"], &scope["count"]), (&"scope".into(), &1.into()));
}

#[test]
fn a_trace_that_cannot_be_written_names_its_place_and_leaves_what_was_there() {
    let profiler = wall(100);
    let error = profiler.write_trace(Path::new("/no/such/folder/trace.json")).unwrap_err();
    assert!(error.to_string().starts_with("cannot write /no/such/folder/trace.json: "), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let error = profiler.write_trace(folder.path()).unwrap_err();
    assert!(matches!(error, ProfileError::Write { .. }), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    profiler.write_trace(Path::new("/dev/null")).unwrap();
}
