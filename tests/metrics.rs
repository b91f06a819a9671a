//! Colonel's metrics against NVIDIA's own profiler host, which knows every chip and needs no GPU.
//!
//! Needs tests/cupti/fetch_wheels.sh, as `make test` does.

#![allow(missing_docs, reason = "a test is its own documentation")]

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use colonel::schema::counters::{METRICS, SM_THROUGHPUT};
use cupti_sys::constants::ERROR_INVALID_CHIP_NAME;
use cupti_sys::counters::{Host, Names, prepare};
use cupti_sys::loader::{Cupti, open_without_gpu};

fn cupti() -> &'static Cupti {
    static CUPTI: OnceLock<Cupti> = OnceLock::new();
    CUPTI.get_or_init(|| {
        let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".wheels");
        let wheels = std::env::var_os("COLONEL_WHEELS").map_or_else(default, PathBuf::from);
        let path = wheels.join("cupti-13.0.85/nvidia/cu13/lib/libcupti.so.13");
        assert!(
            path.is_file(),
            "no `{}`: tests/cupti/fetch_wheels.sh fetches it",
            path.display()
        );
        let cupti = open_without_gpu(&path).unwrap();
        prepare(&cupti).unwrap();
        cupti
    })
}

/// NVIDIA's profiler host now and then refuses one of two threads that start at the same time (999).
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes that the metrics of these names need together; none if the chip lacks one.
fn passes(chip: &CStr, names: &[&str]) -> Option<usize> {
    let mut host = Host::new(&cupti().functions, chip, None).unwrap();
    host.add(&Names::new(names)).ok()?;
    let mut config = host.config_image().unwrap();
    Some(host.passes(&mut config).unwrap())
}

/// Names of the metrics that are sampled together on a chip, as the guest chooses them.
fn sampled(chip: &CStr) -> Vec<&'static str> {
    let mut sources = Vec::new();
    let mut names = Vec::new();
    for metric in METRICS {
        let fits = |source: &&&'static str| passes(chip, &[&sources[..], &[**source]].concat()) == Some(1);
        if let Some(source) = metric.sources.iter().find(fits) {
            sources.push(*source);
            names.push(metric.name);
        }
    }
    names
}

#[test]
fn an_h100_samples_every_metric_at_once() {
    let _alone = alone();
    let all: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(sampled(c"GH100"), all);
}

#[test]
fn other_chips_sample_most_of_them() {
    let _alone = alone();
    for (chip, at_least) in [(c"GB100", 18), (c"GB202", 10), (c"AD102", 12), (c"GA100", 12)] {
        let names = sampled(chip);
        assert!(names.len() >= at_least, "{chip:?}: {names:?}");
    }
    // Without a name that is made for sampling it needs a pass after the other.
    assert!(!sampled(c"AD102").contains(&SM_THROUGHPUT));
}

#[test]
fn what_a_chip_lacks_is_refused() {
    let _alone = alone();
    assert_eq!(passes(c"GH100", &["nonsense__bytes.sum"]), None);
    let refused = Host::new(&cupti().functions, c"GX999", None).unwrap_err();
    assert_eq!(refused.code, ERROR_INVALID_CHIP_NAME);
}
