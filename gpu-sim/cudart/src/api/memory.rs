//! Memory.

use std::ffi::c_void;

use sim_abi::cbid::runtime as cbid;
use sim_abi::{Status, status};

use super::{DOMAIN, Handle};
use crate::driver::{check, hooks, primary_context, ready, remembered};

/// `cudaMemcpyKind`.
mod direction {
    pub(super) const TO_DEVICE: u32 = 1;
    pub(super) const TO_HOST: u32 = 2;
}

fn copy(dst: *mut c_void, src: *const c_void, bytes: usize, kind: u32, stream: Handle) -> Result<(), Status> {
    let driver = ready()?;
    check(match kind {
        direction::TO_DEVICE => (driver.copy_to_device)(dst as u64, src, bytes, stream),
        direction::TO_HOST => (driver.copy_to_host)(dst, src as u64, bytes, stream),
        _ => (driver.copy)(dst as u64, src as u64, bytes, stream),
    })
}

fn copy_peer(dst: (u64, i32), src: (u64, i32), bytes: usize, stream: Handle) -> Result<(), Status> {
    let driver = ready()?;
    let [dst_context, src_context] = [primary_context(driver, dst.1)?, primary_context(driver, src.1)?];
    check((driver.copy_peer)(
        dst.0,
        dst_context,
        src.0,
        src_context,
        bytes,
        stream,
    ))
}

fn alloc(place: *mut *mut c_void, bytes: usize) -> Result<(), Status> {
    if place.is_null() {
        return Err(status::INVALID_VALUE);
    }
    check((ready()?.alloc)(place.cast(), bytes))
}

sim_abi::api! { hooks(), DOMAIN;
    fn cudaMalloc[cbid::CUDA_MALLOC](place: *mut *mut c_void, bytes: usize) {
        remembered(alloc(place, bytes))
    }
    fn cudaFree[cbid::CUDA_FREE](address: *mut c_void) {
        remembered(ready().and_then(|driver| check((driver.free)(address as u64))))
    }
    fn cudaMemcpyAsync[cbid::CUDA_MEMCPY_ASYNC](
        dst: *mut c_void, src: *const c_void, bytes: usize, kind: u32, stream: Handle,
    ) {
        remembered(copy(dst, src, bytes, kind, stream))
    }
    fn cudaMemcpyPeerAsync[cbid::CUDA_MEMCPY_PEER_ASYNC](
        dst: *mut c_void, dst_device: i32, src: *const c_void, src_device: i32, bytes: usize, stream: Handle,
    ) {
        remembered(copy_peer((dst as u64, dst_device), (src as u64, src_device), bytes, stream))
    }
    fn cudaMemsetAsync[cbid::CUDA_MEMSET_ASYNC](dst: *mut c_void, value: i32, bytes: usize, stream: Handle) {
        remembered(ready().and_then(|driver| check((driver.fill)(dst as u64, value as u8, bytes, stream))))
    }
}
