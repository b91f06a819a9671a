//! Work on its way to a stream: captured into a graph if the stream captures, else put on the stream's timeline and
//! announced to the tracer.

use std::sync::atomic::Ordering;

use sim_abi::{Op, Status, Submission, Synchronization, now_ns, op, status, sync, trace};

use crate::capture::GraphExec;
use crate::hooks::HOOKS;
use crate::init::ensure_initialized;
use crate::objects::{Context, Event, Stream};
use crate::timeline::{scaled, wait_until};

/// Where device memory lies: no host pointer can reach up there.
const DEVICE_MEMORY: u64 = 1 << 52;
const DEVICE_SHIFT: u32 = 44;

/// `CUpti_ActivityMemoryKind`.
const PAGEABLE: u8 = 1;
const DEVICE: u8 = 3;

/// The address of byte `offset` of a device's memory.
pub(crate) fn device_address(device: u32, offset: u64) -> u64 {
    DEVICE_MEMORY | u64::from(device) << DEVICE_SHIFT | offset
}

fn is_device(address: u64) -> bool {
    address & DEVICE_MEMORY != 0
}

fn device_of(address: u64) -> u32 {
    (address >> DEVICE_SHIFT) as u32 & 0xff
}

/// What every call that touches the GPU asks first.
pub(crate) fn ready() -> Result<(), Status> {
    ensure_initialized()?;
    if HOOKS.poisoned.load(Ordering::Acquire) != 0 {
        Err(status::LAUNCH_FAILED)
    } else {
        Ok(())
    }
}

/// Runs one operation on `stream`.
pub(crate) fn one(stream: &Stream, op: Op) {
    let op = Op {
        priority: stream.priority,
        ..op
    };
    if let Some(capture) = stream.capture() {
        return capture.add(&op);
    }
    let base_ns = stream.timeline.append(op.duration_ns);
    announce(stream, &[op], base_ns, 0);
}

/// Runs a graph on `stream`. A launch while capturing would make a child graph, which is not played.
pub(crate) fn graph(stream: &Stream, exec: &GraphExec) -> Result<(), Status> {
    if stream.capture().is_some() {
        return Err(status::STREAM_CAPTURE_UNSUPPORTED);
    }
    let replay = exec.replay();
    let base_ns = stream.timeline.append(replay.length_ns);
    announce(stream, &replay.ops, base_ns, exec.id());
    Ok(())
}

fn announce(stream: &Stream, ops: &[Op], base_ns: u64, graph_exec: u32) {
    let Some(tracer) = trace::tracer(&HOOKS) else { return };
    (tracer.submitted)(&Submission {
        ops: ops.as_ptr(),
        count: ops.len(),
        base_ns,
        device: stream.context.device(),
        context: stream.context.id(),
        stream: stream.id(),
        graph_exec,
    });
}

/// A copy of `bytes` between two addresses.
pub(crate) fn copy(dst: u64, src: u64, bytes: u64) -> Op {
    let (copy_kind, bytes_per_us) = match (is_device(src), is_device(dst)) {
        (false, true) => (1, 26_000),
        (true, false) => (2, 24_000),
        (true, true) => (8, 1_300_000),
        (false, false) => (9, 12_000),
    };
    let kind = |device| if device { DEVICE } else { PAGEABLE };
    Op {
        kind: op::MEMCPY,
        bytes,
        copy_kind,
        src_kind: kind(is_device(src)),
        dst_kind: kind(is_device(dst)),
        duration_ns: scaled(900 + bytes.saturating_mul(1_000) / bytes_per_us),
        ..Op::EMPTY
    }
}

/// A copy from one device to another.
pub(crate) fn copy_peer(dst: (u64, &Context), src: (u64, &Context), bytes: u64) -> Op {
    Op {
        kind: op::MEMCPY_PEER,
        copy_kind: 10,
        src_kind: DEVICE,
        dst_kind: DEVICE,
        src_device: device_of(src.0),
        src_context: src.1.id(),
        dst_device: device_of(dst.0),
        dst_context: dst.1.id(),
        duration_ns: scaled(1_500 + bytes.saturating_mul(1_000) / 320_000),
        bytes,
        ..Op::EMPTY
    }
}

/// A fill of `bytes`.
pub(crate) fn fill(value: u8, bytes: u64) -> Op {
    let duration_ns = scaled(900 + bytes.saturating_mul(1_000) / 2_000_000);
    Op {
        kind: op::MEMSET,
        value: u32::from(value),
        dst_kind: DEVICE,
        bytes,
        duration_ns,
        ..Op::EMPTY
    }
}

/// Waits for `done_at` and tells the tracer what was waited for.
pub(crate) fn synchronize(kind: u32, context: &Context, stream: Option<&Stream>, event: Option<&Event>, done_at: u64) {
    let start_ns = now_ns();
    if kind != sync::STREAM_WAIT_EVENT {
        wait_until(done_at);
    }
    let Some(tracer) = trace::tracer(&HOOKS) else { return };
    (tracer.synchronized)(&Synchronization {
        kind,
        context: context.id(),
        stream: stream.map_or(u32::MAX, Stream::id),
        event: event.map_or(u32::MAX, Event::id),
        start_ns,
        end_ns: now_ns(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_knows_its_direction_by_the_addresses() {
        let (host, device) = (0x7f00_1234_5678, device_address(1, 4096));
        let kinds = [(device, host), (host, device), (device, device), (host, host)]
            .map(|(dst, src)| copy(dst, src, 64))
            .map(|op| (op.copy_kind, op.src_kind, op.dst_kind));
        assert_eq!(kinds, [(1, 1, 3), (2, 3, 1), (8, 3, 3), (9, 1, 1)]);
        assert_eq!(device_of(device), 1);
    }

    #[test]
    fn larger_copies_take_longer_and_none_overflows() {
        let device = device_address(0, 0);
        assert!(copy(device, 1, 1 << 20).duration_ns > copy(device, 1, 64).duration_ns);
        assert!(copy(device, 1, u64::MAX).duration_ns > 0);
    }

    #[test]
    fn nothing_runs_before_the_driver_is_initialised() {
        assert_eq!(ready(), Err(status::NOT_INITIALIZED));
    }
}
