//! Streams and events.

use sim_abi::cbid::runtime as cbid;

use super::{DOMAIN, Handle};
use crate::driver::{check, hooks, ready, remembered};

sim_abi::api! { hooks(), DOMAIN;
    fn cudaStreamCreate[cbid::CUDA_STREAM_CREATE](stream: *mut Handle) {
        remembered(ready().and_then(|driver| check((driver.stream_create)(stream, 0, 0))))
    }
    fn cudaStreamCreateWithFlags[cbid::CUDA_STREAM_CREATE_WITH_FLAGS](stream: *mut Handle, flags: u32) {
        remembered(ready().and_then(|driver| check((driver.stream_create)(stream, flags, 0))))
    }
    fn cudaStreamCreateWithPriority[cbid::CUDA_STREAM_CREATE_WITH_PRIORITY](
        stream: *mut Handle, flags: u32, priority: i32,
    ) {
        remembered(ready().and_then(|driver| check((driver.stream_create)(stream, flags, priority))))
    }
    fn cudaStreamDestroy[cbid::CUDA_STREAM_DESTROY](stream: Handle) {
        remembered(ready().and_then(|driver| check((driver.stream_destroy)(stream))))
    }
    fn cudaStreamSynchronize[cbid::CUDA_STREAM_SYNCHRONIZE](stream: Handle) {
        remembered(ready().and_then(|driver| check((driver.stream_synchronize)(stream))))
    }
    fn cudaStreamWaitEvent[cbid::CUDA_STREAM_WAIT_EVENT](stream: Handle, event: Handle, flags: u32) {
        remembered(ready().and_then(|driver| check((driver.stream_wait_event)(stream, event, flags))))
    }
    fn cudaEventCreate[cbid::CUDA_EVENT_CREATE](event: *mut Handle) {
        remembered(ready().and_then(|driver| check((driver.event_create)(event, 0))))
    }
    fn cudaEventCreateWithFlags[cbid::CUDA_EVENT_CREATE_WITH_FLAGS](event: *mut Handle, flags: u32) {
        remembered(ready().and_then(|driver| check((driver.event_create)(event, flags))))
    }
    fn cudaEventDestroy[cbid::CUDA_EVENT_DESTROY](event: Handle) {
        remembered(ready().and_then(|driver| check((driver.event_destroy)(event))))
    }
    fn cudaEventRecord[cbid::CUDA_EVENT_RECORD](event: Handle, stream: Handle) {
        remembered(ready().and_then(|driver| check((driver.event_record)(event, stream))))
    }
    fn cudaEventSynchronize[cbid::CUDA_EVENT_SYNCHRONIZE](event: Handle) {
        remembered(ready().and_then(|driver| check((driver.event_synchronize)(event))))
    }
    fn cudaEventQuery[cbid::CUDA_EVENT_QUERY](event: Handle) {
        remembered(ready().and_then(|driver| check((driver.event_query)(event))))
    }
}
