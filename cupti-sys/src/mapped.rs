//! What is mapped into this process: the CUDA libraries, and the folders that go with them.

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{CStr, OsStr, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The library of this soname or path if it is in the process. Nothing is loaded.
pub(crate) fn open(name: impl AsRef<OsStr>) -> Option<Library> {
    // SAFETY: with RTLD_NOLOAD no initializer runs.
    unsafe { Library::open(Some(name.as_ref()), RTLD_NOW | RTLD_LOCAL | libc::RTLD_NOLOAD) }.ok()
}

/// Files of all mapped libraries.
pub(crate) fn paths() -> Vec<PathBuf> {
    unsafe extern "C" fn collect(info: *mut libc::dl_phdr_info, _size: usize, paths: *mut c_void) -> c_int {
        // SAFETY: the linker passes a valid `info`, and `paths` is the vector below.
        let (name, paths) = unsafe { ((*info).dlpi_name, &mut *paths.cast::<Vec<PathBuf>>()) };
        if !name.is_null() {
            // SAFETY: not null, so a C string that lives during the call.
            let name = unsafe { CStr::from_ptr(name) };
            paths.push(PathBuf::from(OsStr::from_bytes(name.to_bytes())));
        }
        0
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    // SAFETY: the callback keeps to its contract, and the vector outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut paths).cast()) };
    paths
}

/// The file that a function lies in.
pub(crate) fn file_of(function: *const ()) -> Option<PathBuf> {
    // SAFETY: all zero is a valid Dl_info.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: dladdr takes any address.
    let found = unsafe { libc::dladdr(function.cast(), &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: not null, so a C string of the linker's.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

pub(crate) fn file_name_starts(path: &Path, start: &str) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_bytes().starts_with(start.as_bytes()))
}

/// Major of the shared CUDA runtime in the process; programs often have it linked in instead.
pub(crate) fn cuda_runtime_major(libraries: &[PathBuf]) -> Option<u32> {
    libraries.iter().find_map(|path| version_after(path, "libcudart.so."))
}

/// The number that follows `start` in the file's name.
pub(crate) fn version_after(path: &Path, start: &str) -> Option<u32> {
    path.file_name()?
        .to_str()?
        .strip_prefix(start)?
        .split('.')
        .next()?
        .parse()
        .ok()
}

/// CUDA major that the driver serves.
pub(crate) fn driver_major(driver: &Library) -> Option<u32> {
    type DriverGetVersion = unsafe extern "C" fn(*mut c_int) -> c_int;
    // SAFETY: the driver's function of this name has this type.
    let get_version = unsafe { driver.get::<DriverGetVersion>("cuDriverGetVersion") }.ok()?;
    let mut version = 0;
    // SAFETY: allowed at any time, also before cuInit.
    let result = unsafe { get_version(&raw mut version) };
    (result == 0 && version >= 1000).then_some(version.unsigned_abs() / 1000)
}

/// Folders in which the CUDA runtime or framework in the process would look for its libcupti, or which its installer
/// puts it into: the library's own, `nvidia/cu13/lib` and `nvidia/cuda_cupti/lib` of its site-packages, its toolkit's.
pub(crate) fn folders_beside_cuda(libraries: &[PathBuf]) -> Vec<PathBuf> {
    const CUDA_USERS: [&str; 5] = ["libcudart.so", "libtorch", "libc10_cuda", "xla_cuda", "libnvrtc.so"];
    const PLACES: [&str; 3] = ["nvidia/cu13/lib", "nvidia/cuda_cupti/lib", "extras/CUPTI/lib64"];
    // From nvidia/cuda_runtime/lib, torch/lib or targets/x86_64-linux/lib to the root of each.
    const LEVELS: usize = 4;

    let mut folders: Vec<PathBuf> = Vec::new();
    let mut add = |folder: PathBuf| {
        if folder.is_dir() && !folders.contains(&folder) {
            folders.push(folder);
        }
    };
    for library in libraries
        .iter()
        .filter(|path| CUDA_USERS.iter().any(|start| file_name_starts(path, start)))
    {
        // The linker's names may be relative or pass through `..`.
        let library = library.canonicalize().unwrap_or_else(|_| library.clone());
        let Some(folder) = library.parent() else { continue };
        add(folder.to_path_buf());
        for root in folder.ancestors().skip(1).take(LEVELS) {
            PLACES.iter().for_each(|place| add(root.join(place)));
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_mapped_and_nonsense_is_not() {
        assert!(open("libc.so.6").is_some());
        assert!(open("libnonsense.so.1").is_none());
        assert!(paths().iter().any(|path| file_name_starts(path, "libc.so")));
    }

    #[test]
    fn a_function_knows_its_file() {
        let file = file_of(libc::getpid as *const ()).unwrap();
        assert!(file_name_starts(&file, "libc.so"), "{}", file.display());
    }

    #[test]
    fn the_runtimes_major_is_in_its_name() {
        let libraries = ["/usr/lib/libc.so.6", "/x/libcudart.so.12"].map(PathBuf::from);
        assert_eq!(cuda_runtime_major(&libraries), Some(12));
        assert_eq!(cuda_runtime_major(&libraries[..1]), None);
        assert_eq!(
            version_after(Path::new("/x/libcudart.so.13.0.96"), "libcudart.so."),
            Some(13)
        );
    }

    #[test]
    fn wheels_and_toolkits_are_found_from_the_libraries_in_use() {
        let root = std::env::temp_dir().join(format!("colonel-mapped-{}", std::process::id()));
        let make = |sub: &str| {
            let folder = root.join(sub);
            std::fs::create_dir_all(&folder).unwrap();
            folder.canonicalize().unwrap()
        };
        let library = |sub: &str, name: &str| {
            let path = make(sub).join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        let torch = library("site/torch/lib", "libtorch_cpu.so");
        let cudart = library("cuda/targets/x86_64-linux/lib", "libcudart.so.13");
        let (cu13, cu12) = (make("site/nvidia/cu13/lib"), make("site/nvidia/cuda_cupti/lib"));
        let toolkit = make("cuda/extras/CUPTI/lib64");

        let folders = folders_beside_cuda(&[torch.clone(), root.join("site/other/libfoo.so")]);
        assert_eq!(folders, [torch.parent().unwrap(), &cu13, &cu12]);
        let folders = folders_beside_cuda(std::slice::from_ref(&cudart));
        assert_eq!(folders, [cudart.parent().unwrap(), &toolkit]);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
