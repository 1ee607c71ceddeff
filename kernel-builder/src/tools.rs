//! Where NVIDIA's tools may be: a variable, the `PATH`, `CUDA_HOME`, the wheels of the `python3` on the `PATH`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The file that a variable names, if it is set.
pub(crate) fn from_variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The programs of that name on the `PATH` and in `CUDA_HOME`.
pub(crate) fn programs(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.extend(cuda_home().map(|home| home.join("bin")));
    folders.into_iter().map(|folder| folder.join(name)).filter(|file| file.is_file()).collect()
}

/// The root of a CUDA toolkit, if `CUDA_HOME` names one.
pub(crate) fn cuda_home() -> Option<PathBuf> {
    from_variable("CUDA_HOME")
}

/// The folders of NVIDIA's wheels, such as `…/site-packages/nvidia/cu13`, in the order of their names.
pub(crate) fn wheel_folders() -> &'static [PathBuf] {
    static FOLDERS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        let mut folders: Vec<PathBuf> = site_packages()
            .iter()
            .filter_map(|site| fs::read_dir(site.join("nvidia")).ok())
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_dir())
            .collect();
        folders.sort();
        folders.dedup();
        folders
    })
}

/// The wheel folders of `python3`; none where there is no Python.
fn site_packages() -> Vec<PathBuf> {
    const QUESTION: &str =
        "import sysconfig; p = sysconfig.get_paths(); print(p['purelib']); print(p['platlib'])";
    let Ok(answer) = Command::new("python3").args(["-c", QUESTION]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&answer.stdout).lines().map(PathBuf::from).collect()
}

/// The version of `python3`, if there is one.
pub(crate) fn python_version() -> Option<String> {
    let answer = Command::new("python3").arg("--version").output().ok()?;
    answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}

/// The release that a CUDA program names in `--version`: `release 13.5, V13.5.37`.
pub(crate) fn cuda_release(program: &Path) -> Option<(u32, u32)> {
    let answer = Command::new(program).arg("--version").output().ok()?;
    parse_release(&String::from_utf8_lossy(&answer.stdout))
}

fn parse_release(text: &str) -> Option<(u32, u32)> {
    let number = text.split_once("release ")?.1.split(',').next()?;
    let (major, minor) = number.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_of_a_cuda_program() {
        assert_eq!(parse_release("Cuda compilation tools, release 12.9, V12.9.86"), Some((12, 9)));
        assert_eq!(parse_release("ptxas"), None);
    }
}
