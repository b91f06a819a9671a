//! Compares our walk over a buffer, and our callback ids, with the real libcupti, on buffers written by hand: it walks
//! those without a GPU and without a driver.
//!
//! Run: tests/cupti/fetch_wheels.sh && cargo test -p cupti-sys --test oracle
//! Each library is loaded in a process of its own, since two CUPTIs in one get into each other's way.

mod wheels;

use cupti_sys::constants::*;
use cupti_sys::functions::Functions;
use cupti_sys::layouts::{Strides, record_size};
use cupti_sys::names::callback_name;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::CStr;
use std::path::Path;
use std::process::Command;

/// Names the library for the child process.
const LIBRARY: &str = "COLONEL_TEST_LIBCUPTI";

/// Kinds that 12.x knows and 13.0 dropped, which we don't list.
const DROPPED: [u32; 16] = [6, 7, 14, 15, 16, 21, 23, 24, 29, 30, 31, 32, 41, 42, 43, 44];

#[test]
fn cupti_12_4() {
    compare_in_child("12.4.127", "libcupti.so.12");
}

#[test]
fn cupti_12_8() {
    compare_in_child("12.8.90", "libcupti.so.12");
}

#[test]
fn cupti_12_9() {
    compare_in_child("12.9.79", "libcupti.so.12");
}

#[test]
fn cupti_13_0() {
    compare_in_child("13.0.85", "libcupti.so.13");
}

#[test]
#[ignore = "needs tests/cupti/fetch_wheels.sh --all"]
fn cupti_13_1() {
    compare_in_child("13.1.115", "libcupti.so.13");
}

/// From 13.2 on the library answers only beside the driver, and says the size of each kind itself.
#[test]
#[ignore = "needs NVIDIA's driver, a GPU is not used"]
fn cupti_13_3_and_13_5_beside_the_driver() {
    compare_in_child("13.3.75", "libcupti.so.13");
    compare_in_child("13.5.25", "libcupti.so.13");
}

fn compare_in_child(release: &str, file: &str) {
    let library = wheels::cupti(release).join("lib").join(file);
    assert!(library.is_file(), "no `{}`", library.display());
    let output = Command::new(std::env::current_exe().expect("a test has a file"))
        .args(["--exact", "compare_with_library", "--ignored", "--nocapture"])
        .env(LIBRARY, &library)
        .output()
        .expect("a test can be run again");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "CUPTI {release}: {}\n{stdout}\n{stderr}",
        output.status
    );
    assert!(
        stdout.contains("1 passed"),
        "CUPTI {release}: the comparison did not run\n{stdout}"
    );
}

#[test]
#[ignore = "run by the tests above, in a process of its own"]
fn compare_with_library() {
    let Some(path) = std::env::var_os(LIBRARY) else { return };
    let oracle = Oracle::load(Path::new(&path));
    oracle.compare_struct_sizes();
    oracle.compare_strides();
    oracle.compare_walks_over_mixed_buffers();
    oracle.compare_where_walks_stop();
    oracle.compare_callback_names();
    oracle.compare_result_names();
}

struct Oracle {
    functions: Functions,
    api_version: u32,
}

impl Oracle {
    fn load(path: &Path) -> Self {
        // SAFETY: NVIDIA's driver, where there is one.
        if let Ok(driver) = unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOW | RTLD_LOCAL) } {
            std::mem::forget(driver);
        }
        // SAFETY: NVIDIA's library, from its wheel.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.expect("the library loads");
        // SAFETY: it is a libcupti, and the next line keeps it.
        let functions = unsafe { Functions::lookup(&library) };
        std::mem::forget(library);
        let mut api_version = 0;
        // SAFETY: the function writes the version.
        let result = unsafe { functions.cuptiGetVersion.expect("cuptiGetVersion")(&raw mut api_version) };
        assert_eq!(result_name(result), "CUPTI_SUCCESS");
        Self { functions, api_version }
    }

    /// Offsets of all records that the library finds in the buffer, and the result at which it stops.
    fn walk(&self, buffer: &mut [u64], valid: usize) -> (Vec<usize>, u32) {
        assert!(valid <= size_of_val(buffer));
        let next = self
            .functions
            .cuptiActivityGetNextRecord
            .expect("cuptiActivityGetNextRecord");
        let mut record = std::ptr::null_mut();
        let mut offsets = Vec::new();
        loop {
            // SAFETY: `valid` bytes of the buffer are there, and `record` is null or from the last call.
            let result = unsafe { next(buffer.as_mut_ptr().cast(), valid, &raw mut record) };
            if result != SUCCESS {
                return (offsets, result);
            }
            offsets.push(record.addr() - buffer.as_ptr().addr());
        }
    }

    /// The sizes that the library itself gives, since 13.2.
    fn compare_struct_sizes(&self) {
        let Some(get_size) = self.functions.cuptiActivityGetStructSize else {
            assert!(self.api_version < API_VERSION_13_2);
            return;
        };
        for kind in 1..64 {
            let mut size = 0;
            // SAFETY: the function writes the size.
            let result = unsafe { get_size(kind, 0, &raw mut size) };
            if result == SUCCESS || record_size(kind, self.api_version).is_some() {
                assert_eq!(
                    record_size(kind, self.api_version),
                    Some(size),
                    "kind {kind}: {}",
                    result_name(result)
                );
            }
        }
    }

    /// A buffer that is full of this kind's number shows the stride as the place of the second record.
    fn compare_strides(&self) {
        for kind in 0..64 {
            let mut buffer = [u64::from(kind); 512];
            let (offsets, result) = self.walk(&mut buffer, size_of::<[u64; 512]>());
            match record_size(kind, self.api_version) {
                Some(size) => assert_eq!(offsets.get(1), Some(&size), "kind {kind}: {}", result_name(result)),
                None if DROPPED.contains(&kind) => {}
                None => assert_eq!(
                    result_name(result),
                    "CUPTI_ERROR_INVALID_KIND",
                    "kind {kind} is unknown to us"
                ),
            }
        }
    }

    fn compare_walks_over_mixed_buffers(&self) {
        let strides = Strides::new(self.api_version);
        let known: Vec<u32> = (0..64).filter(|kind| strides.get(*kind).is_some()).collect();
        let mut random = 1_u64;
        for round in 0..50 {
            let (mut buffer, mut expected) = (Vec::new(), Vec::new());
            for _ in 0..=round * 8 {
                // Knuth's MMIX generator: any order does, so long as it is the same each time.
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let kind = known[(random >> 33) as usize % known.len()];
                expected.push(size_of_val(buffer.as_slice()));
                // Each record's bytes after its kind are zero, as a buffer that CUPTI clears.
                let words = strides.get(kind).expect("a known kind") / 8;
                buffer.push(u64::from(kind));
                buffer.extend(std::iter::repeat_n(0, words - 1));
            }
            let valid = size_of_val(buffer.as_slice());
            let (theirs, result) = self.walk(&mut buffer, valid);
            assert_eq!(result, ERROR_MAX_LIMIT_REACHED, "{}", result_name(result));
            assert_eq!(theirs, expected);
            assert_eq!(our_walk(&strides, bytes(&buffer)), expected);
        }
    }

    /// Buffers cut at any byte: both see the same records, none in part.
    fn compare_where_walks_stop(&self) {
        let strides = Strides::new(self.api_version);
        let mut buffer = Vec::new();
        for kind in [KIND_CONCURRENT_KERNEL, KIND_RUNTIME, KIND_MEMCPY, KIND_SYNCHRONIZATION] {
            buffer.push(u64::from(kind));
            buffer.extend(std::iter::repeat_n(0, strides.get(kind).expect("a known kind") / 8 - 1));
        }
        for valid in 0..=size_of_val(buffer.as_slice()) {
            let ours = our_walk(&strides, &bytes(&buffer)[..valid]);
            let (theirs, result) = self.walk(&mut buffer, valid);
            assert_eq!(theirs, ours, "cut at {valid}: {}", result_name(result));
        }
    }

    fn compare_callback_names(&self) {
        let domains = [
            (DOMAIN_DRIVER_API, "CUPTI_DRIVER_TRACE_CBID_", DRIVER_CBIDS),
            (DOMAIN_RUNTIME_API, "CUPTI_RUNTIME_TRACE_CBID_", RUNTIME_CBIDS),
        ];
        for (domain, prefix, cbids) in domains {
            for (c_name, cbid) in cbids {
                // SAFETY: the library stays, and these versions answer without a driver.
                let theirs = unsafe { callback_name(&self.functions, domain, *cbid) };
                assert_eq!(theirs.as_deref(), c_name.strip_prefix(prefix), "{c_name}");
            }
        }
        // SAFETY: as above.
        let unknown = unsafe { callback_name(&self.functions, DOMAIN_DRIVER_API, 100_000) };
        assert_eq!(unknown, None);
    }

    fn compare_result_names(&self) {
        let get_name = self.functions.cuptiGetResultString.expect("cuptiGetResultString");
        let mut compared = 0;
        for (c_name, code) in RESULTS {
            let mut text = std::ptr::null();
            // SAFETY: the function sets `text` to a constant of its own, where it knows the code.
            if unsafe { get_name(*code, &raw mut text) } == SUCCESS {
                // SAFETY: it succeeded.
                let theirs = unsafe { CStr::from_ptr(text) };
                assert_eq!(theirs.to_str(), Ok(*c_name));
                compared += 1;
            }
        }
        assert!(compared >= 40, "only {compared} results have a name");
    }
}

fn bytes(buffer: &[u64]) -> &[u8] {
    // SAFETY: the same memory, seen as bytes.
    unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), size_of_val(buffer)) }
}

fn our_walk(strides: &Strides, buffer: &[u8]) -> Vec<usize> {
    let mut rest = buffer;
    std::iter::from_fn(|| {
        let offset = buffer.len() - rest.len();
        strides.next(&mut rest).map(|_| offset)
    })
    .collect()
}
