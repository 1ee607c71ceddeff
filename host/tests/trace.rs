//! `kasmina trace` as a program, and what a profiled step costs the host.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::process::{Command, Output};

use kasmina::Device;
use kasmina::profile::Profiler;
use serde_json::Value;

/// The system's allocator, which counts what the calling thread asks of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came; the counter is a plain thread-local that allocates
// nothing and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn kasmina<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kasmina")).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn trace(folder: &Path, more: &str) -> (Output, Value) {
    let path = folder.join("trace.json");
    let arguments = ["trace", "--output", path.to_str().unwrap(), "--json", "-"];
    let output = kasmina(arguments.into_iter().chain(more.split_whitespace()));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    (output, serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
}

fn complete<'a>(trace: &'a Value, name: &str) -> Vec<&'a Value> {
    let events = trace["traceEvents"].as_array().unwrap();
    events.iter().filter(|event| event["ph"] == "X" && event["name"] == name).collect()
}

#[test]
fn a_trace_has_each_step_with_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    for device in ["cpu", "simt"] {
        let shape = "--steps 3 --batch 5 --seeds 7 --chunk 9";
        let (output, trace) = trace(folder.path(), &format!("--device {device} {shape}"));
        let [steps, forward, backward, clip, without] = [
            "step",
            "blend_forward",
            "blend_backward",
            "gradient_clip",
            "blend_forward without telemetry",
        ]
        .map(|name| complete(&trace, name));
        for events in [&steps, &forward, &backward, &clip, &without] {
            assert_eq!(events.len(), 3, "{device}");
        }
        for (((step, forward), backward), without) in
            steps.iter().zip(&forward).zip(&backward).zip(&without)
        {
            let begin = |event: &Value| event["ts"].as_f64().unwrap();
            let end = |event: &Value| begin(event) + event["dur"].as_f64().unwrap();
            assert!(begin(step) <= begin(forward) && end(forward) <= begin(backward));
            assert!(end(backward) <= end(step) && end(step) <= begin(without));
            let tensor_bytes = 4 * 5 * 7 * 9;
            assert_eq!(forward["args"]["bytes"], 2 * tensor_bytes);
            assert_eq!(backward["args"]["bytes"], 3 * tensor_bytes);
            for event in [forward, backward, without] {
                assert_eq!(event["args"]["label"], "layer", "{event}");
            }
        }
        // Six blueprints' weights and scales, and the seeds' α: read for the norm, read again and written.
        assert_eq!(clip[0]["args"]["bytes"], 3 * 4 * (6 * 9 + 6 + 7));
        assert_eq!(complete(&trace, "telemetry read").len(), 1);
        assert_eq!(trace["otherData"]["device"], device);

        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["device"], &report["clock"]), (&device.into(), &"wall".into()));
        assert_eq!((&report["steps"], &report["chunk_size"]), (&3.into(), &9.into()));
        let scopes = report["scopes"].as_array().unwrap();
        let forward = scopes.iter().find(|scope| scope["name"] == "blend_forward").unwrap();
        assert_eq!((&forward["count"], &forward["bytes"]), (&3.into(), &(3 * 2520).into()));
        assert!(forward["gb_per_s"].as_f64() > Some(0.0));
        let overhead = &report["comparisons"][0];
        assert_eq!(
            (&overhead["name"], &overhead["label"]),
            (&"telemetry overhead".into(), &"layer".into())
        );
        let counters = report["counters"].as_array().unwrap();
        assert_eq!((&counters[0]["name"], &counters[0]["total"]), (&"rows".into(), &15.into()));
        let clipped = counters.iter().find(|counter| counter["name"] == "clip_activations");
        // Every blueprint and 'none' in each of the three steps, whose gradients are far above the limit.
        assert_eq!(clipped.map(|counter| &counter["total"]), Some(&(3 * 6).into()), "{device}");
        assert!(stderr(&output).contains("blend_forward") && stderr(&output).contains("perfetto"));
    }
}

#[test]
fn wrong_arguments_end_with_2_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    for (more, why) in [
        ("--device cpu --steps 0", "--steps"),
        ("--device cpu --batch 0", "--batch"),
        ("--device cpu --batch 9223372036854775807 --chunk 4", "take fewer"),
        ("--device cpu --batch 1 --seeds 1 --chunk 4294967296", "take fewer"),
        ("--device cpu --batch 2147483648 --seeds 1 --chunk 1", "at most 2147483647"),
    ] {
        let arguments = ["trace", "--output", path.to_str().unwrap()];
        let output = kasmina(arguments.into_iter().chain(more.split_whitespace()));
        assert_eq!(output.status.code(), Some(2), "{more}: {}", stderr(&output));
        assert!(stderr(&output).contains(why), "{more}: {}", stderr(&output));
        assert!(!path.exists(), "{more}");
    }
    let output = kasmina(["trace", "--device", "cpu", "--output", "/no/such/folder/trace.json"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("/no/such/folder/trace.json: the folder does not"));
}

/// Through a library made here, which writes down the ranges it is told of.
#[test]
fn a_layers_passes_are_nvtx_ranges_with_its_name() {
    const SOURCE: &str = r#"
        #include <stdio.h>
        #include <stdlib.h>
        static int depth;
        static void note(const char* what, const char* name) {
            FILE* file = fopen(getenv("FAKE_NVTX_LOG"), "a");
            fprintf(file, "%s %s\n", what, name);
            fclose(file);
        }
        int nvtxRangePushA(const char* name) { note("push", name); return depth++; }
        int nvtxRangePop(void) { note("pop", "-"); return --depth; }
    "#;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("fake.c"), SOURCE).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([at("libfake.so"), at("fake.c")])
        .status();
    if !built.is_ok_and(|status| status.success()) {
        // The linker that Rust needs is a C compiler almost everywhere.
        eprintln!("skipped: there is no `cc` to make a library with");
        return;
    }
    let status = Command::new(env!("CARGO_BIN_EXE_kasmina"))
        .args("trace --device cpu --steps 2 --batch 2 --seeds 3 --chunk 4 --output".split(' '))
        .arg(at("trace.json"))
        .envs([("KASMINA_NVTX", at("libfake.so")), ("FAKE_NVTX_LOG", at("log"))])
        .output()
        .unwrap()
        .status;
    assert!(status.success());
    let log = std::fs::read_to_string(at("log")).unwrap();
    let lines: Vec<_> = log.lines().collect();
    let step = [
        "push step",
        "push layer: blend_forward",
        "pop -",
        "push layer: blend_backward",
        "pop -",
        "push layer: gradient_clip",
        "pop -",
        "pop -",
        "push layer: blend_forward without telemetry",
        "pop -",
    ];
    assert_eq!(lines[..20], step.repeat(2));
    assert_eq!(lines[20..], ["push layer: telemetry read", "pop -"]);
}

/// Under a limit of address space that its tensors of 4 GB pass.
#[test]
#[cfg(target_os = "linux")]
fn exhausted_memory_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let limited = "ulimit -v 3000000 && exec \"$0\" trace --device cpu --batch 1000000 --seeds 1000 \
                   --chunk 1 --output \"$1\"";
    let output = Command::new("sh")
        .args(["-c", limited, env!("CARGO_BIN_EXE_kasmina"), path.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{:?}: {}", output.status, stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("4000000000 bytes") && said.contains("lower the batch"), "{said}");
    assert!(!path.exists());
}

#[test]
fn a_profiled_step_allocates_nothing() {
    for profiler in [Profiler::new(&Device::Cpu).unwrap(), Profiler::disabled()] {
        let step = || {
            let _step = profiler.scope("step");
            profiler.measure("forward", 8, || ());
            profiler.count("rows", 1);
        };
        // The first makes the names known.
        step();
        let before = ALLOCATIONS.get();
        (0..1000).for_each(|_| step());
        assert_eq!(ALLOCATIONS.get() - before, 0);
    }
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![1]));
    assert_eq!(ALLOCATIONS.get() - before, 1, "the counter counts");
}
