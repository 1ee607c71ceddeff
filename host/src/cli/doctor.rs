//! `kasmina doctor`: what this machine has, what it lacks, and how to get it.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use kasmina_kernel_builder::{Finding, probe};
use serde::Serialize;

use super::output::Json;
use super::{Failure, Status};
use crate::artifacts;
use crate::driver::{
    self, ComputeCapability, CudaDevice, DeviceInfo, NVTX_VARIABLE, Nvtx, PtxVersion,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    json: Json,
}

/// The result for programs.
#[derive(Serialize)]
struct Diagnosis {
    items: Vec<Item>,
}

/// One thing that was looked for.
#[derive(Debug, Serialize)]
struct Item {
    /// What it serves.
    serves: &'static str,
    item: String,
    status: Found,
    /// What and where it is, or why it is not there.
    detail: String,
    /// What to do, where something can be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Found {
    Found,
    Missing,
}

const RUNNING: &str = "running kernels";
const BUILDING: &str = "rebuilding the PTX";
const LOOKING: &str = "profiling and checking";
const PEERS: &str = "measuring peers";

/// Passes on every machine: the executor runs the kernels where nothing else does.
pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let items = diagnose();
    let mut serves = "";
    for item in &items {
        if item.serves != serves {
            serves = item.serves;
            arguments.json.say(format!("\n{serves}"))?;
        }
        arguments.json.say(item)?;
    }
    arguments.json.write(&Diagnosis { items })?;
    Ok(Status::Pass)
}

fn diagnose() -> Vec<Item> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let here = format!("runs the kernels on the CPU, {threads} threads");
    let mut items = vec![Item::found(RUNNING, "executor", here), libcuda()];
    let newest = driver_version(&mut items);
    items.extend(carried(newest));
    items.extend(devices(newest));
    items.extend(probe().into_iter().map(|one| match one.finding {
        Finding::Found(detail) => Item::found(BUILDING, one.item, detail),
        Finding::Missing(why) => Item::missing(BUILDING, one.item, "not found", why),
    }));
    items.extend(TOOLS.map(|(serves, name, fix)| match program(name) {
        Some(path) => Item::found(serves, name, path.display()),
        None => Item::missing(serves, name, "not in PATH, nor in a CUDA toolkit", fix),
    }));
    items.push(nvtx());
    items.extend(PACKAGES.map(python_package));
    items
}

fn nvtx() -> Item {
    match Nvtx::find() {
        Ok(library) => Item::found(LOOKING, "NVTX", library.path().display()),
        Err(missing) => {
            tracing::debug!(%missing, "no NVTX");
            let fix = format!(
                "install a CUDA toolkit or pip's nvidia-nvtx, and set {NVTX_VARIABLE} to its library; \
                 without it scopes are no ranges in Nsight Systems"
            );
            Item::missing(LOOKING, "NVTX", "no libnvToolsExt nor libnvtx3interop", fix)
        }
    }
}

fn libcuda() -> Item {
    match kasmina_libcuda::load() {
        Ok(library) => Item::found(RUNNING, "libcuda", library.path().display()),
        Err(error) => {
            // The loader's reasons begin with the name that was tried.
            let tried: Vec<_> = error.tried.iter().map(|attempt| &*attempt.reason).collect();
            let fix = format!(
                "install the NVIDIA driver, or set {} to its libcuda.so.1; without it kernels run \
                 under the executor",
                kasmina_libcuda::NAME_VARIABLE
            );
            Item::missing(RUNNING, "libcuda", tried.join("\n"), fix)
        }
    }
}

/// The newest PTX that the driver takes, if there is one.
fn driver_version(items: &mut Vec<Item>) -> Option<PtxVersion> {
    match driver::driver_version() {
        Ok(version) => {
            let newest = version.max_ptx_version();
            let detail = format!("CUDA {version}, takes PTX up to {newest}");
            items.push(Item::found(RUNNING, "CUDA driver", detail));
            Some(newest)
        }
        Err(_) => {
            let fix = "install the NVIDIA driver";
            items.push(Item::missing(RUNNING, "CUDA driver", "no libcuda", fix));
            None
        }
    }
}

/// The PTX that this build carries, against what the driver takes.
fn carried(newest: Option<PtxVersion>) -> Vec<Item> {
    let item = |artifact: &artifacts::Artifact| {
        let record = &artifact.record;
        let detail = format!("PTX {}, {}", record.ptx_version, record.generator);
        let mut item = Item::found(RUNNING, format!("PTX for {}", record.target), detail);
        let (major, minor) = (record.capability / 10, record.capability % 10);
        let taken = |newest| {
            let own = artifacts::candidates(ComputeCapability { major, minor }, newest);
            own.iter().any(|candidate| candidate.record.file == record.file)
        };
        if let Some(newest) = newest.filter(|&newest| !taken(newest)) {
            item.fix =
                Some(format!("newer than the driver's {newest}: update the driver to use it"));
        }
        item
    };
    artifacts::all().iter().map(item).collect()
}

fn devices(newest: Option<PtxVersion>) -> Vec<Item> {
    match CudaDevice::enumerate() {
        Ok(found) => found.iter().map(|info| device(info, newest)).collect(),
        Err(why) if newest.is_none() => {
            tracing::debug!(%why, "no devices");
            vec![Item::missing(RUNNING, "GPU", "no driver to ask", "install the NVIDIA driver")]
        }
        Err(why) => {
            let fix = "see that the GPU is there (lspci, nvidia-smi) and visible \
                       (CUDA_VISIBLE_DEVICES)";
            vec![Item::missing(RUNNING, "GPU", why, fix)]
        }
    }
}

fn device(info: &DeviceInfo, newest: Option<PtxVersion>) -> Item {
    let DeviceInfo { ordinal, name, compute_capability, sm_count, .. } = info;
    let gib = info.total_memory_bytes as f64 / f64::from(1 << 30);
    let detail =
        format!("{name}, compute capability {compute_capability}, {sm_count} SMs, {gib:.0} GiB");
    let candidates =
        newest.map_or(Vec::new(), |newest| artifacts::candidates(*compute_capability, newest));
    let item = format!("GPU {ordinal}");
    match candidates.first() {
        Some(artifact) => Item::found(RUNNING, item, format!("{detail}; runs {}", artifact.record)),
        None => {
            let fix = "no PTX of this build fits: update the driver, or use a GPU of compute \
                       capability 7.0 or newer";
            Item::missing(RUNNING, item, detail, fix)
        }
    }
}

/// Programs beside the kernels.
const TOOLS: [(&str, &str, &str); 4] = [
    (LOOKING, "ncu", "install Nsight Compute (nsight-compute of NVIDIA's CUDA repository)"),
    (LOOKING, "nsys", "install Nsight Systems (nsight-systems of NVIDIA's CUDA repository)"),
    (
        LOOKING,
        "compute-sanitizer",
        "install cuda-sanitizer of NVIDIA's CUDA repository, or pip's nvidia-cuda-sanitizer-api",
    ),
    (LOOKING, "nvidia-smi", "comes with the NVIDIA driver; `bench` reads clocks from it"),
];

/// Python packages of the peers.
const PACKAGES: [(&str, &str); 3] = [
    ("torch", "pip install torch"),
    ("triton", "comes with torch on Linux"),
    ("cupy", "pip install cupy-cuda13x"),
];

/// A program in PATH or in a CUDA toolkit.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let toolkit = env::var_os("CUDA_HOME").unwrap_or_else(|| "/usr/local/cuda".into());
    env::split_paths(&path)
        .chain([Path::new(&toolkit).join("bin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Looks without importing, which takes seconds.
fn python_package((name, fix): (&'static str, &'static str)) -> Item {
    let look = format!(
        "import importlib.util as u; s = u.find_spec('{name}'); print(s.origin if s else '')"
    );
    match Command::new("python3").args(["-c", &look]).output() {
        Err(why) => Item::missing(PEERS, name, format!("python3: {why}"), "install python3"),
        Ok(answer) => match String::from_utf8_lossy(&answer.stdout).trim() {
            "" => Item::missing(PEERS, name, "python3 does not find it", fix),
            place => Item::found(PEERS, name, place),
        },
    }
}

/// One line: what was looked for and what was found; and one with the way to mend it.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Found::Found => "found",
            Found::Missing => "missing",
        };
        write!(f, "  {status:8} {:18} {}", self.item, self.detail.replace('\n', "; "))?;
        match &self.fix {
            Some(fix) => write!(f, "\n{:30}→ {fix}", ""),
            None => Ok(()),
        }
    }
}

impl Item {
    fn found(serves: &'static str, item: impl Into<String>, detail: impl ToString) -> Self {
        let (item, detail) = (item.into(), detail.to_string());
        Self { serves, item, status: Found::Found, detail, fix: None }
    }

    fn missing(
        serves: &'static str,
        item: impl Into<String>,
        detail: impl ToString,
        fix: impl Into<String>,
    ) -> Self {
        let (item, detail, fix) = (item.into(), detail.to_string(), Some(fix.into()));
        Self { serves, item, status: Found::Missing, detail, fix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_the_executor_and_a_fix_for_all_that_is_missing() {
        let items = diagnose();
        assert_eq!((items[0].item.as_str(), items[0].status), ("executor", Found::Found));
        for item in &items {
            let helped = item.fix.as_ref().is_some_and(|fix| !fix.is_empty());
            assert!(item.status == Found::Found || helped, "{item:?}");
        }
        for name in [
            "libcuda",
            "CUDA driver",
            "compiler",
            "ptxas",
            "ncu",
            "compute-sanitizer",
            "NVTX",
            "torch",
        ] {
            assert!(items.iter().any(|item| item.item == name), "{name}: {items:?}");
        }
        assert!(
            items.iter().filter(|item| item.item.starts_with("PTX for ")).count()
                == artifacts::all().len()
        );
        assert!(items.iter().any(|item| item.item.starts_with("GPU")));
    }

    #[test]
    fn json_has_a_status_for_each_item() {
        let text = serde_json::to_value(Diagnosis { items: diagnose() }).unwrap();
        for item in text["items"].as_array().unwrap() {
            assert!(["found", "missing"].contains(&item["status"].as_str().unwrap()), "{item}");
            assert!(item["item"].is_string() && item["detail"].is_string());
        }
    }

    #[test]
    fn a_program_is_found_in_path() {
        assert!(program("sh").is_some_and(|path| path.is_file()));
        assert_eq!(program("kasmina-no-such-program"), None);
    }

    #[test]
    fn ptx_that_the_driver_does_not_take_says_so() {
        for item in carried(Some(PtxVersion { major: 1, minor: 0 })) {
            assert!(item.fix.unwrap().contains("driver's 1.0"));
        }
        assert!(carried(None).iter().all(|item| item.fix.is_none()));
    }
}
