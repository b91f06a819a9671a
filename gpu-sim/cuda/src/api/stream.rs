//! Streams and events.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use sim_abi::cbid::driver as cbid;
use sim_abi::trace::give;
use sim_abi::{Status, now_ns, status, sync};

use super::DOMAIN;
use crate::hooks::{self, HOOKS, stream_resource};
use crate::objects::{Event, Stream, current, flag, get, handle, lock, stream};
use crate::submit;

const STREAM_CREATED: u32 = 3;
const STREAM_DESTROY_STARTING: u32 = 4;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

fn create(place: *mut *mut c_void, flags: u32, priority: i32) -> Result<(), Status> {
    submit::ready()?;
    let context = current().ok_or(status::INVALID_CONTEXT)?;
    let flag = if flags & NON_BLOCKING != 0 {
        flag::NON_BLOCKING
    } else {
        flag::DEFAULT
    };
    let stream = Stream::create(context, priority, flag);
    hooks::resource(&stream_resource(STREAM_CREATED, stream));
    give(place, handle(stream))
}

fn finished(done_at: u64) -> Result<(), Status> {
    if done_at <= now_ns() {
        Ok(())
    } else {
        Err(status::NOT_READY)
    }
}

sim_abi::api! { Some(&HOOKS), DOMAIN;
    fn cuStreamCreate[cbid::CU_STREAM_CREATE](place: *mut *mut c_void, flags: u32) {
        create(place, flags, 0)
    }
    fn cuStreamCreateWithPriority[cbid::CU_STREAM_CREATE_WITH_PRIORITY](
        place: *mut *mut c_void, flags: u32, priority: i32,
    ) {
        create(place, flags, priority)
    }
    fn cuStreamDestroy_v2[cbid::CU_STREAM_DESTROY_V2](handle: *mut c_void) {
        let stream = get::<Stream>(handle)?;
        hooks::resource(&stream_resource(STREAM_DESTROY_STARTING, stream));
        stream.destroy();
        Ok(())
    }
    fn cuStreamSynchronize[cbid::CU_STREAM_SYNCHRONIZE](handle: *mut c_void) {
        submit::ready()?;
        let stream = stream(handle)?;
        if let Some(capture) = stream.capture() {
            capture.invalidate();
            return Err(status::STREAM_CAPTURE_UNSUPPORTED);
        }
        submit::synchronize(sync::STREAM, stream.context, Some(stream), None, stream.timeline.done_at());
        Ok(())
    }
    fn cuStreamQuery[cbid::CU_STREAM_QUERY](handle: *mut c_void) {
        submit::ready()?;
        finished(stream(handle)?.timeline.done_at())
    }
    fn cuStreamWaitEvent[cbid::CU_STREAM_WAIT_EVENT](handle: *mut c_void, event: *mut c_void, flags: u32) {
        submit::ready()?;
        let (stream, event) = (stream(handle)?, get::<Event>(event)?);
        let capture = lock(&event.capture).clone().filter(|capture| !capture.has_ended());
        if capture.is_some() {
            stream.set_capture(capture);
            return Ok(());
        }
        let done_at = event.done_at.load(Ordering::Acquire);
        stream.timeline.hold_until(done_at);
        submit::synchronize(sync::STREAM_WAIT_EVENT, stream.context, Some(stream), Some(event), done_at);
        Ok(())
    }
    fn cuEventCreate[cbid::CU_EVENT_CREATE](event: *mut *mut c_void, flags: u32) {
        submit::ready()?;
        give(event, handle(Event::create()))
    }
    fn cuEventDestroy_v2[cbid::CU_EVENT_DESTROY_V2](event: *mut c_void) {
        get::<Event>(event).map(|_| ())
    }
    fn cuEventRecord[cbid::CU_EVENT_RECORD](event: *mut c_void, handle: *mut c_void) {
        submit::ready()?;
        let (event, stream) = (get::<Event>(event)?, stream(handle)?);
        let capture = stream.capture();
        if capture.is_none() {
            event.done_at.store(stream.timeline.done_at(), Ordering::Release);
        }
        *lock(&event.capture) = capture;
        Ok(())
    }
    fn cuEventSynchronize[cbid::CU_EVENT_SYNCHRONIZE](event: *mut c_void) {
        submit::ready()?;
        let event = get::<Event>(event)?;
        let context = current().ok_or(status::INVALID_CONTEXT)?;
        submit::synchronize(sync::EVENT, context, None, Some(event), event.done_at.load(Ordering::Acquire));
        Ok(())
    }
    fn cuEventQuery[cbid::CU_EVENT_QUERY](event: *mut c_void) {
        submit::ready()?;
        finished(get::<Event>(event)?.done_at.load(Ordering::Acquire))
    }
}
