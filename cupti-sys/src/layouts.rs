//! How long a record is, by its kind and the loaded library's API version, and which fields it has.
//!
//! A library always writes the newest structure that it knows. Versions between two known ones have the older layout,
//! versions after 13.5 are taken to have that of 13.5.

use crate::constants::*;
use crate::records::{self as r, Field, Record};

pub use crate::records::{View, read};

/// One structure that records of a kind had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// First API version that writes it.
    pub since: u32,
    /// Its name in NVIDIA's header, without `CUpti_Activity`.
    pub c_name: &'static str,
    /// Its bytes.
    pub size: usize,
}

/// What is known of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Kind of record.
    pub kind: u32,
    /// Its structures, oldest first.
    pub versions: &'static [Version],
    /// Fields that colonel reads, empty for kinds it only steps over.
    pub fields: &'static [Field],
}

const V12_4: u32 = API_VERSION_12_4;
const V12_5: u32 = API_VERSION_12_5;
const V12_6: u32 = API_VERSION_12_6;
const V12_8: u32 = API_VERSION_12_8;
const V12_9: u32 = API_VERSION_12_9;
const V13_0: u32 = API_VERSION_13_0;
const V13_1: u32 = API_VERSION_13_1;
const V13_2: u32 = API_VERSION_13_2;
// 13.2.75: the one change known to have come in an update.
const V13_2_1: u32 = 130_201;
const V13_3: u32 = API_VERSION_13_3;
const V13_4: u32 = API_VERSION_13_4;
const V13_5: u32 = API_VERSION_13_5;

macro_rules! layouts {
    ($( $kind:ident [$( $since:ident $c_name:ident $size:literal ),*] $(as $Record:ty)?; )*) => {
        /// Every kind whose records can be stepped over: all but those that CUPTI 13 dropped (events, metrics,
        /// source-level counters), which colonel never turns on.
        pub const LAYOUTS: &[Layout] = &[ $( Layout {
            kind: $kind,
            versions: &[ $( Version { since: $since, c_name: stringify!($c_name), size: $size } ),* ],
            fields: fields(&[ $( <$Record>::FIELDS )? ]),
        }, )* ];
        $( const _: () = check(&[ $( $size ),* ], &[ $( (<$Record>::BASE_SIZE, size_of::<$Record>()) )? ]); )*
    };
}

/// The record struct is the newest version's, and its base the oldest's.
const fn check(sizes: &[usize], of_record: &[(usize, usize)]) {
    if !of_record.is_empty() {
        assert!(sizes[0] == of_record[0].0 && sizes[sizes.len() - 1] == of_record[0].1);
    }
}

const fn fields(of_record: &[&'static [Field]]) -> &'static [Field] {
    if of_record.is_empty() { &[] } else { of_record[0] }
}

layouts! {
    KIND_CONCURRENT_KERNEL [
        V12_4 Kernel9 208, V13_0 Kernel10 216, V13_1 Kernel11 224, V13_3 Kernel12 232, V13_4 Kernel13 248
    ] as r::Kernel;
    KIND_KERNEL [
        V12_4 Kernel9 208, V13_0 Kernel10 216, V13_1 Kernel11 224, V13_3 Kernel12 232, V13_4 Kernel13 248
    ] as r::Kernel;
    KIND_MEMCPY [V12_4 Memcpy5 88, V12_8 Memcpy6 96, V13_4 Memcpy7 112] as r::Memcpy;
    KIND_MEMCPY2 [V12_4 MemcpyPtoP4 96] as r::MemcpyPeer;
    KIND_MEMSET [V12_4 Memset4 88, V13_4 Memset5 104] as r::Memset;
    KIND_DRIVER [V12_4 API 40] as r::Api;
    KIND_RUNTIME [V12_4 API 40] as r::Api;
    KIND_INTERNAL_LAUNCH_API [V12_4 API 40] as r::Api;
    KIND_SYNCHRONIZATION [V12_4 Synchronization 40, V12_8 Synchronization2 56] as r::Synchronization;
    KIND_OVERHEAD [V12_4 Overhead3 56] as r::Overhead;
    KIND_DEVICE [V12_4 Device5 184, V13_2 Device6 192] as r::Device;
    KIND_CONTEXT [V12_4 Context2 24, V12_5 Context3 32, V13_1 Context4 40] as r::Context;
    KIND_STREAM [V12_4 Stream 24] as r::Stream;
    KIND_MARKER [V12_4 Marker2 56] as r::Marker;
    KIND_MARKER_DATA [V12_4 MarkerData 32, V13_0 MarkerData2 40] as r::MarkerData;
    KIND_NAME [V12_4 Name 32] as r::Name;
    KIND_GRAPH_TRACE [V12_4 GraphTrace2 56] as r::GraphTrace;
    KIND_EXTERNAL_CORRELATION [V12_4 ExternalCorrelation 24] as r::ExternalCorrelation;
    KIND_DEVICE_ATTRIBUTE [V12_4 DeviceAttribute 24];
    KIND_MEMORY [V12_4 Memory 80];
    KIND_MEMORY2 [V12_4 Memory3 120, V12_6 Memory4 128];
    KIND_MEMORY_POOL [V12_4 MemoryPool2 72, V13_0 MemoryPool3 80];
    KIND_MODULE [V12_4 Module 24];
    KIND_FUNCTION [V12_4 Function 32];
    KIND_CUDA_EVENT [V12_4 CudaEvent 24, V12_8 CudaEvent2 56, V13_5 CudaEvent3 80];
    KIND_NVLINK [V12_4 NvLink4 136, V13_2 NvLink5 88];
    KIND_PCIE [V12_4 Pcie 168];
    KIND_ENVIRONMENT [V12_4 Environment 40];
    KIND_JIT [V12_4 Jit2 72];
    KIND_UNIFIED_MEMORY_COUNTER [V12_4 UnifiedMemoryCounter2 64, V12_8 UnifiedMemoryCounter3 104];
    KIND_CDP_KERNEL [V12_4 CdpKernel 144];
    KIND_PREEMPTION [V12_4 Preemption 40];
    KIND_OPENACC_DATA [V12_4 OpenAccData 152];
    KIND_OPENACC_LAUNCH [V12_4 OpenAccLaunch 152];
    KIND_OPENACC_OTHER [V12_4 OpenAccOther 120];
    KIND_OPENMP [V12_4 OpenMp 40];
    KIND_DEVICE_GRAPH_TRACE [V12_8 DeviceGraphTrace 56];
    KIND_MEM_DECOMPRESS [V12_8 MemDecompress 64];
    KIND_CONFIDENTIAL_COMPUTE_ROTATION [V12_9 ConfidentialComputeRotation 32];
    KIND_GRAPH_HOST_NODE [V13_1 GraphHostNode 56];
    KIND_COMPUTE_ENGINE_CTX_SWITCH [V13_1 ComputeEngineCtxSwitch 24];
    KIND_HOST_LAUNCH [V13_1 HostLaunch 48];
    KIND_GREEN_CONTEXT [V13_2 GreenContext 152, V13_2_1 GreenContext2 168, V13_4 GreenContext3 304];
}

/// What is known of `kind`.
pub fn layout(kind: u32) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|layout| layout.kind == kind)
}

/// The structure that a library of `api_version` writes for `kind`.
pub fn version(kind: u32, api_version: u32) -> Option<&'static Version> {
    layout(kind)?
        .versions
        .iter()
        .rev()
        .find(|version| version.since <= api_version)
}

/// Bytes of a record of `kind` from a library of `api_version`: the way to the next record. `None` for a kind that is
/// not known, or not in that version; below 12.4 nothing is known.
///
/// A walk over many records does better with [`Strides`].
pub fn record_size(kind: u32, api_version: u32) -> Option<usize> {
    version(kind, api_version).map(|version| version.size)
}

/// Whether a record of `kind` from a library of `api_version` has the field that NVIDIA's header calls `c_name`.
pub fn has_field(kind: u32, c_name: &str, api_version: u32) -> bool {
    let fields = layout(kind).map_or(&[][..], |layout| layout.fields);
    record_size(kind, api_version).is_some()
        && fields
            .iter()
            .any(|field| field.c_name == c_name && field.since <= api_version)
}

/// [`record_size`] of every kind for one library, as a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strides([u16; Strides::KINDS]);

impl Strides {
    const KINDS: usize = 64;

    /// The table of a library of `api_version`.
    pub fn new(api_version: u32) -> Self {
        let mut table = [0; Self::KINDS];
        for layout in LAYOUTS {
            // No record is near 64 KiB.
            table[layout.kind as usize] = record_size(layout.kind, api_version).unwrap_or(0) as u16;
        }
        Self(table)
    }

    /// Bytes of a record of `kind`.
    #[inline]
    pub fn get(&self, kind: u32) -> Option<usize> {
        match self.0.get(kind as usize) {
            None | Some(0) => None,
            Some(size) => Some(usize::from(*size)),
        }
    }

    /// Sets the size of `kind`, as `cuptiActivityGetStructSize` of a newer library gives it.
    pub fn set(&mut self, kind: u32, size: usize) {
        if let (Some(entry), Ok(size)) = (self.0.get_mut(kind as usize), u16::try_from(size)) {
            *entry = size;
        }
    }

    /// Splits the first record off `buffer`: its kind and its bytes. `None` at the end, or where the rest can't be
    /// read: its kind is unknown, or less than a record is left.
    #[inline]
    pub fn next<'a>(&self, buffer: &mut &'a [u8]) -> Option<(u32, &'a [u8])> {
        let kind = u32::from_ne_bytes(*buffer.first_chunk()?);
        let (record, rest) = buffer.split_at_checked(self.get(kind)?)?;
        *buffer = rest;
        Some((kind, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSIONS: [u32; 12] = [
        API_VERSION_12_4,
        API_VERSION_12_5,
        API_VERSION_12_6,
        API_VERSION_12_8,
        API_VERSION_12_9,
        28,
        130_001,
        130_101,
        130_202,
        130_301,
        130_401,
        API_VERSION_13_5,
    ];

    #[test]
    fn sizes_are_those_of_each_version() {
        let kernel = VERSIONS.map(|version| record_size(KIND_CONCURRENT_KERNEL, version).unwrap());
        assert_eq!(kernel, [208, 208, 208, 208, 208, 208, 216, 224, 224, 232, 248, 248]);
        let memcpy = VERSIONS.map(|version| record_size(KIND_MEMCPY, version).unwrap());
        assert_eq!(memcpy, [88, 88, 88, 96, 96, 96, 96, 96, 96, 96, 112, 112]);
        let nvlink = VERSIONS.map(|version| record_size(KIND_NVLINK, version).unwrap());
        assert_eq!(record_size(KIND_GREEN_CONTEXT, 130_200), Some(152), "13.2.23");
        assert_eq!(record_size(KIND_GREEN_CONTEXT, 130_201), Some(168), "13.2.75");
        assert_eq!(nvlink, [136, 136, 136, 136, 136, 136, 136, 136, 88, 88, 88, 88]);
    }

    #[test]
    fn unknown_versions_take_the_layout_below_them() {
        assert_eq!(record_size(KIND_MEMCPY, 25), Some(88), "between 12.6 and 12.8");
        assert_eq!(
            record_size(KIND_CONCURRENT_KERNEL, 130_099),
            Some(216),
            "a late update of 13.0"
        );
        assert_eq!(record_size(KIND_CONCURRENT_KERNEL, 131_000), Some(248), "after 13.5");
        assert_eq!(record_size(KIND_CONCURRENT_KERNEL, 21), None, "before 12.4");
        assert_eq!(record_size(KIND_GREEN_CONTEXT, 130_101), None, "a kind of 13.2");
        assert_eq!(record_size(12_345, API_VERSION_13_5), None);
    }

    #[test]
    fn fields_appear_when_they_did() {
        let priority = |version| has_field(KIND_CONCURRENT_KERNEL, "priority", version);
        assert_eq!(
            [28, 130_001, 130_100, 130_500].map(priority),
            [false, false, true, true]
        );
        assert!(!has_field(KIND_MEMCPY, "isDeviceLaunched", 28), "padding until 13.0");
        assert!(has_field(KIND_MEMCPY, "isDeviceLaunched", 130_001));
        assert!(!has_field(KIND_CONTEXT, "numMultiprocessors", 22), "padding until 12.5");
        assert!(!has_field(KIND_MEMCPY, "start", 21));
        assert!(!has_field(KIND_MEMCPY, "nonsense", 130_500));
    }

    #[test]
    fn a_field_lies_within_every_record_said_to_have_it() {
        for layout in LAYOUTS {
            for field in layout.fields {
                let size = record_size(layout.kind, field.since).unwrap();
                assert!(
                    field.offset + field.size <= size,
                    "{} of kind {}",
                    field.c_name,
                    layout.kind
                );
            }
            assert!(
                layout.versions.is_sorted_by_key(|version| version.since),
                "kind {}",
                layout.kind
            );
            assert!(
                layout.versions.iter().all(|version| version.size % 8 == 0),
                "kind {}",
                layout.kind
            );
        }
    }

    #[test]
    fn strides_walk_a_mixed_buffer_and_stop_at_what_they_cannot_read() {
        let strides = Strides::new(API_VERSION_12_4);
        let kernel = r::Kernel {
            kind: KIND_CONCURRENT_KERNEL,
            correlation_id: 7,
            ..r::Kernel::zeroed()
        };
        let api = r::Api {
            kind: KIND_RUNTIME,
            correlation_id: 7,
            ..r::Api::zeroed()
        };
        let mut bytes = kernel.as_bytes()[..208].to_vec();
        bytes.extend_from_slice(api.as_bytes());
        bytes.extend_from_slice(&4000u32.to_ne_bytes());
        bytes.extend_from_slice(&[0; 60]);

        let mut rest = &bytes[..];
        let (kind, record) = strides.next(&mut rest).unwrap();
        assert_eq!((kind, record.len()), (KIND_CONCURRENT_KERNEL, 208));
        assert_eq!(View::<r::Kernel>::new(record).unwrap().correlation_id(), 7);
        let (kind, record) = strides.next(&mut rest).unwrap();
        assert_eq!((kind, read::<r::Api>(record).correlation_id), (KIND_RUNTIME, 7));
        assert_eq!(strides.next(&mut rest), None, "kind 4000");
        assert_eq!(rest.len(), 64, "what can't be read is left");
        assert_eq!(strides.next(&mut &api.as_bytes()[..39]), None, "a record cut off");
        assert_eq!(strides.next(&mut &[1u8, 0][..]), None, "a kind cut off");
    }

    #[test]
    fn strides_take_sizes_from_a_newer_library() {
        let mut strides = Strides::new(API_VERSION_13_5);
        assert_eq!(strides.get(63), None);
        strides.set(63, 72);
        assert_eq!(strides.get(63), Some(72));
        strides.set(64, 72);
        assert_eq!(strides.get(64), None, "beyond the table");
    }
}
