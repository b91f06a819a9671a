//! Every table of a session, defined once. The writer's Arrow schema, the rows, the reader's expectations and
//! docs/schema.md come from here.
//!
//! Times are Unix nanoseconds, sizes bytes. A column that this CUPTI version can't give is null, never zero.

use crate::schema::columns::kinds::*;
use crate::schema::columns::{Column, Kind, Table, TableBuilder};
use arrow_array::{ArrayRef, RecordBatch};

/// The reader asked for fewer columns than it wants to see.
fn no_column(table: &str) -> ! {
    panic!("the batch lacks columns of `{table}`")
}

macro_rules! tables {
    ($(
        #[doc = $table_doc:literal]
        $table:ident $Row:ident $Builder:ident {
            $( $column:ident : $kind:ident = $doc:literal, )*
        }
    )*) => {
        $(
            #[doc = concat!("One row of `", stringify!($table), "`.")]
            #[derive(Debug)]
            pub struct $Row<'a> {
                $( #[doc = $doc] pub $column: <$kind as Kind>::Value<'a>, )*
            }

            #[doc = concat!("Collects rows of `", stringify!($table), "`.")]
            #[derive(Debug, Default)]
            pub struct $Builder {
                rows: usize,
                $( $column: <$kind as Kind>::Buffer, )*
            }

            impl TableBuilder for $Builder {
                type Row<'a> = $Row<'a>;
                fn table() -> Table {
                    Table {
                        name: stringify!($table),
                        doc: $table_doc.trim_ascii(),
                        columns: vec![
                            $( Column {
                                name: stringify!($column),
                                data_type: <$kind as Kind>::data_type(),
                                nullable: <$kind as Kind>::NULLABLE,
                                doc: $doc,
                            }, )*
                        ],
                    }
                }
                fn push(&mut self, row: $Row<'_>) {
                    self.rows += 1;
                    $( <$kind as Kind>::push(&mut self.$column, row.$column); )*
                }
                fn len(&self) -> usize {
                    self.rows
                }
                fn finish(&mut self) -> Vec<ArrayRef> {
                    self.rows = 0;
                    vec![ $( <$kind as Kind>::finish(&mut self.$column), )* ]
                }
                fn row(batch: &RecordBatch, row: usize) -> $Row<'_> {
                    let mut columns = batch.columns().iter();
                    let mut next = || columns.next().unwrap_or_else(|| no_column(stringify!($table)));
                    $Row { $( $column: <$kind as Kind>::get(next(), row), )* }
                }
            }
        )*

        /// Every table, in the order of docs/schema.md.
        pub fn all() -> Vec<Table> {
            vec![ $( $Builder::table(), )* ]
        }
    };
}

tables! {
    /// A kernel that ran on a GPU, launched alone or as a node of a CUDA graph.
    kernels KernelRow KernelsBuilder {
        pid: U32 = "Process that launched it.",
        start_ns: I64 = "Start of execution, Unix ns.",
        end_ns: I64 = "End of execution, Unix ns.",
        name: Text = "Demangled name; the mangled one where it does not demangle.",
        short_name: Text = "Function name without namespaces, template arguments and parameters.",
        mangled_name: Text = "Name as the module has it.",
        device_id: U32 = "CUDA device ordinal in its process.",
        context_id: U32 = "CUPTI's id of the context.",
        stream_id: U32 = "CUPTI's id of the stream.",
        correlation_id: U32 = "Id of the launching API call; all kernels of one graph launch share it.",
        graph_id: MaybeU32 = "Executable graph that the kernel was a node of; null outside graphs.",
        graph_node_id: MaybeU64 = "Node of that graph; the upper 32 bits are the executable graph's id. Null outside graphs.",
        grid_x: I32 = "Grid, in blocks.",
        grid_y: I32 = "Grid, in blocks.",
        grid_z: I32 = "Grid, in blocks.",
        block_x: I32 = "Block, in threads.",
        block_y: I32 = "Block, in threads.",
        block_z: I32 = "Block, in threads.",
        cluster_x: U32 = "Thread-block cluster, in blocks; 0 without clusters.",
        cluster_y: U32 = "Thread-block cluster, in blocks; 0 without clusters.",
        cluster_z: U32 = "Thread-block cluster, in blocks; 0 without clusters.",
        registers_per_thread: U32 = "Registers a thread.",
        static_shared_bytes: U32 = "Static shared memory a block.",
        dynamic_shared_bytes: U32 = "Dynamic shared memory a block.",
        local_bytes_per_thread: U32 = "Local memory a thread.",
        priority: MaybeI32 = "Priority of the launch; null before CUPTI 13.1.",
        window: U32 = "Window in which it was launched; of several that were open, the one opened last.",
        nvtx_path: MaybeText = "NVTX ranges it lies in, outermost first, joined by `/`: of a node of a CUDA graph those that were open when it was captured, where `graph_ranges` knows the graph; else those open at its launch.",
        launch_nvtx_path: MaybeText = "NVTX ranges open at its launch; of a node of a CUDA graph at the launch of the graph.",
        layer: MaybeText = "Part of the model that it belongs to: a layer's number, or a name.",
        layer_source: MaybeText = "What says so: `nvtx`, the names of ranges, or `structure`, the repetition of kernels.",
        waves: MaybeF64 = "Grid size over the blocks that the GPU holds at once. Added by compaction or the reader.",
        theoretical_occupancy_pct: MaybeF64 = "Warps resident on an SM, per cent of its maximum. Added by compaction or the reader.",
    }
    /// A sample of a hardware counter: what a whole GPU did in a short stretch of time (with `--counters`). Samples of one metric follow each other without overlap.
    counters CounterRow CountersBuilder {
        pid: U32 = "Process that sampled. What it counted is of the whole GPU, also of other processes.",
        device_id: U32 = "CUDA device ordinal in its process.",
        start_ns: I64 = "Start of the sample, Unix ns, on the clock of `kernels`.",
        end_ns: I64 = "End of the sample, Unix ns.",
        metric: Text = "Metric: colonel's name, the same on every chip (`dram_throughput`), or NVIDIA's where it was asked for by that.",
        value: MaybeF64 = "Its value over the sample; null where the hardware gave none.",
        unit: Text = "`%` of the chip's peak, `bytes` within the sample, `Hz`, or `count`.",
        window: U32 = "Window in which it was taken; of several that were open, the one opened last.",
    }
    /// A figure of a kernel from hardware counters.
    kernel_counters KernelCounterRow KernelCountersBuilder {
        pid: U32 = "Process that launched the kernel.",
        correlation_id: MaybeU32 = "Launch that it is of, as in `kernels`; null where it is of all launches of that name.",
        device_id: U32 = "CUDA device ordinal in its process.",
        name: Text = "Kernel, as `kernels.name`.",
        short_name: Text = "Kernel, as `kernels.short_name`.",
        metric: Text = "Metric, as NVIDIA names it: `dram__throughput.avg.pct_of_peak_sustained_elapsed`.",
        value: MaybeF64 = "Its value; null where it could not be measured.",
        low: MaybeF64 = "Lower bound, where the value is an estimate.",
        high: MaybeF64 = "Upper bound, where the value is an estimate.",
        unit: MaybeText = "Unit, as the source writes it; null without one.",
        source: Text = "What measured it: `ncu`.",
    }
    /// A copy of memory, also one between two GPUs.
    memcpys MemcpyRow MemcpysBuilder {
        pid: U32 = "Process that asked for it.",
        start_ns: I64 = "Start, Unix ns.",
        end_ns: I64 = "End, Unix ns.",
        copy_kind: Text = "Direction: `HtoD`, `DtoH`, `DtoD`, `HtoH`, `PtoP`, `HtoA`, `AtoH`, `AtoA`, `AtoD`, `DtoA` or `unknown`.",
        src_kind: Text = "Memory read: `pageable`, `pinned`, `device`, `array`, `managed`, `device_static`, `managed_static` or `unknown`.",
        dst_kind: Text = "Memory written, as `src_kind`.",
        bytes: U64 = "Bytes copied.",
        is_async: MaybeFlag = "Whether the call was asynchronous.",
        device_id: U32 = "CUDA device ordinal.",
        context_id: U32 = "CUPTI's id of the context.",
        stream_id: U32 = "CUPTI's id of the stream.",
        src_device_id: MaybeU32 = "Source GPU of a peer copy, else null.",
        dst_device_id: MaybeU32 = "Destination GPU of a peer copy, else null.",
        correlation_id: U32 = "Id of the API call.",
        graph_id: MaybeU32 = "Executable graph, null outside graphs.",
        graph_node_id: MaybeU64 = "Node of that graph, null outside graphs.",
        window: U32 = "Window in which it was launched; of several that were open, the one opened last.",
    }
    /// A fill of memory.
    memsets MemsetRow MemsetsBuilder {
        pid: U32 = "Process that asked for it.",
        start_ns: I64 = "Start, Unix ns.",
        end_ns: I64 = "End, Unix ns.",
        value: U32 = "Value written.",
        bytes: U64 = "Bytes written.",
        memory_kind: Text = "Memory written, as `memcpys.src_kind`.",
        device_id: U32 = "CUDA device ordinal.",
        context_id: U32 = "CUPTI's id of the context.",
        stream_id: U32 = "CUPTI's id of the stream.",
        correlation_id: U32 = "Id of the API call.",
        graph_id: MaybeU32 = "Executable graph, null outside graphs.",
        graph_node_id: MaybeU64 = "Node of that graph, null outside graphs.",
        window: U32 = "Window in which it was launched; of several that were open, the one opened last.",
    }
    /// A wait of the host for the GPU, or of a stream for an event.
    synchronizations SynchronizationRow SynchronizationsBuilder {
        pid: U32 = "Process.",
        start_ns: I64 = "Start, Unix ns.",
        end_ns: I64 = "End, Unix ns.",
        sync_kind: Text = "`event`, `stream_wait_event`, `stream`, `context` or `unknown`.",
        context_id: U32 = "CUPTI's id of the context.",
        stream_id: MaybeU32 = "CUPTI's id of the stream; null for a context or where it is invalid.",
        event_id: MaybeU32 = "CUPTI's id of the event, else null.",
        correlation_id: U32 = "Id of the API call.",
        window: U32 = "Window in which it was asked for.",
    }
    /// A call of the CUDA runtime or driver (with `--trace api`).
    api_calls ApiCallRow ApiCallsBuilder {
        pid: U32 = "Process.",
        thread_id: U32 = "Thread that called, as the kernel numbers it where CUPTI gives that.",
        start_ns: I64 = "Entry, Unix ns.",
        end_ns: I64 = "Return, Unix ns.",
        api: Text = "`runtime` or `driver`.",
        name: Text = "Function.",
        cbid: U32 = "CUPTI's callback id of the function.",
        correlation_id: U32 = "Joins with kernels, memcpys and memsets.",
        return_value: U32 = "The call's status, 0 is success.",
        window: U32 = "Window in which it was made.",
    }
    /// Time that CUPTI or the driver took for tracing itself.
    overheads OverheadRow OverheadsBuilder {
        pid: U32 = "Process.",
        start_ns: I64 = "Start, Unix ns.",
        end_ns: I64 = "End, Unix ns.",
        overhead_kind: Text = "`driver_compiler`, `cupti_buffer_flush`, `cupti_instrumentation`, `cupti_resource`, `runtime_triggered_module_loading`, `lazy_function_loading`, `command_buffer_full`, `activity_buffer_request`, `uvm_activity_init` or `unknown`.",
        thread_id: MaybeU32 = "Thread, where CUPTI says so.",
        correlation_id: MaybeU32 = "Id of the API call it happened in, null where none.",
        window: U32 = "Window.",
    }
    /// An NVTX range, or a mark. One that is open as the last window closes is told then; if it ends in a later window, it has a row for that one, too.
    nvtx_ranges NvtxRangeRow NvtxRangesBuilder {
        pid: U32 = "Process.",
        thread_id: U32 = "Thread that pushed or started it, as the kernel numbers it.",
        domain: MaybeText = "Name of its domain; null for the default one.",
        name: Text = "Its message. What is not UTF-8 is replaced, what is longer than 4096 bytes is cut.",
        category: MaybeText = "Name of its category, or the number where it has none; null without category.",
        payload: MaybeText = "The number that came with it, as text.",
        kind: Text = "`push_pop`, `start_end` or `mark`.",
        depth: U32 = "Pushed ranges of its thread, of any domain, that it lies in, as of its end.",
        path: Text = "Names of those and its own, outermost first, joined by `/`. Of one longer than 4096 bytes, `…` and the end.",
        start_ns: I64 = "Start, Unix ns; also where it lies before the window.",
        end_ns: MaybeI64 = "End, Unix ns; null where it was open as the last window closed, or as its thread ended.",
        start_correlation_id: MaybeU32 = "Newest correlation id at its start, or at the opening of the window that it was open before: what it launched has later ones. Null where no id could be had.",
        end_correlation_id: MaybeU32 = "Newest correlation id at its end, or at the closing of the last window: what it launched has none later. Null where no id could be had.",
        window: U32 = "Window in which it started; of one that was open before, or told as open before, in which it ended.",
    }
    /// Nodes of an executable CUDA graph that were captured within the same NVTX ranges. A graph that is updated has rows anew.
    graph_ranges GraphRangeRow GraphRangesBuilder {
        pid: U32 = "Process.",
        graph_id: U32 = "Executable graph, as `kernels.graph_id`.",
        since_ns: I64 = "Instantiated or updated, Unix ns: holds for what is launched from then on.",
        since_correlation_id: MaybeU32 = "Newest correlation id at that time; null where no window was open.",
        node_begin: U32 = "First of the nodes, as the lower 32 bits of `kernels.graph_node_id` count them.",
        node_end: U32 = "The node after the last of them.",
        nvtx_path: MaybeText = "Ranges that were open on the capturing thread, outermost first, joined by `/`; within a child graph those of the child's own capture come behind. Null where none was.",
    }
    /// A stretch of time in which records count: one start/stop pair of the gate. Windows of a process may nest and overlap.
    windows WindowRow WindowsBuilder {
        pid: U32 = "Process.",
        window: U32 = "Number, from 1, in its process.",
        start_ns: I64 = "Opened, Unix ns.",
        end_ns: MaybeI64 = "Closed, Unix ns; null while open or cut off.",
        trigger: Text = "`process`, `profiler`, `manual`, `region`, `nvtx`, or `burst` of `--mode sampled`.",
        name: MaybeText = "Name given by who opened it.",
    }
    /// A GPU as the process saw it.
    devices DeviceRow DevicesBuilder {
        pid: U32 = "Process.",
        device_id: U32 = "CUDA device ordinal.",
        name: Text = "Product name.",
        uuid: MaybeText = "UUID as nvidia-smi prints it.",
        compute_major: U32 = "Compute capability, major.",
        compute_minor: U32 = "Compute capability, minor.",
        sm_count: U32 = "Streaming multiprocessors.",
        max_threads_per_sm: U32 = "Threads that an SM holds.",
        max_blocks_per_sm: U32 = "Blocks that an SM holds.",
        registers_per_sm: U32 = "Registers of an SM.",
        shared_bytes_per_sm: U32 = "Shared memory of an SM.",
        reserved_shared_bytes_per_block: U32 = "Shared memory that the driver keeps a block.",
        warp_size: U32 = "Threads of a warp.",
        l2_bytes: U64 = "L2 cache.",
        memory_bytes: U64 = "Device memory.",
        memory_bandwidth_bytes_per_s: MaybeU64 = "Peak, from clock and bus width.",
        clock_khz: U32 = "Peak SM clock.",
    }
    /// A CUDA context, as CUPTI announces it.
    contexts ContextRow ContextsBuilder {
        pid: U32 = "Process.",
        context_id: U32 = "CUPTI's id.",
        device_id: U32 = "CUDA device ordinal.",
        null_stream_id: U32 = "CUPTI's id of the default stream.",
    }
    /// A CUDA stream, as CUPTI announces it.
    streams StreamRow StreamsBuilder {
        pid: U32 = "Process.",
        context_id: U32 = "CUPTI's id of the context.",
        stream_id: U32 = "CUPTI's id.",
        priority: I32 = "Priority; lower is more urgent.",
        stream_kind: Text = "`default`, `non_blocking`, `null`, `mask` or `unknown`.",
    }
    /// Records that did not become rows, by kind and reason.
    losses LossRow LossesBuilder {
        pid: U32 = "Process.",
        kind: Text = "Table that the records would have gone to, or `records` where unknown.",
        reason: Text = "`buffers_exhausted`, `dropped_by_cupti`, `invalid_timestamp`, `unknown_kind`, `truncated_buffer`, `write_failed`, `callbacks_replaced`, `not_sealed`, `queue_full`, `too_many_open`, `too_many_graphs`, `hardware_buffer_full`, `file_unreadable`.",
        count: MaybeU64 = "Records; null where nobody can tell how many.",
        first_ns: I64 = "First seen, Unix ns.",
        last_ns: I64 = "Last seen, Unix ns.",
    }
}
