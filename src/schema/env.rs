//! The environment between launcher and guest: one table, from which parser, check and docs come.

/// A variable of colonel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Name.
    pub name: &'static str,
    /// Who reads it: `guest`, `cli` or `python`.
    pub reader: &'static str,
    /// What it means, for docs.
    pub doc: &'static str,
}

macro_rules! variables {
    ($( $constant:ident = $name:literal, $reader:literal, $doc:literal; )*) => {
        $( #[doc = $doc] pub const $constant: &str = $name; )*
        /// All of them.
        pub const ALL: &[Variable] = &[ $( Variable { name: $name, reader: $reader, doc: $doc }, )* ];
    };
}

variables! {
    SESSION = "COLONEL_SESSION", "guest", "Absolute path of the session folder. Without it the guest does nothing.";
    GATE = "COLONEL_GATE", "guest", "What opens a window: `process`, `profiler`, `manual` or `nvtx:NAME[@DOMAIN]`.";
    GATE_BY = "COLONEL_GATE_BY", "guest", "How cudaProfilerStart/Stop is seen: `preload`, `callback` or `auto`.";
    AFTER = "COLONEL_AFTER_NS", "guest", "Delay between the trigger and the window, ns.";
    FOR = "COLONEL_FOR_NS", "guest", "Longest window, ns.";
    TRACE = "COLONEL_TRACE", "guest", "More record kinds, comma-separated: `api`.";
    NVTX_CHAIN = "COLONEL_NVTX_CHAIN", "guest", "Path of the NVTX injection that another tool had set, which is called first.";
    NVTX_MARKS = "COLONEL_NVTX_MARKS", "guest", "`0`: ends of NVTX ranges are not placed among the launches, so that kernels get no `nvtx_path`. Saves two driver calls a range while a window is open.";
    COUNTERS = "COLONEL_COUNTERS", "guest", "Hardware counters to sample while a window is open: sets, colonel's metrics or NVIDIA's, comma-separated. None without it.";
    COUNTERS_INTERVAL = "COLONEL_COUNTERS_INTERVAL_NS", "guest", "Time between two samples, ns; without it 100000, or longer where the metrics need that.";
    RECORDS = "COLONEL_RECORDS", "guest", "`0`: no kernel or other record is taken, and CUPTI is not subscribed to; hardware counters alone.";
    BURST = "COLONEL_BURST_NS", "guest", "Records are taken in bursts of this length, ns, within an open window. All the time without it.";
    BURST_EVERY = "COLONEL_BURST_EVERY_NS", "guest", "From one burst to the next in the mean, ns; 1000000000 without it.";
    GUEST = "COLONEL_GUEST", "cli", "Path of libcolonel_guest.so, where it is not beside the program.";
    CUPTI = "COLONEL_CUPTI", "guest", "Path of the libcupti to use where the process has none mapped.";
    COMMAND = "COLONEL_COMMAND", "cli", "`1` in the command that nsys or ncu runs and in its children, by which they are told from the profiler's own processes.";
    RUNTIME = "COLONEL_RUNTIME", "guest", "Folder of the control sockets, short enough for a socket's 108 bytes.";
    LOG = "COLONEL_LOG", "guest", "`1` or `debug`: the guest says on stderr what it does. Silent without it.";
    DUMP_BUFFERS = "COLONEL_DUMP_BUFFERS", "guest", "Folder to which raw activity buffers are copied, for golden tests.";
    DISABLE_PROFILE_REGION = "COLONEL_DISABLE_PROFILE_REGION", "python", "`1` makes profile_region a no-op.";
    VLLM_ENABLE_NVTX = "COLONEL_VLLM_ENABLE_NVTX", "python", "`1`: colonel's plugin gives vLLM's steps and layers NVTX ranges; `0`: it does not. Set by `--flavor vllm`.";
    EVALUATOR = "COLONEL_EVALUATOR", "python", "Who records, so how profile_region opens a window: `cupti`, …";
    LLM_API_KEY = "COLONEL_LLM_API_KEY", "cli", "Key that `colonel analyze --llm` sends to the endpoint. Never stored or shown.";
    SESSIONS_DIR = "COLONEL_SESSIONS_DIR", "cli", "Folder of the sessions, `.colonel/sessions` without it.";
}
