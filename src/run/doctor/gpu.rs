//! The GPUs and their driver, from NVML, /proc and /sys: none of them initialises CUDA.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs;
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL};
use serde::Serialize;

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Product name.
    pub name: String,
    /// Compute capability, where NVML says so.
    pub compute: Option<(u32, u32)>,
}

/// The driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// Of the kernel module, such as `580.82.07`.
    pub release: Option<String>,
    /// The newest CUDA that it serves, 13000 for 13.0.
    pub cuda: Option<u32>,
}

/// What there is of a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GpuFacts {
    /// GPUs that the driver has.
    pub gpus: Vec<Gpu>,
    /// The driver, where one is loaded.
    pub driver: Option<Driver>,
    /// Whether `libcuda.so.1` loads.
    pub libcuda: bool,
    /// NVIDIA display controllers on the PCI bus.
    pub on_pci: usize,
    /// `CUDA_VISIBLE_DEVICES`.
    pub visible: Option<String>,
    /// Runs in a container.
    pub container: bool,
}

/// Looks around.
pub(super) fn gather() -> GpuFacts {
    let nvml = Nvml::open();
    let kernel_module = fs::read_to_string("/proc/driver/nvidia/version").ok();
    let cuda = driver_cuda();
    let mut driver = kernel_module.map(|text| Driver {
        release: module_release(&text),
        cuda: None,
    });
    if let Some(nvml) = &nvml {
        let known = driver.get_or_insert_default();
        known.release = known.release.take().or_else(|| nvml.driver_release());
        known.cuda = nvml.cuda();
    }
    if let Some(driver) = &mut driver {
        driver.cuda = driver.cuda.or(cuda.flatten());
    }
    GpuFacts {
        gpus: nvml.as_ref().map_or_else(gpus_of_proc, Nvml::gpus),
        driver,
        libcuda: cuda.is_some(),
        on_pci: on_pci(Path::new("/sys/bus/pci/devices")),
        visible: std::env::var_os("CUDA_VISIBLE_DEVICES").map(|value| value.to_string_lossy().into_owned()),
        container: in_container(),
    }
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  …`, or the open module's `for x86_64  580.82.07`.
fn module_release(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_release = |word: &&str| word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    line.split_ascii_whitespace().find(is_release).map(str::to_owned)
}

fn gpus_of_proc() -> Vec<Gpu> {
    let entries = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path().join("information")).ok()?;
            let name = text
                .lines()
                .find_map(|line| line.strip_prefix("Model:"))?
                .trim()
                .to_owned();
            Some(Gpu { name, compute: None })
        })
        .collect()
}

fn on_pci(devices: &Path) -> usize {
    let read = |path: &Path, file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
    let is_gpu = |path: &Path| read(path, "vendor").trim() == "0x10de" && read(path, "class").starts_with("0x03");
    fs::read_dir(devices)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| is_gpu(&entry.path()))
        .count()
}

pub(crate) fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"]
        .iter()
        .any(|path| Path::new(path).exists())
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        || fs::read_to_string("/proc/1/cgroup").is_ok_and(|text| {
            ["docker", "kubepods", "containerd", "libpod", "lxc"]
                .iter()
                .any(|name| text.contains(name))
        })
}

fn open(name: &str) -> Option<Library> {
    // SAFETY: NVIDIA's libraries run nothing of note when loaded; the driver initialises itself in cuInit.
    unsafe { Library::open(Some(name), RTLD_LAZY | RTLD_LOCAL) }.ok()
}

/// `None` without libcuda; else the CUDA version that it tells without cuInit.
fn driver_cuda() -> Option<Option<u32>> {
    let library = open("libcuda.so.1")?;
    let mut version: c_int = 0;
    // SAFETY: the function has this signature since CUDA 2.2 and writes one int.
    let status = unsafe {
        let function = library.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDriverGetVersion\0");
        function.map(|get_version| get_version(&raw mut version))
    };
    // The driver keeps threads and handlers of its own: never unload it.
    std::mem::forget(library);
    Some(matches!(status, Ok(0)).then(|| u32::try_from(version).ok()).flatten())
}

/// The driver's management library.
struct Nvml {
    library: Library,
}

type Handle = *mut c_void;

impl Nvml {
    fn open() -> Option<Self> {
        let library = open("libnvidia-ml.so.1")?;
        let nvml = Self { library };
        nvml.call::<unsafe extern "C" fn() -> c_int>(b"nvmlInit_v2\0", |init| {
            // SAFETY: takes nothing.
            unsafe { init() }
        })?;
        Some(nvml)
    }

    /// Calls a function; `None` where it is missing or fails.
    fn call<F: Copy>(&self, name: &[u8], call: impl FnOnce(F) -> c_int) -> Option<()> {
        // SAFETY: F is the function's signature as NVML documents it, at every use below.
        let function = unsafe { self.library.get::<F>(name) }.ok()?;
        (call(*function) == 0).then_some(())
    }

    fn driver_release(&self) -> Option<String> {
        let mut text: [c_char; 80] = [0; 80];
        self.call::<unsafe extern "C" fn(*mut c_char, c_uint) -> c_int>(b"nvmlSystemGetDriverVersion\0", |get| {
            // SAFETY: writes at most the length given.
            unsafe { get(text.as_mut_ptr(), 80) }
        })?;
        Some(string(&text))
    }

    fn cuda(&self) -> Option<u32> {
        let mut version: c_int = 0;
        self.call::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"nvmlSystemGetCudaDriverVersion_v2\0", |get| {
            // SAFETY: writes one int.
            unsafe { get(&raw mut version) }
        })?;
        u32::try_from(version).ok()
    }

    fn gpus(&self) -> Vec<Gpu> {
        let mut count: c_uint = 0;
        let counted = self.call::<unsafe extern "C" fn(*mut c_uint) -> c_int>(b"nvmlDeviceGetCount_v2\0", |get| {
            // SAFETY: writes one int.
            unsafe { get(&raw mut count) }
        });
        let gpus = (0..counted.map_or(0, |()| count)).filter_map(|index| self.gpu(index));
        gpus.collect()
    }

    fn gpu(&self, index: c_uint) -> Option<Gpu> {
        type ByIndex = unsafe extern "C" fn(c_uint, *mut Handle) -> c_int;
        type Name = unsafe extern "C" fn(Handle, *mut c_char, c_uint) -> c_int;
        type Capability = unsafe extern "C" fn(Handle, *mut c_int, *mut c_int) -> c_int;
        let mut handle: Handle = std::ptr::null_mut();
        self.call::<ByIndex>(b"nvmlDeviceGetHandleByIndex_v2\0", |get| {
            // SAFETY: writes one pointer.
            unsafe { get(index, &raw mut handle) }
        })?;
        let mut name: [c_char; 96] = [0; 96];
        self.call::<Name>(b"nvmlDeviceGetName\0", |get| {
            // SAFETY: the handle is NVML's own, and it writes at most the length given.
            unsafe { get(handle, name.as_mut_ptr(), 96) }
        })?;
        let (mut major, mut minor) = (0, 0);
        let capability = self.call::<Capability>(b"nvmlDeviceGetCudaComputeCapability\0", |get| {
            // SAFETY: the handle is NVML's own, and it writes two ints.
            unsafe { get(handle, &raw mut major, &raw mut minor) }
        });
        let compute = capability.and_then(|()| Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?)));
        Some(Gpu {
            name: string(&name),
            compute,
        })
    }
}

/// Text that ends at its first NUL, or with the array.
fn string(text: &[c_char]) -> String {
    let bytes: Vec<u8> = text.iter().map(|&byte| byte.cast_unsigned()).chain([0]).collect();
    CStr::from_bytes_until_nul(&bytes)
        .map(|text| text.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kernel_modules_tell_their_release() {
        let proprietary = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n\
                           GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";
        assert_eq!(module_release(proprietary).as_deref(), Some("535.104.05"));
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build  (builder@1.2)\n";
        assert_eq!(module_release(open).as_deref(), Some("580.82.07"));
        assert_eq!(module_release("something else 1.2\n"), None);
    }

    #[test]
    fn only_nvidias_display_controllers_count() {
        let temp = tempfile::tempdir().unwrap();
        let device = |name: &str, vendor: &str, class: &str| {
            let folder = temp.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("vendor"), vendor).unwrap();
            fs::write(folder.join("class"), class).unwrap();
        };
        device("gpu", "0x10de\n", "0x030200\n");
        device("nvswitch", "0x10de\n", "0x068000\n");
        device("intel", "0x8086\n", "0x030000\n");
        assert_eq!(on_pci(temp.path()), 1);
        assert_eq!(on_pci(&temp.path().join("missing")), 0);
    }

    #[test]
    fn a_full_buffer_without_nul_is_read_whole() {
        let full = [b'x'.cast_signed(); 4];
        assert_eq!(string(&full), "xxxx");
        assert_eq!(string(&[b'a'.cast_signed(), 0, b'b'.cast_signed(), 0]), "a");
    }
}
