//! Calls through the trampolines, with a small library in the driver's place, and with none.
//!
//! Each case needs a process of its own, as the driver is loaded once: the test runs itself again.

use std::ffi::c_void;
use std::path::Path;
use std::process::{Command, Output};
use std::{env, fs, ptr};

use cust_raw::{CUdevice_attribute, CUresult};
use kasmina_libcuda as libcuda;

const CASE: &str = "KASMINA_LIBCUDA_TEST_CASE";

/// Stands in for libcuda: each entry answers something that shows which arguments reached it.
const FAKE_DRIVER: &str = r#"
use std::ffi::c_void;

#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: u32) -> i32 {
    if flags == 0 { 0 } else { 1 }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(value: *mut i32, attribute: i32, device: i32) -> i32 {
    unsafe { value.write(attribute * 100 + device) };
    0
}

// Eleven arguments: some of them lie on the stack.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    f: *mut c_void, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32,
    stream: *mut c_void, parameters: *mut *mut c_void, extra: *mut *mut c_void,
) -> i32 {
    let digits = [gx, gy, gz, bx, by, bz, shared].iter().fold(0, |sum, digit| sum * 10 + digit);
    let pointers = (f as usize, stream as usize, parameters as usize, extra as usize);
    if digits == 1234567 && pointers == (11, 12, 13, 14) { 0 } else { 1 }
}

#[unsafe(no_mangle)]
extern "C" fn cuEntryOfTomorrow(value: u32) -> u32 {
    value + 1
}
"#;

#[test]
fn a_driver_is_called_with_all_arguments() {
    if !is_case("fake") {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("fake.rs"), folder.path().join("libfake.so"));
        fs::write(&source, FAKE_DRIVER).unwrap();
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let built = Command::new(rustc)
            .args(["--edition", "2024", "--crate-type", "cdylib", "-o"])
            .args([&library, &source])
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        return run_case("a_driver_is_called_with_all_arguments", "fake", &library);
    }

    let mut value = 0;
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE;
    let pointer = ptr::without_provenance_mut::<c_void>;
    // SAFETY: the fake's entries write only through `value`, and take the other pointers as numbers.
    unsafe {
        let before = cust_raw::cuDeviceGetAttribute(&mut value, attribute, 7);
        assert_eq!(before, CUresult::CUDA_ERROR_NOT_INITIALIZED);
        assert_eq!(cust_raw::cuInit(0), CUresult::CUDA_SUCCESS);
        assert_eq!(cust_raw::cuInit(1), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(
            cust_raw::cuDeviceGetAttribute(&mut value, attribute, 7),
            CUresult::CUDA_SUCCESS
        );
        assert_eq!(value, 1007);
        let launched = cust_raw::cuLaunchKernel(
            pointer(11).cast(),
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            pointer(12).cast(),
            pointer(13).cast(),
            pointer(14).cast(),
        );
        assert_eq!(launched, CUresult::CUDA_SUCCESS);
        assert_eq!(
            cust_raw::cuCtxSynchronize(),
            CUresult::CUDA_ERROR_NOT_FOUND,
            "the fake has no such entry"
        );
    }

    let library = libcuda::load().unwrap();
    assert_eq!(library.path(), libcuda::names_tried()[0]);
    // SAFETY: the fake declares it so.
    let tomorrow = unsafe { library.symbol::<extern "C" fn(u32) -> u32>(c"cuEntryOfTomorrow") };
    assert_eq!(tomorrow.unwrap()(41), 42);
    // SAFETY: there is no such entry.
    assert!(unsafe { library.symbol::<extern "C" fn()>(c"cuEntryOfNobody") }.is_none());
}

#[test]
fn without_a_driver_calls_answer_no_device() {
    if !is_case("none") {
        return run_case(
            "without_a_driver_calls_answer_no_device",
            "none",
            Path::new("/no/such/libcuda.so"),
        );
    }
    match libcuda::load() {
        Err(error) => {
            let names: Vec<_> = error.tried.iter().map(|attempt| attempt.name.clone()).collect();
            assert_eq!(names, libcuda::names_tried());
            // What the dynamic loader says of a file that is not there.
            assert!(
                error.to_string().contains("/no/such/libcuda.so: cannot open shared object"),
                "{error}"
            );
            let mut text = ptr::null();
            // SAFETY: `cuInit` takes any flags, and `text` is writable.
            unsafe {
                assert_eq!(cust_raw::cuInit(0), CUresult::CUDA_ERROR_NO_DEVICE);
                assert_eq!(cust_raw::cuCtxSynchronize(), CUresult::CUDA_ERROR_NO_DEVICE);
                let no_device = CUresult::CUDA_ERROR_NO_DEVICE;
                assert_eq!(
                    cust_raw::cuGetErrorString(no_device, &mut text),
                    CUresult::CUDA_SUCCESS
                );
            }
            assert!(!text.is_null());
        }
        // The machine has a driver: the bad first name is passed over.
        Ok(library) => {
            assert_eq!(library.path().file_stem().unwrap().to_str().unwrap()[..7], *"libcuda")
        }
    }
}

fn is_case(case: &str) -> bool {
    env::var(CASE).is_ok_and(|value| value == case)
}

/// Runs one test of this file again, in a process where `library` is the first name to try.
#[track_caller]
fn run_case(test: &str, case: &str, library: &Path) {
    let Output { status, stdout, stderr } =
        Command::new(env::current_exe().expect("Linux names it"))
            .args(["--exact", test, "--nocapture"])
            .env(CASE, case)
            .env(libcuda::NAME_VARIABLE, library)
            .output()
            .expect("the test itself can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        status.success() && text(&stdout).contains("1 passed"),
        "{}{}",
        text(&stdout),
        text(&stderr)
    );
}
