//! Finding CUDA's libraries and functions as real programs do.

use std::ffi::{CStr, CString, c_void};

use anyhow::{Context, Result, bail};
use sim_abi::library;

/// Where functions are looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbols(*mut c_void);

impl Symbols {
    /// Opens `soname` by the loader's rules, else the stand-in `file` of the same build. `marker` tells a stand-in.
    pub(crate) fn open(soname: &CStr, file: &str, marker: &CStr, flags: i32) -> Result<Symbols> {
        let near = std::env::current_exe().context("where this program lies is unknown")?;
        let handle = library::open(soname, file, &near, flags).with_context(|| {
            format!("no {soname:?}, and no `{file}` beside this program; run `cargo build --workspace` first")
        })?;
        if library::symbol(handle, marker).is_null() {
            bail!("{soname:?} is a real one, this workload needs the stand-in; run it under `colonel run --sim`");
        }
        Ok(Symbols(handle))
    }

    /// All global symbols: what a linked program sees, preloaded libraries first.
    pub(crate) fn global() -> Symbols {
        Symbols(libc::RTLD_DEFAULT)
    }

    /// The address of a function.
    pub(crate) fn find(self, name: &str) -> Result<*mut c_void> {
        let address = library::symbol(self.0, &CString::new(name)?);
        if address.is_null() {
            bail!("no function `{name}`");
        }
        Ok(address)
    }
}

/// A table of C functions, each returning a status.
macro_rules! functions {
    ($( #[$doc:meta] )* $Table:ident { $( $field:ident: $name:literal ( $($type:ty),* ); )* }) => {
        $( #[$doc] )*
        pub(crate) struct $Table { $( pub(crate) $field: extern "C" fn($($type),*) -> i32, )* }

        impl $Table {
            pub(crate) fn find(symbols: $crate::symbols::Symbols) -> anyhow::Result<$Table> {
                Ok($Table { $(
                    $field: {
                        let address = symbols.find($name)?;
                        // SAFETY: the signature of this function in NVIDIA's headers.
                        unsafe { std::mem::transmute::<*mut std::ffi::c_void, extern "C" fn($($type),*) -> i32>(address) }
                    },
                )* })
            }
        }
    };
}
pub(crate) use functions;
