//! The tables of nsys's SQLite export that are written, with the names and types of its schema 3.28: its own report
//! scripts and others' select by them. What a session does not know is null.

/// `EXPORT_SCHEMA_VERSION`.
pub(super) const VERSION: &str = "3.28.1";

/// Made in every export.
pub(super) const ALWAYS: &str = "
CREATE TABLE StringIds (id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE META_DATA_EXPORT (name TEXT NOT NULL, value TEXT);
CREATE TABLE META_DATA_CAPTURE (name TEXT NOT NULL, value TEXT);
CREATE TABLE TARGET_INFO_SESSION_START_TIME (utcEpochNs INTEGER, utcTime TEXT, localTime TEXT, systemClockNs INTEGER,
    sessionStartCntVctNs INTEGER);
CREATE TABLE ANALYSIS_DETAILS (globalVid INTEGER NOT NULL, duration INTEGER NOT NULL, startTime INTEGER NOT NULL,
    stopTime INTEGER NOT NULL);
CREATE TABLE PROCESSES (globalPid INTEGER, pid INTEGER, name TEXT);
CREATE TABLE TARGET_INFO_CUDA_DEVICE (gpuId INTEGER, cudaId INTEGER, pid INTEGER, uuid TEXT, numMultiprocessors INTEGER);
CREATE TABLE TARGET_INFO_GPU (vmId INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT, busLocation TEXT,
    isDiscrete INTEGER, l2CacheSize INTEGER, totalMemory INTEGER, memoryBandwidth INTEGER, clockRate INTEGER,
    smCount INTEGER, pwGpuId INTEGER, uuid TEXT, luid INTEGER, chipName TEXT, cuDevice INTEGER, ctxswDevPath TEXT,
    ctrlDevPath TEXT, revision INTEGER, nodeMask INTEGER, constantMemory INTEGER, maxIPC INTEGER,
    maxRegistersPerBlock INTEGER, maxShmemPerBlock INTEGER, maxShmemPerBlockOptin INTEGER, maxShmemPerSm INTEGER,
    maxRegistersPerSm INTEGER, threadsPerWarp INTEGER, asyncEngines INTEGER, maxWarpsPerSm INTEGER,
    maxBlocksPerSm INTEGER, maxThreadsPerBlock INTEGER, maxBlockDimX INTEGER, maxBlockDimY INTEGER,
    maxBlockDimZ INTEGER, maxGridDimX INTEGER, maxGridDimY INTEGER, maxGridDimZ INTEGER, computeMajor INTEGER,
    computeMinor INTEGER, smMajor INTEGER, smMinor INTEGER, numaNodeId INTEGER);
CREATE TABLE ENUM_CUDA_MEMCPY_OPER (id INTEGER NOT NULL PRIMARY KEY, name TEXT, label TEXT);
CREATE TABLE ENUM_CUDA_MEM_KIND (id INTEGER NOT NULL PRIMARY KEY, name TEXT, label TEXT);
CREATE TABLE ENUM_CUPTI_SYNC_TYPE (id INTEGER NOT NULL PRIMARY KEY, name TEXT, label TEXT);
CREATE TABLE ENUM_NSYS_EVENT_TYPE (id INTEGER NOT NULL PRIMARY KEY, name TEXT, label TEXT);
";

/// A table of events, made where there are some.
pub(super) struct EventTable {
    pub(super) name: &'static str,
    /// Columns that are written, with their types.
    pub(super) columns: &'static [&'static str],
    /// Columns of the schema that stay null.
    pub(super) others: &'static [&'static str],
}

pub(super) const KERNELS: EventTable = EventTable {
    name: "CUPTI_ACTIVITY_KIND_KERNEL",
    columns: &[
        "start INTEGER NOT NULL",
        "end INTEGER NOT NULL",
        "deviceId INTEGER NOT NULL",
        "contextId INTEGER NOT NULL",
        "streamId INTEGER NOT NULL",
        "correlationId INTEGER",
        "globalPid INTEGER",
        "demangledName INTEGER NOT NULL",
        "shortName INTEGER NOT NULL",
        "mangledName INTEGER",
        "registersPerThread INTEGER NOT NULL",
        "gridX INTEGER NOT NULL",
        "gridY INTEGER NOT NULL",
        "gridZ INTEGER NOT NULL",
        "blockX INTEGER NOT NULL",
        "blockY INTEGER NOT NULL",
        "blockZ INTEGER NOT NULL",
        "staticSharedMemory INTEGER NOT NULL",
        "dynamicSharedMemory INTEGER NOT NULL",
        "localMemoryPerThread INTEGER NOT NULL",
        "localMemoryTotal INTEGER NOT NULL",
        "gridId INTEGER NOT NULL",
        "graphNodeId INTEGER",
        "graphId INTEGER",
        "clusterX INTEGER",
        "clusterY INTEGER",
        "clusterZ INTEGER",
    ],
    others: &[
        "greenContextId INTEGER",
        "launchType INTEGER",
        "cacheConfig INTEGER",
        "sharedMemoryExecuted INTEGER",
        "sharedMemoryLimitConfig INTEGER",
        "qmdBulkReleaseDone INTEGER",
        "qmdPreexitDone INTEGER",
        "qmdLastCtaDone INTEGER",
        "clusterSchedulingPolicy INTEGER",
        "maxPotentialClusterSize INTEGER",
        "maxActiveClusters INTEGER",
        "sharedMemoryRequestedPercentage INTEGER",
        "tensorSizeMinusOneElements TEXT",
    ],
};

pub(super) const MEMCPYS: EventTable = EventTable {
    name: "CUPTI_ACTIVITY_KIND_MEMCPY",
    columns: &[
        "start INTEGER NOT NULL",
        "end INTEGER NOT NULL",
        "deviceId INTEGER NOT NULL",
        "contextId INTEGER NOT NULL",
        "streamId INTEGER NOT NULL",
        "correlationId INTEGER",
        "globalPid INTEGER",
        "bytes INTEGER NOT NULL",
        "copyKind INTEGER NOT NULL",
        "srcKind INTEGER",
        "dstKind INTEGER",
        "srcDeviceId INTEGER",
        "dstDeviceId INTEGER",
        "graphNodeId INTEGER",
    ],
    others: &[
        "greenContextId INTEGER",
        "deprecatedSrcId INTEGER",
        "srcContextId INTEGER",
        "dstContextId INTEGER",
        "migrationCause INTEGER",
        "virtualAddress INTEGER",
        "copyCount INTEGER",
    ],
};

pub(super) const MEMSETS: EventTable = EventTable {
    name: "CUPTI_ACTIVITY_KIND_MEMSET",
    columns: &[
        "start INTEGER NOT NULL",
        "end INTEGER NOT NULL",
        "deviceId INTEGER NOT NULL",
        "contextId INTEGER NOT NULL",
        "streamId INTEGER NOT NULL",
        "correlationId INTEGER",
        "globalPid INTEGER",
        "value INTEGER NOT NULL",
        "bytes INTEGER NOT NULL",
        "graphNodeId INTEGER",
        "memKind INTEGER",
    ],
    others: &["greenContextId INTEGER"],
};

pub(super) const SYNCHRONIZATIONS: EventTable = EventTable {
    name: "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION",
    columns: &[
        "start INTEGER NOT NULL",
        "end INTEGER NOT NULL",
        "deviceId INTEGER",
        "contextId INTEGER NOT NULL",
        "streamId INTEGER",
        "correlationId INTEGER",
        "globalPid INTEGER",
        "syncType INTEGER NOT NULL",
        "eventId INTEGER",
    ],
    others: &[
        "greenContextId INTEGER",
        "deprecatedSyncType INTEGER",
        "eventSyncId INTEGER",
    ],
};

pub(super) const CALLS: EventTable = EventTable {
    name: "CUPTI_ACTIVITY_KIND_RUNTIME",
    columns: &[
        "start INTEGER NOT NULL",
        "end INTEGER NOT NULL",
        "eventClass INTEGER NOT NULL",
        "globalTid INTEGER",
        "correlationId INTEGER",
        "nameId INTEGER NOT NULL",
        "returnValue INTEGER NOT NULL",
    ],
    others: &["callchainId INTEGER"],
};

pub(super) const RANGES: EventTable = EventTable {
    name: "NVTX_EVENTS",
    columns: &[
        "start INTEGER NOT NULL",
        "end INTEGER",
        "eventType INTEGER NOT NULL",
        "text TEXT",
        "globalTid INTEGER",
        "endGlobalTid INTEGER",
        "textId INTEGER",
        "domainId INTEGER",
        "eventId INTEGER PRIMARY KEY",
    ],
    others: &[
        "rangeId INTEGER",
        "category INTEGER",
        "color INTEGER",
        "uint64Value INTEGER",
        "int64Value INTEGER",
        "doubleValue REAL",
        "uint32Value INTEGER",
        "int32Value INTEGER",
        "floatValue REAL",
        "jsonTextId INTEGER",
        "jsonText TEXT",
        "binaryData BLOB",
    ],
};

impl EventTable {
    pub(super) fn create(&self) -> String {
        let columns: Vec<_> = self.columns.iter().chain(self.others).copied().collect();
        format!("CREATE TABLE {} ({})", self.name, quote_end(&columns).join(", "))
    }

    pub(super) fn insert(&self) -> String {
        let names: Vec<_> = self
            .columns
            .iter()
            .filter_map(|column| column.split(' ').next())
            .collect();
        let places = vec!["?"; names.len()].join(", ");
        format!(
            "INSERT INTO {} ({}) VALUES ({places})",
            self.name,
            quote_end(&names).join(", ")
        )
    }
}

/// `end` is a word of SQL.
fn quote_end(columns: &[&str]) -> Vec<String> {
    let quote = |column: &&str| match column.strip_prefix("end") {
        Some(rest) if rest.is_empty() || rest.starts_with(' ') => format!("\"end\"{rest}"),
        _ => (*column).to_owned(),
    };
    columns.iter().map(quote).collect()
}

/// Numbers of nsys's enums: what a session says, nsys's name, and its label.
pub(super) type Names = &'static [(i64, &'static str, &'static str, &'static str)];

pub(super) const COPY_KINDS: Names = &[
    (0, "unknown", "CUDA_MEMCPY_KIND_UNKNOWN", "Unknown"),
    (1, "HtoD", "CUDA_MEMCPY_KIND_HTOD", "Host-to-Device"),
    (2, "DtoH", "CUDA_MEMCPY_KIND_DTOH", "Device-to-Host"),
    (3, "HtoA", "CUDA_MEMCPY_KIND_HTOA", "Host-to-Array"),
    (4, "AtoH", "CUDA_MEMCPY_KIND_ATOH", "Array-to-Host"),
    (5, "AtoA", "CUDA_MEMCPY_KIND_ATOA", "Array-to-Array"),
    (6, "AtoD", "CUDA_MEMCPY_KIND_ATOD", "Array-to-Device"),
    (7, "DtoA", "CUDA_MEMCPY_KIND_DTOA", "Device-to-Array"),
    (8, "DtoD", "CUDA_MEMCPY_KIND_DTOD", "Device-to-Device"),
    (9, "HtoH", "CUDA_MEMCPY_KIND_HTOH", "Host-to-Host"),
    (10, "PtoP", "CUDA_MEMCPY_KIND_PTOP", "Peer-to-Peer"),
];

pub(super) const MEMORY_KINDS: Names = &[
    (0, "pageable", "CUDA_MEMOPR_MEMORY_KIND_PAGEABLE", "Pageable"),
    (1, "pinned", "CUDA_MEMOPR_MEMORY_KIND_PINNED", "Pinned"),
    (2, "device", "CUDA_MEMOPR_MEMORY_KIND_DEVICE", "Device"),
    (3, "array", "CUDA_MEMOPR_MEMORY_KIND_ARRAY", "Array"),
    (4, "managed", "CUDA_MEMOPR_MEMORY_KIND_MANAGED", "Managed"),
    (
        5,
        "device_static",
        "CUDA_MEMOPR_MEMORY_KIND_DEVICE_STATIC",
        "Device Static",
    ),
    (
        6,
        "managed_static",
        "CUDA_MEMOPR_MEMORY_KIND_MANAGED_STATIC",
        "Managed Static",
    ),
    (7, "unknown", "CUDA_MEMOPR_MEMORY_KIND_UNKNOWN", "Unknown"),
];

pub(super) const SYNC_KINDS: Names = &[
    (0, "unknown", "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_UNKNOWN", "Unknown"),
    (
        1,
        "event",
        "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_EVENT_SYNCHRONIZE",
        "Event sync",
    ),
    (
        2,
        "stream_wait_event",
        "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_WAIT_EVENT",
        "Stream wait event sync",
    ),
    (
        3,
        "stream",
        "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_SYNCHRONIZE",
        "Stream sync",
    ),
    (
        4,
        "context",
        "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_CONTEXT_SYNCHRONIZE",
        "Context sync",
    ),
];

pub(super) const RANGE_KINDS: Names = &[
    (34, "mark", "NvtxMark", "NvtxMark"),
    (59, "push_pop", "NvtxPushPopRange", "NvtxPushPopRange"),
    (60, "start_end", "NvtxStartEndRange", "NvtxStartEndRange"),
];

/// nsys's number; that of the first, unknown, for what it does not have.
pub(super) fn number(names: Names, ours: &str) -> i64 {
    let found = names.iter().find(|(_, name, ..)| *name == ours);
    found.or(names.first()).map_or(0, |&(number, ..)| number)
}
