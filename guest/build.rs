//! Link arguments of the guest: a soname, and never unmapped, since the driver keeps pointers into it.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcolonel_guest.so");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
