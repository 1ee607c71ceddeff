//! What other libraries took for the same operations: the records of `benches/peers/run.py`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::record::{Document, PeerTime, PeerVersions, Row, RowClocks};
use super::timer::{Cache, Mode};
use super::{BenchError, COPY};

/// The peers' records of one run.
#[derive(Debug)]
pub struct Peers {
    path: PathBuf,
    environment: Option<PeerVersions>,
    measurements: Vec<Measurement>,
}

/// One line of the file.
#[derive(Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
enum Line {
    Environment(PeerVersions),
    Measurement(MeasurementLine),
}

/// A measurement that passed, or one that did not and has no times.
#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum MeasurementLine {
    Pass(Measurement),
    Fail {},
    Skipped {},
}

#[derive(Debug, Deserialize)]
struct Measurement {
    operation: String,
    peer: String,
    dtype: String,
    shape: Vec<usize>,
    mode: Mode,
    median_us: f64,
    #[serde(default)]
    clocks: Option<RowClocks>,
}

/// Reads a file of JSON lines. Measurements that failed or were skipped are left out.
///
/// # Errors
/// A file that cannot be read, or a line that is no record.
pub fn read(path: &Path) -> Result<Peers, BenchError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| BenchError::File { path: path.to_owned(), source })?;
    let mut peers = Peers { path: path.to_owned(), environment: None, measurements: Vec::new() };
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let record = serde_json::from_str(line).map_err(|source| BenchError::Json {
            path: path.to_owned(),
            line: number + 1,
            expected: "a record of benches/peers/run.py",
            source,
        })?;
        match record {
            Line::Environment(environment) => peers.environment = Some(environment),
            Line::Measurement(MeasurementLine::Pass(measurement)) => {
                peers.measurements.push(measurement);
            }
            Line::Measurement(MeasurementLine::Fail {} | MeasurementLine::Skipped {}) => {}
        }
    }
    Ok(peers)
}

impl Peers {
    /// Adds each measurement to the rows of the same operation, shape, element type and way of timing.
    ///
    /// # Errors
    /// Peers of another GPU.
    pub fn merge_into(self, document: &mut Document) -> Result<(), BenchError> {
        if let Some(environment) = &self.environment
            && environment.device != document.header.device
        {
            return Err(BenchError::OtherDevice {
                path: self.path,
                expected: document.header.device.clone(),
                got: environment.device.clone(),
            });
        }
        for row in &mut document.rows {
            let times = self.measurements.iter().filter(|peer| peer.is_of(row)).map(|peer| {
                let ratio = peer.median_us / row.median_us;
                let (name, clocks) = (peer.peer.clone(), peer.clocks.clone());
                PeerTime { peer: name, median_us: peer.median_us, ratio, clocks }
            });
            row.peers = times.collect();
        }
        document.header.peers = self.environment;
        Ok(())
    }
}

impl Measurement {
    /// The peers rotate their buffers as cold rows do; their operation says which state they use.
    fn is_of(&self, row: &Row) -> bool {
        let Some((kernel, variant)) = kernel_of(&self.operation) else { return false };
        // What is all arithmetic is timed warm alone.
        let cache = if kernel == "transfer_entropy" { Cache::Warm } else { Cache::Cold };
        (row.kernel.as_str(), row.variant.as_str()) == (kernel, variant)
            && row.dtype == self.dtype
            && row.shape == self.shape
            && (row.mode, row.cache) == (self.mode, cache)
    }
}

/// The kernel, and the variant of its cases, that does what an operation of the peers does.
fn kernel_of(operation: &str) -> Option<(&'static str, &'static str)> {
    match operation {
        "copy" => Some((COPY, "whole")),
        "layer_forward" => Some(("blend_forward", "v1")),
        // Without telemetry, which the kernel has.
        "layer_forward_autograd" => Some(("blend_forward", "third")),
        // Forward and backward.
        "layer_step" => Some(("layer_step", "third")),
        "gelu_layer_norm" => Some(("activation_norm", "gelu_layer")),
        "gelu_layer_norm_backward" => Some(("activation_norm_backward", "gelu_layer")),
        "silu_rms_norm" => Some(("activation_norm", "silu_rms")),
        "silu_rms_norm_backward" => Some(("activation_norm_backward", "silu_rms")),
        "layer_norm" => Some(("activation_norm", "layer")),
        "layer_norm_backward" => Some(("activation_norm_backward", "layer")),
        "linear_bf16" => Some(("linear", "bf16")),
        "linear_f16" => Some(("linear", "f16")),
        "linear_tf32" => Some(("linear", "tf32")),
        // Without the GELU; sums are added in f32 now and then, or not.
        "linear_fp8" => Some(("linear", "fp8")),
        "linear_fp8_fast" => Some(("linear", "fp8-fast")),
        "sum" => Some(("reduce_sum", "whole")),
        "max" => Some(("reduce_max", "whole")),
        "transfer_entropy_surrogates" => Some(("transfer_entropy", "surrogates")),
        "belief_step" => Some(("belief_step", "one_step")),
        // With the mean, which a pass for the variance has as well.
        "var_mean" => Some(("reduce_variance", "whole")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::example;
    use super::*;

    const LINES: &str = r#"
{"record": "environment", "device": "NVIDIA H200", "multiprocessors": 132, "l2_bytes": 62914560, "driver": "580", "commit": "c", "cuda": "13.0", "torch": "2.11", "triton": "3.6", "cupy": null}
{"record": "measurement", "operation": "layer_forward", "peer": "compile", "dtype": "f32", "shape": [4096, 1000, 64], "bytes": 1, "status": "pass", "mode": "event", "samples": 30, "median_us": 663.0}
{"record": "measurement", "operation": "layer_forward", "peer": "compile", "dtype": "f32", "shape": [4096, 1000, 64], "bytes": 1, "status": "pass", "mode": "graph", "samples": 30, "median_us": 650.0, "clocks": {"readings": 7, "sm_mhz": 1755, "sm_min_mhz": 1740, "sm_max_mhz": 1980, "power_w": 612.25, "power_state": "P0", "limits": []}}
{"record": "measurement", "operation": "layer_forward", "peer": "eager", "dtype": "f32", "shape": [4096, 1000, 64], "status": "fail", "max_rel_error": null}
{"record": "measurement", "operation": "layer_forward", "peer": "compile", "dtype": "f32", "shape": [32, 1000, 64], "status": "pass", "mode": "event", "median_us": 1.0}
{"record": "measurement", "operation": "sum", "peer": "cupy", "status": "skipped", "reason": "cupy is not installed"}
"#;

    fn read_text(text: &str) -> Result<Peers, BenchError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn a_peer_goes_to_the_row_of_its_operation_shape_and_mode() {
        let mut document = example();
        read_text(LINES).unwrap().merge_into(&mut document).unwrap();
        let peers: Vec<_> = document.rows.iter().map(|row| row.peers.len()).collect();
        assert_eq!(peers, [1, 1, 0], "event, graph, and another operation");
        let [event, graph, _] = &document.rows[..] else { panic!("three rows") };
        assert_eq!((event.peers[0].peer.as_str(), event.peers[0].median_us), ("compile", 663.0));
        assert_eq!(event.peers[0].ratio, 663.0 / event.median_us);
        assert_eq!(event.peers[0].clocks, None);
        let said = format!("compile 650.0 µs ({:.2}×; 1755 MHz, 612 W)", 650.0 / graph.median_us);
        assert_eq!(graph.peers[0].to_string(), said);
        assert_eq!(document.header.peers.unwrap().torch.as_deref(), Some("2.11"));
    }

    #[test]
    fn a_training_step_goes_to_the_case_with_its_state() {
        let mut document = example();
        document.rows[0].kernel = "layer_step".into();
        document.rows[0].variant = "third".into();
        document.rows[1].variant = "third".into();
        let step = LINES.replace("layer_forward", "layer_step");
        let forward = LINES.replace("layer_forward", "layer_forward_autograd");
        let both = format!("{step}{forward}");
        read_text(&both).unwrap().merge_into(&mut document).unwrap();
        let times = |row: usize| -> Vec<_> {
            document.rows[row].peers.iter().map(|peer| peer.median_us).collect()
        };
        assert_eq!((times(0), times(1), times(2)), (vec![663.0], vec![650.0], vec![]));
    }

    #[test]
    fn peers_of_another_gpu_are_refused() {
        let mut document = example();
        document.header.device = "another".into();
        let error = read_text(LINES).unwrap().merge_into(&mut document);
        assert!(matches!(error, Err(BenchError::OtherDevice { got, .. }) if got == "NVIDIA H200"));
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        let error = read_text("\n{\"record\": \"measurement\", \"status\": \"pass\"}\n");
        assert!(matches!(error, Err(BenchError::Json { line: 2, .. })), "{error:?}");
    }
}
