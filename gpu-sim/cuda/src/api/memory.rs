//! Memory. Addresses are given out, nothing lies behind them, and copies take time but move no byte.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

use sim_abi::cbid::driver as cbid;
use sim_abi::trace::give;
use sim_abi::{Op, Status, status};

use super::DOMAIN;
use crate::device::MEMORY_BYTES;
use crate::hooks::HOOKS;
use crate::objects::{Context, current, get, stream};
use crate::submit;

/// Next free byte of device memory; what is freed is not used again.
static NEXT: AtomicU64 = AtomicU64::new(1 << 20);

fn run(handle: *mut c_void, op: Op) -> Result<(), Status> {
    submit::ready()?;
    submit::one(stream(handle)?, op);
    Ok(())
}

sim_abi::api! { Some(&HOOKS), DOMAIN;
    fn cuMemAlloc_v2[cbid::CU_MEM_ALLOC_V2](address: *mut u64, bytes: usize) {
        submit::ready()?;
        let context = current().ok_or(status::INVALID_CONTEXT)?;
        if bytes == 0 {
            return Err(status::INVALID_VALUE);
        }
        if bytes as u64 > MEMORY_BYTES {
            return Err(status::OUT_OF_MEMORY);
        }
        let offset = NEXT.fetch_add((bytes as u64).next_multiple_of(512), Ordering::Relaxed);
        give(address, submit::device_address(context.device(), offset))
    }
    fn cuMemFree_v2[cbid::CU_MEM_FREE_V2](address: u64) {
        submit::ready()
    }
    fn cuMemGetInfo_v2[cbid::CU_MEM_GET_INFO_V2](free: *mut usize, total: *mut usize) {
        submit::ready()?;
        give(free, MEMORY_BYTES as usize)?;
        give(total, MEMORY_BYTES as usize)
    }
    fn cuMemcpyHtoDAsync_v2[cbid::CU_MEMCPY_HTO_DASYNC_V2](
        dst: u64, src: *const c_void, bytes: usize, stream: *mut c_void,
    ) {
        run(stream, submit::copy(dst, src as u64, bytes as u64))
    }
    fn cuMemcpyDtoHAsync_v2[cbid::CU_MEMCPY_DTO_HASYNC_V2](
        dst: *mut c_void, src: u64, bytes: usize, stream: *mut c_void,
    ) {
        run(stream, submit::copy(dst as u64, src, bytes as u64))
    }
    fn cuMemcpyDtoDAsync_v2[cbid::CU_MEMCPY_DTO_DASYNC_V2](dst: u64, src: u64, bytes: usize, stream: *mut c_void) {
        run(stream, submit::copy(dst, src, bytes as u64))
    }
    fn cuMemcpyAsync[cbid::CU_MEMCPY_ASYNC](dst: u64, src: u64, bytes: usize, stream: *mut c_void) {
        run(stream, submit::copy(dst, src, bytes as u64))
    }
    fn cuMemcpyPeerAsync[cbid::CU_MEMCPY_PEER_ASYNC](
        dst: u64, dst_context: *mut c_void, src: u64, src_context: *mut c_void, bytes: usize, stream: *mut c_void,
    ) {
        let (dst_context, src_context) = (get::<Context>(dst_context)?, get::<Context>(src_context)?);
        run(stream, submit::copy_peer((dst, dst_context), (src, src_context), bytes as u64))
    }
    fn cuMemsetD8Async[cbid::CU_MEMSET_D8_ASYNC](dst: u64, value: u8, count: usize, stream: *mut c_void) {
        run(stream, submit::fill(value, count as u64))
    }
}
