//! The activity records in their newest layout, that of CUPTI 13.5. An older library's record is a prefix of it: what
//! it lacks reads as zero, and the `*_SINCE` constants tell such a zero from a real one.
//!
//! Each field gives its offset and its name in NVIDIA's header; both are asserted here and, for every supported
//! version, by the header check.

use crate::constants::*;
use std::ffi::{c_char, c_void};

pub use crate::callbacks::{CallbackData, ResourceData, SubscriberHandle, SubscriberParams};
pub use crate::record::{Field, Record, View, read};

/// What an overhead, marker or name belongs to: which numbers count follows from the object kind.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectId(pub [u32; 3]);

impl ObjectId {
    /// Process, of an object of kind [`OBJECT_PROCESS`] or [`OBJECT_THREAD`].
    pub fn process_id(self) -> u32 {
        self.0[0]
    }

    /// Thread, of an object of kind [`OBJECT_THREAD`].
    pub fn thread_id(self) -> u32 {
        self.0[1]
    }

    /// Device, of an object of kind [`OBJECT_DEVICE`], [`OBJECT_CONTEXT`] or [`OBJECT_STREAM`].
    pub fn device_id(self) -> u32 {
        self.0[0]
    }

    /// Context, of an object of kind [`OBJECT_CONTEXT`] or [`OBJECT_STREAM`].
    pub fn context_id(self) -> u32 {
        self.0[1]
    }

    /// Stream, of an object of kind [`OBJECT_STREAM`].
    pub fn stream_id(self) -> u32 {
        self.0[2]
    }
}

const fn first(versions: &[u32]) -> u32 {
    if versions.is_empty() {
        API_VERSION_12_4
    } else {
        versions[0]
    }
}

/// Each entry: name, size in 12.4 and in 13.5, then its fields as `name: type = offset "name in the header"`, with
/// `since CONSTANT VERSION` for what came after 12.4. A field without a name in the header is padding.
macro_rules! records {
    ($(
        $(#[doc = $doc:literal])*
        $Record:ident $base:literal $size:literal {
            $( $field:ident: $type:ty = $offset:literal $( $c_name:literal $(since $SINCE:ident $version:ident)? )?; )*
        }
    )*) => { $(
        $(#[doc = $doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy)]
        pub struct $Record {
            $(
                #[doc = concat!("Byte ", $offset, $(": `", $c_name, "`", $(", since [`", stringify!($version), "`]",)?)? ".")]
                pub $field: $type,
            )*
        }

        const _: () = assert!(size_of::<$Record>() == $size && $size >= $base);
        const _: () = assert!(0 $( + size_of::<$type>() )* == $size, "implicit padding");
        $( const _: () = assert!(std::mem::offset_of!($Record, $field) == $offset); )*
        $( $( $(
            #[doc = concat!("First API version with [`", stringify!($Record), "::", stringify!($field), "`].")]
            pub const $SINCE: u32 = $version;
        )? )? )*

        // SAFETY: `repr(C)`, integers and raw pointers only, and the assertions above leave no implicit padding.
        unsafe impl Record for $Record {
            const BASE_SIZE: usize = $base;
            const FIELDS: &'static [Field] = &[ $( $( Field {
                c_name: $c_name,
                offset: $offset,
                size: size_of::<$type>(),
                since: first(&[ $( $version )? ]),
            }, )? )* ];
        }
        // SAFETY: plain data; its pointers are CUPTI's and nothing here follows them.
        unsafe impl Send for $Record {}
        // SAFETY: as above.
        unsafe impl Sync for $Record {}

        impl Default for $Record {
            fn default() -> Self {
                Self::zeroed()
            }
        }

        impl View<'_, $Record> {
            $( $(
                #[doc = concat!("`", $c_name, "`.")]
                #[inline]
                pub fn $field(&self) -> $type {
                    // SAFETY: fields are integers, arrays of them and raw pointers: any bytes do.
                    unsafe { self.field($offset) }
                }
            )? )*
        }
    )* };
}

type Text = *const c_char;
type Uuid = [u8; 16];

records! {
    /// A kernel that ran (`CUpti_ActivityKernel9` to `13`), kinds [`KIND_CONCURRENT_KERNEL`] and [`KIND_KERNEL`].
    Kernel 208 248 {
        kind: u32 = 0 "kind";
        cache_config: u8 = 4 "cacheConfig";
        shared_memory_config: u8 = 5 "sharedMemoryConfig";
        registers_per_thread: u16 = 6 "registersPerThread";
        partitioned_global_cache_requested: u32 = 8 "partitionedGlobalCacheRequested";
        partitioned_global_cache_executed: u32 = 12 "partitionedGlobalCacheExecuted";
        start: u64 = 16 "start";
        end: u64 = 24 "end";
        completed: u64 = 32 "completed";
        device_id: u32 = 40 "deviceId";
        context_id: u32 = 44 "contextId";
        stream_id: u32 = 48 "streamId";
        grid_x: i32 = 52 "gridX";
        grid_y: i32 = 56 "gridY";
        grid_z: i32 = 60 "gridZ";
        block_x: i32 = 64 "blockX";
        block_y: i32 = 68 "blockY";
        block_z: i32 = 72 "blockZ";
        static_shared_memory: i32 = 76 "staticSharedMemory";
        dynamic_shared_memory: i32 = 80 "dynamicSharedMemory";
        local_memory_per_thread: u32 = 84 "localMemoryPerThread";
        local_memory_total: u32 = 88 "localMemoryTotal";
        correlation_id: u32 = 92 "correlationId";
        grid_id: i64 = 96 "gridId";
        name: Text = 104 "name";
        reserved0: *mut c_void = 112;
        queued: u64 = 120 "queued";
        submitted: u64 = 128 "submitted";
        launch_type: u8 = 136 "launchType";
        is_shared_memory_carveout_requested: u8 = 137 "isSharedMemoryCarveoutRequested";
        shared_memory_carveout_requested: u8 = 138 "sharedMemoryCarveoutRequested";
        padding: u8 = 139;
        shared_memory_executed: u32 = 140 "sharedMemoryExecuted";
        graph_node_id: u64 = 144 "graphNodeId";
        shmem_limit_config: u32 = 152 "shmemLimitConfig";
        graph_id: u32 = 156 "graphId";
        access_policy_window: *mut c_void = 160 "pAccessPolicyWindow";
        channel_id: u32 = 168 "channelID";
        channel_type: u32 = 172 "channelType";
        cluster_x: u32 = 176 "clusterX";
        cluster_y: u32 = 180 "clusterY";
        cluster_z: u32 = 184 "clusterZ";
        cluster_scheduling_policy: u32 = 188 "clusterSchedulingPolicy";
        local_memory_total_v2: u64 = 192 "localMemoryTotal_v2";
        max_potential_cluster_size: u32 = 200 "maxPotentialClusterSize";
        max_active_clusters: u32 = 204 "maxActiveClusters";
        is_device_launched: u8 = 208 "isDeviceLaunched" since KERNEL_IS_DEVICE_LAUNCHED_SINCE API_VERSION_13_0;
        padding3: [u8; 7] = 209;
        priority: i32 = 216 "priority" since KERNEL_PRIORITY_SINCE API_VERSION_13_1;
        padding4: u32 = 220;
        execution_model: u32 = 224 "executionModel" since KERNEL_EXECUTION_MODEL_SINCE API_VERSION_13_3;
        padding5: u32 = 228;
        source_graph_id: u32 = 232 "sourceGraphId" since KERNEL_SOURCE_GRAPH_ID_SINCE API_VERSION_13_4;
        padding6: u32 = 236;
        source_graph_node_id: u64 = 240 "sourceGraphNodeId" since KERNEL_SOURCE_GRAPH_NODE_ID_SINCE API_VERSION_13_4;
    }

    /// A copy within a process (`CUpti_ActivityMemcpy5` to `7`), kind [`KIND_MEMCPY`].
    Memcpy 88 112 {
        kind: u32 = 0 "kind";
        copy_kind: u8 = 4 "copyKind";
        src_kind: u8 = 5 "srcKind";
        dst_kind: u8 = 6 "dstKind";
        flags: u8 = 7 "flags";
        bytes: u64 = 8 "bytes";
        start: u64 = 16 "start";
        end: u64 = 24 "end";
        device_id: u32 = 32 "deviceId";
        context_id: u32 = 36 "contextId";
        stream_id: u32 = 40 "streamId";
        correlation_id: u32 = 44 "correlationId";
        runtime_correlation_id: u32 = 48 "runtimeCorrelationId";
        pad: u32 = 52;
        reserved0: *mut c_void = 56;
        graph_node_id: u64 = 64 "graphNodeId";
        graph_id: u32 = 72 "graphId";
        channel_id: u32 = 76 "channelID";
        channel_type: u32 = 80 "channelType";
        is_device_launched: u8 = 84 "isDeviceLaunched" since MEMCPY_IS_DEVICE_LAUNCHED_SINCE API_VERSION_13_0;
        pad2: [u8; 3] = 85;
        copy_count: u64 = 88 "copyCount" since MEMCPY_COPY_COUNT_SINCE API_VERSION_12_8;
        source_graph_id: u32 = 96 "sourceGraphId" since MEMCPY_SOURCE_GRAPH_ID_SINCE API_VERSION_13_4;
        pad3: u32 = 100;
        source_graph_node_id: u64 = 104 "sourceGraphNodeId" since MEMCPY_SOURCE_GRAPH_NODE_ID_SINCE API_VERSION_13_4;
    }

    /// A copy between two contexts or GPUs (`CUpti_ActivityMemcpyPtoP4`), kind [`KIND_MEMCPY2`].
    MemcpyPeer 96 96 {
        kind: u32 = 0 "kind";
        copy_kind: u8 = 4 "copyKind";
        src_kind: u8 = 5 "srcKind";
        dst_kind: u8 = 6 "dstKind";
        flags: u8 = 7 "flags";
        bytes: u64 = 8 "bytes";
        start: u64 = 16 "start";
        end: u64 = 24 "end";
        device_id: u32 = 32 "deviceId";
        context_id: u32 = 36 "contextId";
        stream_id: u32 = 40 "streamId";
        src_device_id: u32 = 44 "srcDeviceId";
        src_context_id: u32 = 48 "srcContextId";
        dst_device_id: u32 = 52 "dstDeviceId";
        dst_context_id: u32 = 56 "dstContextId";
        correlation_id: u32 = 60 "correlationId";
        reserved0: *mut c_void = 64;
        graph_node_id: u64 = 72 "graphNodeId";
        graph_id: u32 = 80 "graphId";
        channel_id: u32 = 84 "channelID";
        channel_type: u32 = 88 "channelType";
        pad: u32 = 92;
    }

    /// A fill of memory (`CUpti_ActivityMemset4` and `5`), kind [`KIND_MEMSET`].
    Memset 88 104 {
        kind: u32 = 0 "kind";
        value: u32 = 4 "value";
        bytes: u64 = 8 "bytes";
        start: u64 = 16 "start";
        end: u64 = 24 "end";
        device_id: u32 = 32 "deviceId";
        context_id: u32 = 36 "contextId";
        stream_id: u32 = 40 "streamId";
        correlation_id: u32 = 44 "correlationId";
        flags: u16 = 48 "flags";
        memory_kind: u16 = 50 "memoryKind";
        pad: u32 = 52;
        reserved0: *mut c_void = 56;
        graph_node_id: u64 = 64 "graphNodeId";
        graph_id: u32 = 72 "graphId";
        channel_id: u32 = 76 "channelID";
        channel_type: u32 = 80 "channelType";
        is_device_launched: u8 = 84 "isDeviceLaunched" since MEMSET_IS_DEVICE_LAUNCHED_SINCE API_VERSION_13_0;
        pad2: [u8; 3] = 85;
        source_graph_id: u32 = 88 "sourceGraphId" since MEMSET_SOURCE_GRAPH_ID_SINCE API_VERSION_13_4;
        pad3: u32 = 92;
        source_graph_node_id: u64 = 96 "sourceGraphNodeId" since MEMSET_SOURCE_GRAPH_NODE_ID_SINCE API_VERSION_13_4;
    }

    /// A call of the runtime or driver (`CUpti_ActivityAPI`), kinds [`KIND_RUNTIME`], [`KIND_DRIVER`] and
    /// [`KIND_INTERNAL_LAUNCH_API`].
    Api 40 40 {
        kind: u32 = 0 "kind";
        cbid: u32 = 4 "cbid";
        start: u64 = 8 "start";
        end: u64 = 16 "end";
        process_id: u32 = 24 "processId";
        thread_id: u32 = 28 "threadId";
        correlation_id: u32 = 32 "correlationId";
        return_value: u32 = 36 "returnValue";
    }

    /// A wait (`CUpti_ActivitySynchronization` and `2`), kind [`KIND_SYNCHRONIZATION`].
    Synchronization 40 56 {
        kind: u32 = 0 "kind";
        sync_type: u32 = 4 "type";
        start: u64 = 8 "start";
        end: u64 = 16 "end";
        correlation_id: u32 = 24 "correlationId";
        context_id: u32 = 28 "contextId";
        stream_id: u32 = 32 "streamId";
        cuda_event_id: u32 = 36 "cudaEventId";
        cuda_event_sync_id: u64 = 40 "cudaEventSyncId" since SYNCHRONIZATION_CUDA_EVENT_SYNC_ID_SINCE API_VERSION_12_8;
        return_value: u32 = 48 "returnValue" since SYNCHRONIZATION_RETURN_VALUE_SINCE API_VERSION_12_8;
        pad: u32 = 52;
    }

    /// Time that tracing took (`CUpti_ActivityOverhead3`), kind [`KIND_OVERHEAD`].
    Overhead 56 56 {
        kind: u32 = 0 "kind";
        overhead_kind: u32 = 4 "overheadKind";
        object_kind: u32 = 8 "objectKind";
        object_id: ObjectId = 12 "objectId";
        start: u64 = 24 "start";
        end: u64 = 32 "end";
        correlation_id: u32 = 40 "correlationId";
        reserved0: u32 = 44;
        overhead_data: *mut c_void = 48 "overheadData";
    }

    /// A GPU (`CUpti_ActivityDevice5` and `6`), kind [`KIND_DEVICE`]. The reader frees `name`.
    Device 184 192 {
        kind: u32 = 0 "kind";
        flags: u32 = 4 "flags";
        global_memory_bandwidth: u64 = 8 "globalMemoryBandwidth";
        global_memory_size: u64 = 16 "globalMemorySize";
        constant_memory_size: u32 = 24 "constantMemorySize";
        l2_cache_size: u32 = 28 "l2CacheSize";
        num_threads_per_warp: u32 = 32 "numThreadsPerWarp";
        core_clock_rate: u32 = 36 "coreClockRate";
        num_memcpy_engines: u32 = 40 "numMemcpyEngines";
        num_multiprocessors: u32 = 44 "numMultiprocessors";
        max_ipc: u32 = 48 "maxIPC";
        max_warps_per_multiprocessor: u32 = 52 "maxWarpsPerMultiprocessor";
        max_blocks_per_multiprocessor: u32 = 56 "maxBlocksPerMultiprocessor";
        max_shared_memory_per_multiprocessor: u32 = 60 "maxSharedMemoryPerMultiprocessor";
        max_registers_per_multiprocessor: u32 = 64 "maxRegistersPerMultiprocessor";
        max_registers_per_block: u32 = 68 "maxRegistersPerBlock";
        max_shared_memory_per_block: u32 = 72 "maxSharedMemoryPerBlock";
        max_threads_per_block: u32 = 76 "maxThreadsPerBlock";
        max_block_dim_x: u32 = 80 "maxBlockDimX";
        max_block_dim_y: u32 = 84 "maxBlockDimY";
        max_block_dim_z: u32 = 88 "maxBlockDimZ";
        max_grid_dim_x: u32 = 92 "maxGridDimX";
        max_grid_dim_y: u32 = 96 "maxGridDimY";
        max_grid_dim_z: u32 = 100 "maxGridDimZ";
        compute_capability_major: u32 = 104 "computeCapabilityMajor";
        compute_capability_minor: u32 = 108 "computeCapabilityMinor";
        id: u32 = 112 "id";
        ecc_enabled: u32 = 116 "eccEnabled";
        uuid: Uuid = 120 "uuid";
        name: Text = 136 "name";
        is_cuda_visible: u8 = 144 "isCudaVisible";
        is_mig_enabled: u8 = 145 "isMigEnabled";
        reserved: [u8; 6] = 146;
        gpu_instance_id: u32 = 152 "gpuInstanceId";
        compute_instance_id: u32 = 156 "computeInstanceId";
        mig_uuid: Uuid = 160 "migUuid";
        is_numa_node: u32 = 176 "isNumaNode";
        numa_id: u32 = 180 "numaId";
        num_tpcs: u32 = 184 "numTpcs" since DEVICE_NUM_TPCS_SINCE API_VERSION_13_2;
        reserved0: u32 = 188;
    }

    /// A context (`CUpti_ActivityContext2` to `4`), kind [`KIND_CONTEXT`].
    Context 24 40 {
        kind: u32 = 0 "kind";
        context_id: u32 = 4 "contextId";
        device_id: u32 = 8 "deviceId";
        compute_api_kind: u16 = 12 "computeApiKind";
        null_stream_id: u16 = 14 "nullStreamId";
        parent_context_id: u32 = 16 "parentContextId";
        is_green_context: u8 = 20 "isGreenContext";
        padding: u8 = 21;
        num_multiprocessors: u16 = 22 "numMultiprocessors" since CONTEXT_NUM_MULTIPROCESSORS_SINCE API_VERSION_12_5;
        cig_mode: u32 = 24 "cigMode" since CONTEXT_CIG_MODE_SINCE API_VERSION_12_5;
        padding2: u32 = 28;
        process_id: u64 = 32 "processId" since CONTEXT_PROCESS_ID_SINCE API_VERSION_13_1;
    }

    /// A stream (`CUpti_ActivityStream`), kind [`KIND_STREAM`].
    Stream 24 24 {
        kind: u32 = 0 "kind";
        context_id: u32 = 4 "contextId";
        stream_id: u32 = 8 "streamId";
        priority: u32 = 12 "priority";
        flag: u32 = 16 "flag";
        correlation_id: u32 = 20 "correlationId";
    }

    /// An NVTX marker (`CUpti_ActivityMarker2`), kind [`KIND_MARKER`]. An end has no name.
    Marker 56 56 {
        kind: u32 = 0 "kind";
        flags: u32 = 4 "flags";
        timestamp: u64 = 8 "timestamp";
        id: u32 = 16 "id";
        object_kind: u32 = 20 "objectKind";
        object_id: ObjectId = 24 "objectId";
        pad: u32 = 36;
        name: Text = 40 "name";
        domain: Text = 48 "domain";
    }

    /// What a marker carries (`CUpti_ActivityMarkerData` and `2`), kind [`KIND_MARKER_DATA`].
    MarkerData 32 40 {
        kind: u32 = 0 "kind";
        flags: u32 = 4 "flags";
        id: u32 = 8 "id";
        payload_kind: u32 = 12 "payloadKind";
        payload: u64 = 16 "payload";
        color: u32 = 24 "color";
        category: u32 = 28 "category";
        cupti_domain_id: u32 = 32 "cuptiDomainId" since MARKER_DATA_CUPTI_DOMAIN_ID_SINCE API_VERSION_13_0;
        padding: u32 = 36;
    }

    /// The name that a program gave to a thread, device, context or stream (`CUpti_ActivityName`), kind [`KIND_NAME`].
    Name 32 32 {
        kind: u32 = 0 "kind";
        object_kind: u32 = 4 "objectKind";
        object_id: ObjectId = 8 "objectId";
        pad: u32 = 20;
        name: Text = 24 "name";
    }

    /// A launch of a whole graph (`CUpti_ActivityGraphTrace2`), kind [`KIND_GRAPH_TRACE`].
    GraphTrace 56 56 {
        kind: u32 = 0 "kind";
        correlation_id: u32 = 4 "correlationId";
        start: u64 = 8 "start";
        end: u64 = 16 "end";
        device_id: u32 = 24 "deviceId";
        graph_id: u32 = 28 "graphId";
        context_id: u32 = 32 "contextId";
        stream_id: u32 = 36 "streamId";
        reserved: *mut c_void = 40;
        end_device_id: u32 = 48 "endDeviceId";
        end_context_id: u32 = 52 "endContextId";
    }

    /// An id pushed by the program, for the API call that follows (`CUpti_ActivityExternalCorrelation`), kind
    /// [`KIND_EXTERNAL_CORRELATION`].
    ExternalCorrelation 24 24 {
        kind: u32 = 0 "kind";
        external_kind: u32 = 4 "externalKind";
        external_id: u64 = 8 "externalId";
        correlation_id: u32 = 16 "correlationId";
        reserved: u32 = 20;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_record_reads_as_zero_where_it_is_shorter() {
        let newest = Kernel {
            kind: KIND_CONCURRENT_KERNEL,
            start: 10,
            max_active_clusters: 5,
            is_device_launched: 1,
            priority: -3,
            source_graph_node_id: 9,
            ..Kernel::zeroed()
        };
        let old = read::<Kernel>(&newest.as_bytes()[..208]);
        assert_eq!((old.start, old.max_active_clusters), (10, 5));
        assert_eq!(
            (old.is_device_launched, old.priority, old.source_graph_node_id),
            (0, 0, 0)
        );
        assert_eq!(read::<Kernel>(newest.as_bytes()).priority, -3);
    }

    #[test]
    fn a_view_agrees_with_the_copy_at_every_length() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in Kernel::BASE_SIZE..=256 {
            // Off by one: neither may rely on alignment.
            let record = &bytes[1..][..length.min(255)];
            let (view, copy) = (View::<Kernel>::new(record).unwrap(), read::<Kernel>(record));
            assert_eq!((view.start(), view.name()), (copy.start, copy.name));
            assert_eq!(view.is_device_launched(), copy.is_device_launched, "length {length}");
            // A field cut in the middle is zero in a view, and part of it in a copy; no library cuts so.
            if !(217..220).contains(&length) {
                assert_eq!(view.priority(), copy.priority, "length {length}");
            }
        }
        assert!(View::<Kernel>::new(&bytes[..207]).is_none());
    }

    #[test]
    fn fields_know_where_they_are_and_since_when() {
        let field = |name| *Kernel::FIELDS.iter().find(|field| field.c_name == name).unwrap();
        let priority = Field {
            c_name: "priority",
            offset: 216,
            size: 4,
            since: API_VERSION_13_1,
        };
        assert_eq!(field("priority"), priority);
        assert_eq!(field("graphNodeId").since, API_VERSION_12_4);
        assert_eq!(KERNEL_PRIORITY_SINCE, API_VERSION_13_1);
    }
}
