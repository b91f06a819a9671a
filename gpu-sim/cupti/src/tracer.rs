//! What the driver tells us, turned into callbacks and records.

use std::sync::atomic::AtomicU64;

use cupti_sys::constants::*;
use sim_abi::{ApiCall, Op, Resource, Status, Submission, Synchronization, Tracer, op};

use crate::buffers::{POOL, Writer};
use crate::faults::faults;
use crate::kinds::{self, KINDS_ENABLED, bit};
use crate::records::{self, Place, every};
use crate::{correlation, counters, driver, overwrite, subscriber, takeover};

/// What the driver calls.
pub(crate) static TRACER: Tracer = Tracer {
    enter,
    exit,
    submitted,
    synchronized,
    resource,
};

extern "C" fn enter(call: &ApiCall) {
    correlation::enter(
        &call.scratch,
        kinds::of_call(&KINDS_ENABLED, call.domain, call.cbid).is_some(),
        subscriber::wants(call.domain, call.cbid),
    );
    if let Some(hooks) = driver::hooks() {
        subscriber::call(hooks, call, SITE_ENTER, 0);
    }
}

extern "C" fn exit(call: &ApiCall, result: Status) {
    if let Some(hooks) = driver::hooks() {
        subscriber::call(hooks, call, SITE_EXIT, result);
    }
    // A call during which its kind was turned on has no begin, and no record.
    let timed = call.scratch.start_ns.get() != 0;
    if let Some(kind) = kinds::of_call(&KINDS_ENABLED, call.domain, call.cbid).filter(|_| timed) {
        let record = records::api(call, kind, result);
        POOL.write(|writer| {
            if !is_dropped() {
                records::push(writer, kind, &record, 0);
            }
        });
    }
    correlation::exit(&call.scratch);
}

extern "C" fn submitted(submission: &Submission) {
    let kinds = KINDS_ENABLED.of_work(submission.graph_exec);
    let kernel_kind = if kinds & bit(KIND_CONCURRENT_KERNEL) != 0 {
        KIND_CONCURRENT_KERNEL
    } else {
        KIND_KERNEL
    };
    let wanted = bit(kernel_kind) | bit(KIND_MEMCPY) | bit(KIND_MEMCPY2) | bit(KIND_MEMSET);
    // SAFETY: the driver gives `count` operations there, for the length of this call.
    let ops = unsafe { std::slice::from_raw_parts(submission.ops, submission.count) };
    let of_graph = submission.graph_exec != 0;
    let with_kernels = kinds & bit(kernel_kind) != 0;
    if kinds & wanted != 0 {
        let correlation = correlation::current();
        POOL.write(|writer| {
            ops.iter()
                .for_each(|op| operation(writer, op, submission, correlation, kinds, kernel_kind))
        });
        if of_graph && with_kernels {
            kinds::graph_launched();
            overwrite::recorded(submission.graph_exec, correlation);
        }
    }
    if of_graph && !with_kernels {
        overwrite::not_recorded(submission, ops);
    }
    counters::submitted(submission, ops);
    if faults().takeover.is_some() {
        takeover::count(ops.iter().filter(|op| op.kind == op::KERNEL).count() as u64);
    }
}

/// Whether a fault drops this record; it is counted then.
fn is_dropped() -> bool {
    static RECORDS: AtomicU64 = AtomicU64::new(0);
    let dropped = every(&RECORDS, faults().drop);
    if dropped {
        POOL.drop_records(1);
    }
    dropped
}

#[inline]
fn operation(
    writer: &mut Writer<'_>,
    op: &Op,
    submission: &Submission,
    correlation: u32,
    kinds: u64,
    kernel_kind: u32,
) {
    let kind = match op.kind {
        op::KERNEL => kernel_kind,
        op::MEMCPY => KIND_MEMCPY,
        op::MEMCPY_PEER => KIND_MEMCPY2,
        _ => KIND_MEMSET,
    };
    if kinds & bit(kind) == 0 || is_dropped() {
        return;
    }
    let start = submission.base_ns + op.offset_ns;
    let end = start + op.duration_ns;
    let ready_at = end + records::late_ns();
    let mut place = Place {
        submission,
        correlation,
        start,
        end,
    };
    match op.kind {
        op::KERNEL => {
            (place.start, place.end) = faulty_times(start, end);
            records::push(writer, kind, &records::kernel(op, &place, kind), ready_at);
        }
        op::MEMCPY => records::push(writer, kind, &records::memcpy(op, &place), ready_at),
        op::MEMCPY_PEER => records::push(writer, kind, &records::memcpy_peer(op, &place), ready_at),
        _ => records::push(writer, kind, &records::memset(op, &place), ready_at),
    }
}

fn faulty_times(start: u64, end: u64) -> (u64, u64) {
    static ZERO: AtomicU64 = AtomicU64::new(0);
    static REVERSED: AtomicU64 = AtomicU64::new(0);
    if every(&ZERO, faults().zero_timestamps) {
        (0, 0)
    } else if every(&REVERSED, faults().reversed) {
        (end, start)
    } else {
        (start, end)
    }
}

extern "C" fn synchronized(event: &Synchronization) {
    if KINDS_ENABLED.is_enabled(KIND_SYNCHRONIZATION) {
        let record = records::synchronization(event, correlation::current());
        POOL.write(|writer| records::push(writer, KIND_SYNCHRONIZATION, &record, 0));
    }
}

extern "C" fn resource(resource: &Resource) {
    match resource.cbid {
        CBID_RESOURCE_CONTEXT_CREATED => record_context(resource),
        CBID_RESOURCE_STREAM_CREATED => record_stream(resource),
        CBID_RESOURCE_GRAPHEXEC_CREATED => KINDS_ENABLED.graph_created(resource.graph_exec_id),
        CBID_RESOURCE_GRAPHEXEC_DESTROY_STARTING => {
            KINDS_ENABLED.graph_destroyed(resource.graph_exec_id);
            overwrite::graph_destroyed(resource.graph_exec_id);
        }
        _ => {}
    }
    subscriber::resource(resource);
}

/// A context comes with its device and its null stream. What existed before a kind was enabled is never recorded.
fn record_context(resource: &Resource) {
    if let Some(hooks) = driver::hooks().filter(|_| KINDS_ENABLED.is_enabled(KIND_DEVICE)) {
        let record = records::device(hooks, resource.device);
        POOL.write(|writer| records::push(writer, KIND_DEVICE, &record, 0));
    }
    if KINDS_ENABLED.is_enabled(KIND_CONTEXT) {
        let record = records::context(resource);
        POOL.write(|writer| records::push(writer, KIND_CONTEXT, &record, 0));
    }
    let null_stream = Resource {
        stream_flag: STREAM_NULL,
        ..*resource
    };
    record_stream(&null_stream);
}

fn record_stream(resource: &Resource) {
    if KINDS_ENABLED.is_enabled(KIND_STREAM) {
        let record = records::stream(resource, correlation::current());
        POOL.write(|writer| records::push(writer, KIND_STREAM, &record, 0));
    }
}
