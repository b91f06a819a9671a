//! Gives the library the soname under which programs look for CUPTI.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcupti.so.13");
    println!("cargo::rerun-if-changed=build.rs");
}
