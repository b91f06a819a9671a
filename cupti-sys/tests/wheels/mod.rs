//! Where the tests find NVIDIA's headers and libraries.

use std::path::{Path, PathBuf};

/// The unpacked wheel of this name; what is missing is said with the way to get it.
pub(crate) fn wheel(name: &str) -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.wheels");
    let folder = std::env::var_os("COLONEL_WHEELS")
        .map_or_else(default, PathBuf::from)
        .join(name);
    assert!(
        folder.is_dir(),
        "no wheel in `{}`: fetch NVIDIA's wheels with tests/cupti/fetch_wheels.sh (`make test` does), \
         or name their folder in `COLONEL_WHEELS`",
        folder.display()
    );
    folder
}

/// Where the wheel of this CUPTI release has its `include` and `lib`.
pub(crate) fn cupti(release: &str) -> PathBuf {
    let folder = if release.starts_with("12.") {
        "cuda_cupti"
    } else {
        "cu13"
    };
    wheel(&format!("cupti-{release}")).join("nvidia").join(folder)
}
