//! What the guest is as a file: the symbols that it puts into the host, what it needs of it, what runs when it is loaded.

#![allow(missing_docs, reason = "a test is its own documentation")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use object::elf::{self, DynamicTag, FileHeader64, ProgramFlags};
use object::read::elf::{Dyn, ElfFile64, FileHeader};
use object::{LittleEndian, Object, ObjectSection, ObjectSymbol, RelocationTarget};

type Header = FileHeader64<LittleEndian>;

/// Libraries that any process has, or that glibc brings: whatever else a host has mapped can't clash with them.
const LIBC_FAMILY: [&str; 6] = [
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "libpthread.so.0",
    "libdl.so.2",
    "ld-linux-x86-64.so.2",
];

fn guest() -> Vec<u8> {
    let path = Path::new(env!("CARGO_BIN_EXE_colonel")).with_file_name("libcolonel_guest.so");
    fs::read(&path).unwrap_or_else(|error| panic!("`{}`: {error}; `cargo build --workspace` first", path.display()))
}

/// Values of the dynamic section with this tag; text where they point to text.
fn dynamic(bytes: &[u8], tag: DynamicTag) -> Vec<(u64, Option<String>)> {
    let header = Header::parse(bytes).unwrap();
    let endian = LittleEndian;
    let sections = header.sections(endian, bytes).unwrap();
    let (entries, index) = sections.dynamic(endian, bytes).unwrap().expect("a dynamic section");
    let strings = sections.strings(endian, bytes, index).unwrap();
    let wanted = entries.iter().filter(|entry| entry.tag(endian) == tag);
    wanted
        .map(|entry| {
            let text = entry.string(endian, strings).ok();
            (
                entry.d_val(endian),
                text.map(|text| String::from_utf8_lossy(text).into_owned()),
            )
        })
        .collect()
}

fn texts(bytes: &[u8], tag: DynamicTag) -> Vec<String> {
    dynamic(bytes, tag).into_iter().filter_map(|(_, text)| text).collect()
}

#[test]
fn only_the_entry_points_the_interposed_symbols_and_the_open_windows_are_exported() {
    let bytes = guest();
    let file = ElfFile64::<LittleEndian>::parse(&*bytes).unwrap();
    let exported: BTreeSet<&str> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition())
        .map(|symbol| symbol.name().unwrap())
        .collect();
    let expected = [
        "COLONEL_OPEN_WINDOWS",
        "InitializeInjection",
        "InitializeInjectionNvtx2",
        "InitializeInjectionNvtxExtension",
        "_exit",
        "cuCtxDestroy_v2",
        "cuDevicePrimaryCtxRelease_v2",
        "cuDevicePrimaryCtxReset_v2",
        "cuGraphAddChildGraphNode",
        "cuGraphClone",
        "cuGraphDestroy",
        "cuGraphExecDestroy",
        "cuGraphExecUpdate_v2",
        "cuGraphInstantiateWithFlags",
        "cuGraphInstantiateWithParams",
        "cuGraphInstantiateWithParams_ptsz",
        "cuStreamBeginCaptureToGraph",
        "cuStreamBeginCaptureToGraph_ptsz",
        "cuStreamBeginCapture_v2",
        "cuStreamBeginCapture_v2_ptsz",
        "cuStreamDestroy_v2",
        "cuStreamEndCapture",
        "cuStreamEndCapture_ptsz",
        "cudaDeviceReset",
        "cudaGraphAddChildGraphNode",
        "cudaGraphClone",
        "cudaGraphDestroy",
        "cudaGraphExecDestroy",
        "cudaGraphExecUpdate",
        "cudaGraphInstantiate",
        "cudaGraphInstantiateWithFlags",
        "cudaGraphInstantiateWithParams",
        "cudaGraphInstantiateWithParams_ptsz",
        "cudaStreamBeginCapture",
        "cudaStreamBeginCaptureToGraph",
        "cudaStreamBeginCaptureToGraph_ptsz",
        "cudaStreamBeginCapture_ptsz",
        "cudaStreamDestroy",
        "cudaStreamEndCapture",
        "cudaStreamEndCapture_ptsz",
        "cuProfilerStart",
        "cuProfilerStop",
        "cudaProfilerStart",
        "cudaProfilerStop",
    ];
    assert_eq!(exported, BTreeSet::from(expected));
}

#[test]
fn it_has_a_name_of_its_own() {
    assert_eq!(texts(&guest(), elf::DT_SONAME), ["libcolonel_guest.so"]);
}

#[test]
fn it_is_never_unloaded() {
    let flags = dynamic(&guest(), elf::DT_FLAGS_1);
    assert_ne!(
        elf::DF_1_NODELETE.0 & flags[0].0,
        0,
        "CUPTI and the driver keep pointers into it"
    );
}

#[test]
fn it_needs_the_libc_family_and_nothing_else() {
    let needed = texts(&guest(), elf::DT_NEEDED);
    assert!(needed.contains(&"libc.so.6".to_owned()));
    let others: Vec<_> = needed
        .iter()
        .filter(|name| !LIBC_FAMILY.contains(&name.as_str()))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn it_names_no_folder_to_search() {
    let bytes = guest();
    assert_eq!(texts(&bytes, elf::DT_RPATH), [""; 0]);
    assert_eq!(texts(&bytes, elf::DT_RUNPATH), [""; 0]);
}

/// It is preloaded into every shell and compiler of a command: nothing of ours may run there. The two functions that do
/// come with every Rust library: the C start files' `frame_dummy`, which registers nothing, and the standard library's,
/// which keeps `argc` and `argv`.
#[test]
fn no_function_of_ours_runs_when_it_is_loaded() {
    let bytes = guest();
    let file = ElfFile64::<LittleEndian>::parse(&*bytes).unwrap();
    let array = file.section_by_name(".init_array").expect("the toolchain's own");
    assert_eq!(array.size(), 2 * 8, "two functions");
    let range = array.address()..array.address() + array.size();
    let relocations = file.dynamic_relocations().unwrap().filter(|(at, _)| range.contains(at));
    let functions: Vec<u64> = relocations
        .map(|(_, relocation)| {
            assert_eq!(relocation.target(), RelocationTarget::Absolute);
            relocation.addend().cast_unsigned()
        })
        .collect();
    let mut names: Vec<&str> = functions
        .iter()
        .filter_map(|address| {
            file.symbols()
                .find(|symbol| symbol.is_definition() && symbol.address() == *address)
        })
        .map(|symbol| symbol.name().unwrap())
        .collect();
    names.sort_unstable();
    // A stripped library has no names, only the number.
    if file.symbols().next().is_some() {
        let [std, frame_dummy] = names.as_slice() else {
            panic!("{names:?}")
        };
        assert_eq!(*frame_dummy, "frame_dummy");
        assert!(std.contains("3std") && std.contains("args"), "{std}");
    }
    assert!(dynamic(&bytes, elf::DT_PREINIT_ARRAY).is_empty());
}

#[test]
fn it_asks_for_no_executable_stack_and_no_text_relocations() {
    let bytes = guest();
    let header = Header::parse(&*bytes).unwrap();
    let segments = header.program_headers(LittleEndian, &*bytes).unwrap();
    let stack = segments
        .iter()
        .find(|segment| segment.p_type.get(LittleEndian) == elf::PT_GNU_STACK);
    let flags = stack.expect("a stack header").p_flags.get(LittleEndian);
    assert_eq!(flags & elf::PF_X, ProgramFlags(0));
    assert!(dynamic(&bytes, elf::DT_TEXTREL).is_empty());
}
