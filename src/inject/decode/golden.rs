//! Golden files: activity buffers that a real CUPTI filled on a real GPU, decoded to text. What their records point to
//! is long gone, so names come from the file beside them and no pointer is followed.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use cupti_sys::constants::*;
use cupti_sys::names;
use cupti_sys::records::{Api, Context, Kernel, Memcpy, MemcpyPeer, Memset, Overhead, Stream, Synchronization, View};

use super::{Layout, Sink, decode};

/// One line a record. Times are left out but for their order, process and thread ids for good.
#[derive(Debug, Default)]
struct Text {
    names: BTreeMap<u64, String>,
    kernels: usize,
    text: String,
}

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>, start: u64, end: u64) {
        let time = match (start, end) {
            (0, _) | (_, 0) => "  no time",
            _ if end < start => "  REVERSED",
            _ => "",
        };
        writeln!(self.text, "{line}{time}").unwrap();
    }
}

impl Sink for Text {
    fn kernel(&mut self, record: View<'_, Kernel>) {
        self.kernels += 1;
        let name = self.names.get(&(record.name() as u64)).cloned();
        let line = format_args!(
            "kernel {} grid {}x{}x{} block {}x{}x{} registers {} device {} context {} stream {} correlation {} graph {} node {:#x}",
            name.as_deref().unwrap_or("NO NAME"),
            record.grid_x(),
            record.grid_y(),
            record.grid_z(),
            record.block_x(),
            record.block_y(),
            record.block_z(),
            record.registers_per_thread(),
            record.device_id(),
            record.context_id(),
            record.stream_id(),
            record.correlation_id(),
            record.graph_id(),
            record.graph_node_id(),
        );
        self.line(line, record.start(), record.end());
    }

    fn memcpy(&mut self, record: View<'_, Memcpy>) {
        let line = format_args!(
            "memcpy {} {} to {} bytes {} stream {} correlation {} graph {} node {:#x}",
            names::memcpy_kind_name(record.copy_kind()),
            names::memory_kind_name(record.src_kind().into()),
            names::memory_kind_name(record.dst_kind().into()),
            record.bytes(),
            record.stream_id(),
            record.correlation_id(),
            record.graph_id(),
            record.graph_node_id(),
        );
        self.line(line, record.start(), record.end());
    }

    fn memcpy_peer(&mut self, record: View<'_, MemcpyPeer>) {
        let line = format_args!("memcpy_peer correlation {}", record.correlation_id());
        self.line(line, record.start(), record.end());
    }

    fn memset(&mut self, record: View<'_, Memset>) {
        let line = format_args!(
            "memset value {} bytes {} correlation {}",
            record.value(),
            record.bytes(),
            record.correlation_id()
        );
        self.line(line, record.start(), record.end());
    }

    fn synchronization(&mut self, record: View<'_, Synchronization>) {
        let line = format_args!(
            "synchronization {} context {} stream {} correlation {}",
            names::sync_kind_name(record.sync_type()),
            record.context_id(),
            record.stream_id().cast_signed(),
            record.correlation_id(),
        );
        self.line(line, record.start(), record.end());
    }

    fn api(&mut self, record: View<'_, Api>) {
        let api = if record.kind() == KIND_RUNTIME {
            "runtime"
        } else {
            "driver"
        };
        let line = format_args!(
            "{api} function {} returned {} correlation {}",
            record.cbid(),
            record.return_value(),
            record.correlation_id()
        );
        self.line(line, record.start(), record.end());
    }

    fn overhead(&mut self, record: View<'_, Overhead>) {
        let line = format_args!(
            "overhead {} object {} correlation {}",
            names::overhead_kind_name(record.overhead_kind()),
            record.object_kind(),
            record.correlation_id()
        );
        self.line(line, record.start(), record.end());
    }

    fn context(&mut self, record: View<'_, Context>) {
        let line = format_args!(
            "context {} device {} null stream {}",
            record.context_id(),
            record.device_id(),
            record.null_stream_id()
        );
        self.line(line, 1, 1);
    }

    fn stream(&mut self, record: View<'_, Stream>) {
        let line = format_args!(
            "stream {} context {} priority {} {}",
            record.stream_id(),
            record.context_id(),
            record.priority(),
            names::stream_flag_name(record.flag())
        );
        self.line(line, 1, 1);
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cupti-130001")
}

/// Decodes the buffers of one run, and compares with the text beside them.
#[track_caller]
fn decoded(mode: &str) -> Text {
    let mut text = Text::default();
    let layout = Layout::of_version(130_001);
    for number in 1..=4 {
        let stem = folder().join(format!("{mode}-{number}"));
        if let Ok(names) = std::fs::read(stem.with_extension("names.json")) {
            let names: BTreeMap<u64, String> = serde_json::from_slice(&names).unwrap();
            text.names.extend(names);
        }
        writeln!(text.text, "-- buffer {number}").unwrap();
        let bytes = std::fs::read(stem.with_extension("bin")).unwrap();
        assert_eq!(decode(&bytes, &layout, &mut text), None, "{mode}, buffer {number}");
    }
    let expected = folder().join(format!("{mode}.txt"));
    if std::env::var_os("COLONEL_BLESS").is_some() {
        std::fs::write(&expected, &text.text).unwrap();
    }
    let expected = std::fs::read_to_string(expected).unwrap();
    assert!(text.text == expected, "{mode}.txt differs from\n{}", text.text);
    text
}

#[test]
fn buffers_of_a_real_gpu_give_what_they_gave() {
    for mode in ["eager", "graph"] {
        let text = decoded(mode);
        assert_eq!(text.kernels, 12, "as many as the program launched: {mode}");
        for wrong in ["NO NAME", "REVERSED"] {
            assert!(!text.text.contains(wrong), "{mode}: {wrong}");
        }
    }
}
