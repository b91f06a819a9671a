//! The kernels: compiled by NVRTC where it is found, else from embedded PTX; and the same arithmetic on the host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule};
use cudarc::nvrtc::{self, Ptx};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

const SOURCE: &str = include_str!("kernels.cu");
const PTX: &str = include_str!("kernels.ptx");
const LCG: &str = "_ZN4demo8lcg_stepEPjj";
const XORSHIFT: &str = "_ZN4demo13xorshift_stepEPjj";

/// The two kernels, loaded.
#[derive(Debug, Clone)]
pub(crate) struct Kernels {
    /// Even launches of a step.
    pub(crate) lcg: CudaFunction,
    /// Odd launches of a step.
    pub(crate) xorshift: CudaFunction,
    /// `nvrtc` or `ptx`.
    pub(crate) source: &'static str,
}

impl Kernels {
    /// Loads them. A driver older than the NVRTC found refuses its PTX: then the embedded one serves, too.
    pub(crate) fn load(context: &Arc<CudaContext>, library: Option<&Path>, embedded: bool) -> Result<Self> {
        if !embedded
            && let Some(ptx) = compile(library)?
            && let Ok(module) = context.load_module(ptx)
        {
            return Self::find(&module, "nvrtc");
        }
        let module = context
            .load_module(Ptx::from_src(PTX))
            .context("driver refused the embedded PTX")?;
        Self::find(&module, "ptx")
    }

    fn find(module: &Arc<CudaModule>, source: &'static str) -> Result<Self> {
        let function = |name: &str| {
            let function = module
                .load_function(name)
                .with_context(|| format!("no kernel `{name}` in the module"))?;
            // Functions load lazily; asking for an attribute loads this one now, not in the middle of a capture.
            function
                .num_regs()
                .with_context(|| format!("kernel `{name}` does not load"))?;
            Ok::<_, anyhow::Error>(function)
        };
        Ok(Self {
            lcg: function(LCG)?,
            xorshift: function(XORSHIFT)?,
            source,
        })
    }
}

/// What `launches` kernels of one step, repeated `steps` times, make of `value`.
pub(crate) fn expected(mut value: u32, steps: u32, launches: u32) -> u32 {
    for _ in 0..steps {
        for launch in 0..launches {
            value = if launch % 2 == 0 { lcg(value) } else { xorshift(value) };
        }
    }
    value
}

fn lcg(value: u32) -> u32 {
    value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)
}

fn xorshift(mut value: u32) -> u32 {
    value ^= value << 13;
    value ^= value >> 17;
    value ^= value << 5;
    value
}

/// Compiles the source; `None` where there is no NVRTC that works. A library that was named must load.
fn compile(library: Option<&Path>) -> Result<Option<Ptx>> {
    if let Some(path) = library {
        preload(path).with_context(|| format!("cannot load NVRTC from `{}`", path.display()))?;
    // SAFETY: only tries to load libraries by name.
    } else if !unsafe { nvrtc::sys::is_culib_present() } && !candidates().iter().any(|path| preload(path).is_ok()) {
        return Ok(None);
    }
    // SAFETY: as above. Without this, cudarc would panic where the library has a name that it does not try.
    if !unsafe { nvrtc::sys::is_culib_present() } {
        return Ok(None);
    }
    Ok(nvrtc::compile_ptx(SOURCE).ok())
}

/// Where toolkits and wheels keep NVRTC, beside the loader's own search.
fn candidates() -> Vec<PathBuf> {
    let home = std::env::var_os("CUDA_HOME").map_or_else(|| PathBuf::from("/usr/local/cuda"), PathBuf::from);
    ["libnvrtc.so.13", "libnvrtc.so.12"]
        .iter()
        .map(|name| home.join("lib64").join(name))
        .collect()
}

/// Maps NVRTC and its built-ins, which it looks for by name only, so that both are found by their sonames later.
fn preload(path: &Path) -> Result<(), libloading::Error> {
    let builtins = path
        .parent()
        .and_then(|folder| std::fs::read_dir(folder).ok())
        .into_iter()
        .flatten()
        .flatten();
    for entry in builtins.filter(|entry| entry.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so")) {
        // One that does not load is not the one that NVRTC asks for.
        let _ = keep(&entry.path());
    }
    keep(path)
}

fn keep(path: &Path) -> Result<(), libloading::Error> {
    // SAFETY: NVIDIA's library; its initialisers have no conditions.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }?;
    std::mem::forget(library);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_launch_and_its_order_show_in_the_result() {
        assert_eq!(expected(1, 0, 5), 1);
        assert_eq!(expected(1, 1, 1), 1_015_568_748);
        assert_eq!(expected(1, 1, 2), xorshift(1_015_568_748));
        assert_eq!(expected(7, 2, 3), expected(expected(7, 1, 3), 1, 3));
        let all: Vec<u32> = (0..6).map(|launches| expected(12345, 1, launches)).collect();
        assert!((1..all.len()).all(|i| !all[..i].contains(&all[i])), "{all:?}");
    }

    #[test]
    fn xorshift_is_marsaglia_s() {
        assert_eq!(xorshift(1), 270_369);
        assert_eq!(xorshift(270_369), 67_634_689);
    }

    #[test]
    fn embedded_ptx_and_source_name_the_same_kernels() {
        for name in [LCG, XORSHIFT] {
            assert!(PTX.contains(&format!(".entry {name}(")), "`{name}` missing");
        }
        assert!(SOURCE.contains("void lcg_step(unsigned *state, unsigned count)"));
        assert!(SOURCE.contains("void xorshift_step(unsigned *state, unsigned count)"));
    }

    #[test]
    fn a_library_that_was_named_must_load() {
        let problem = compile(Some(Path::new("/nonexistent/libnvrtc.so"))).unwrap_err();
        assert!(problem.to_string().contains("`/nonexistent/libnvrtc.so`"), "{problem}");
    }

    #[test]
    #[ignore = "needs an NVRTC: NVRTC=/path/to/libnvrtc.so.13 cargo test -p demo-cuda -- --ignored"]
    fn nvrtc_compiles_the_source() {
        let path = std::env::var_os("NVRTC").expect("NVRTC names the library");
        let ptx = compile(Some(Path::new(&path))).unwrap().expect("it compiles").to_src();
        for name in [LCG, XORSHIFT] {
            assert!(ptx.contains(&format!(".entry {name}(")), "`{name}` missing in {ptx}");
        }
    }
}
