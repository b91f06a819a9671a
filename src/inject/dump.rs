//! Raw activity buffers to disk, with the names that their records point to: golden files for the decoder.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::path::Path;

use cupti_sys::records::{Api, Context, Kernel, Memcpy, MemcpyPeer, Memset, Overhead, Stream, Synchronization, View};

use crate::inject::decode::{self, Layout, Sink};

/// Writes `STEM.bin` and `STEM.names.json` (address to name) to `folder`.
pub(crate) fn write(folder: &Path, stem: &str, bytes: &[u8], layout: &Layout) -> io::Result<()> {
    let mut names = NameFinder::default();
    decode::decode(bytes, layout, &mut names);
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(format!("{stem}.bin")), bytes)?;
    std::fs::write(
        folder.join(format!("{stem}.names.json")),
        serde_json::to_vec_pretty(&names.0)?,
    )
}

/// Collects the kernel names of a buffer.
#[derive(Debug, Default)]
struct NameFinder(BTreeMap<u64, String>);

impl Sink for NameFinder {
    fn kernel(&mut self, record: View<'_, Kernel>) {
        let pointer = record.name();
        if !pointer.is_null() {
            // SAFETY: CUPTI's names are zero-terminated and outlive the buffer that points to them.
            let name = unsafe { CStr::from_ptr(pointer) };
            self.0
                .entry(pointer as u64)
                .or_insert_with(|| name.to_string_lossy().into_owned());
        }
    }
    fn memcpy(&mut self, _: View<'_, Memcpy>) {}
    fn memcpy_peer(&mut self, _: View<'_, MemcpyPeer>) {}
    fn memset(&mut self, _: View<'_, Memset>) {}
    fn synchronization(&mut self, _: View<'_, Synchronization>) {}
    fn api(&mut self, _: View<'_, Api>) {}
    fn overhead(&mut self, _: View<'_, Overhead>) {}
    fn context(&mut self, _: View<'_, Context>) {}
    fn stream(&mut self, _: View<'_, Stream>) {}
}
