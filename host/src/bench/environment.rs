//! What a run's times hold for: device, driver, clocks, commit, date.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::record::{ArtifactHeader, Clocks, GpuHeader, Header};
use super::timer::Plan;
use crate::device::{Device, Gpu};

/// The commit, where the sources are not at hand: a hash, followed by `-dirty` for sources with changes.
const COMMIT_VARIABLE: &str = "KASMINA_COMMIT";

/// The header of a run that begins now.
pub(crate) fn header(device: &Device, plan: Plan) -> Header {
    let (commit, dirty) = commit();
    let gpu = match device {
        Device::Cuda(gpu) => Some(gpu_header(gpu)),
        Device::Cpu | Device::Simt(_) => None,
    };
    let (name, processor) = match device {
        Device::Cuda(gpu) => (gpu.device().info().name.clone(), None),
        Device::Cpu | Device::Simt(_) => (device.to_string(), Some(processor())),
    };
    Header {
        device: name,
        kind: device.name().to_owned(),
        processor,
        gpu,
        commit,
        dirty,
        date: utc(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())),
        warm_up: plan.warm_up,
        samples: plan.samples,
        peers: None,
    }
}

/// The processor, as Linux names it, and its threads.
fn processor() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = told.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {threads} threads", name.map_or("unknown processor", |(_, name)| name))
}

/// Clocks now, where `nvidia-smi` is there and tells.
pub(crate) fn clocks(gpu: &Gpu) -> Option<Clocks> {
    let fields = "clocks.sm,clocks.mem,pstate,temperature.gpu,power.draw";
    let answer = nvidia_smi(gpu, fields)?;
    let [sm, memory, state, temperature, power] =
        answer.split(',').map(str::trim).collect::<Vec<_>>().try_into().ok()?;
    Some(Clocks {
        sm_mhz: sm.parse().ok()?,
        memory_mhz: memory.parse().ok()?,
        power_state: state.to_owned(),
        temperature_c: temperature.parse().ok()?,
        power_w: power.parse().ok()?,
    })
}

fn gpu_header(gpu: &Gpu) -> GpuHeader {
    let info = gpu.device().info();
    let artifact = gpu.artifact();
    // Two transfers a clock.
    let peak_gb_per_s =
        2.0 * f64::from(info.memory_clock_khz) * f64::from(info.memory_bus_bits) / 8.0 * 1e-6;
    GpuHeader {
        capability: info.compute_capability.to_string(),
        sm_count: info.sm_count,
        l2_bytes: info.l2_bytes,
        memory_bytes: info.total_memory_bytes as u64,
        peak_gb_per_s: (peak_gb_per_s > 0.0).then_some(peak_gb_per_s),
        cuda: gpu.device().driver_version().to_string(),
        driver: nvidia_smi(gpu, "driver_version"),
        artifact: ArtifactHeader {
            target: artifact.target.clone(),
            ptx_version: artifact.ptx_version.clone(),
            generator: artifact.generator.clone(),
            sha256: Some(artifact.sha256.clone()),
        },
        copy_gb_per_s: None,
        clocks_before: clocks(gpu),
        clocks_after: None,
    }
}

fn nvidia_smi(gpu: &Gpu, fields: &str) -> Option<String> {
    let query = format!("--query-gpu={fields}");
    let id = &gpu.device().info().pci_id;
    output("nvidia-smi", &["-i", id, &query, "--format=csv,noheader,nounits"])
}

fn commit() -> (Option<String>, Option<bool>) {
    if let Ok(given) = std::env::var(COMMIT_VARIABLE) {
        let clean = given.strip_suffix("-dirty");
        return (Some(clean.unwrap_or(&given).to_owned()), Some(clean.is_some()));
    }
    // Of the folder that this was built from, if it is still there: not of the one it runs in.
    let sources = env!("CARGO_MANIFEST_DIR");
    let commit = output("git", &["-C", sources, "rev-parse", "HEAD"]);
    let changes = output("git", &["-C", sources, "status", "--porcelain"]);
    let changes = changes.filter(|_| commit.is_some());
    (commit, changes.map(|changes| !changes.is_empty()))
}

/// What a program prints, without the space around it; `None` where it is missing or fails.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Seconds since 1970 as a date and time of day.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, so that the leap day is a year's last; 400 of them are an era.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = 400 * era + year + next;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(utc(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn a_program_that_is_missing_or_fails_has_no_output() {
        assert_eq!(output("kasmina-no-such-program", &[]), None);
        assert_eq!(output("false", &[]), None);
        assert_eq!(output("echo", &["a ", "b"]), Some("a  b".into()));
    }
}
