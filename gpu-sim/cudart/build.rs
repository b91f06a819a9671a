//! Gives the library the soname under which programs look for the CUDA runtime.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcudart.so.13");
    println!("cargo::rerun-if-changed=build.rs");
}
