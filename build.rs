//! Build metadata: the commit that a session names, so that a reader knows which colonel wrote it; and where ECharts is,
//! which the report's page carries.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let commit = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    println!("cargo::rustc-env=COLONEL_COMMIT={commit}");
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=build.rs");
    // The guest is built without it.
    if std::env::var_os("CARGO_FEATURE_CLI").is_some() {
        println!("cargo::rustc-env=COLONEL_ECHARTS={}", echarts().display());
    }
}

/// ECharts' minified file: the crate `charming` carries it for its own use, and gives no other way to it.
fn echarts() -> PathBuf {
    let folder = crate_folder("charming").join("src/asset");
    let is_echarts = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("echarts-") && name.ends_with(".min.js")
    };
    let files = folder.read_dir().into_iter().flatten().flatten();
    let found = files.map(|file| file.path()).find(is_echarts);
    found.unwrap_or_else(|| {
        panic!(
            "no echarts-*.min.js in `{}`: another version of charming?",
            folder.display()
        )
    })
}

/// Where cargo has unpacked a dependency.
fn crate_folder(name: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").expect("cargo names itself to build scripts");
    let target = std::env::var("TARGET").expect("cargo names the target to build scripts");
    // Of this target only: cargo has fetched no others' crates.
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--filter-platform",
            &target,
        ])
        .output()
        .expect("cargo metadata can be run");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata gives JSON");
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages
        .filter(|package| package["name"] == name)
        .find_map(|package| package["manifest_path"].as_str());
    let manifest = manifest.unwrap_or_else(|| panic!("cargo metadata does not name the crate `{name}`"));
    Path::new(manifest)
        .parent()
        .expect("a manifest lies in a folder")
        .to_owned()
}
