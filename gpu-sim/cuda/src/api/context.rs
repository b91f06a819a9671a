//! Contexts.

use std::ffi::c_void;
use std::sync::Mutex;
use std::time::Duration;

use sim_abi::cbid::driver as cbid;
use sim_abi::trace::give;
use sim_abi::{Status, status, sync};

use super::DOMAIN;
use crate::capture::GraphExec;
use crate::hooks::{self, HOOKS, context_resource};
use crate::init::ensure_initialized;
use crate::objects::{self, Context, current, get, handle, lock};
use crate::submit;
use crate::{device, objects::Stream};

const CONTEXT_CREATED: u32 = 1;
const CONTEXT_DESTROY_STARTING: u32 = 2;

/// The primary context of each device, by its ordinal.
static PRIMARY: Mutex<[Option<&'static Context>; 16]> = Mutex::new([None; 16]);

fn create(device: i32) -> Result<&'static Context, Status> {
    ensure_initialized()?;
    let device = u32::try_from(device).ok().filter(|ordinal| *ordinal < device::count());
    Ok(Context::create(device.ok_or(status::INVALID_DEVICE)?))
}

fn announce_created(context: &'static Context) {
    hooks::resource(&context_resource(CONTEXT_CREATED, context));
}

/// The primary context of `device`, created by the first who wants it.
fn primary(device: i32) -> Result<&'static Context, Status> {
    let created = {
        let mut primary = lock(&PRIMARY);
        let place = usize::try_from(device).ok().and_then(|device| primary.get_mut(device));
        let place = place.ok_or(status::INVALID_DEVICE)?;
        if let Some(context) = *place {
            return Ok(context);
        }
        *place.insert(create(device)?)
    };
    announce_created(created);
    Ok(created)
}

fn create_current(place: *mut *mut c_void, device: i32) -> Result<(), Status> {
    let context = create(device)?;
    objects::push_current(context);
    announce_created(context);
    give(place, handle(context))
}

fn destroy(context: &'static Context) -> Result<(), Status> {
    hooks::resource(&context_resource(CONTEXT_DESTROY_STARTING, context));
    context.destroy();
    GraphExec::destroy_all(context);
    if current().is_some_and(|current| std::ptr::eq(current, context)) {
        objects::pop_current()?;
    }
    Ok(())
}

/// A release makes the file of this name and returns once it is gone, so that other calls come meanwhile.
fn hold_release() {
    let Some(file) = std::env::var_os("COLONEL_SIM_HOLD_RELEASE") else {
        return;
    };
    if std::fs::write(&file, "").is_err() {
        objects::die("COLONEL_SIM_HOLD_RELEASE: the file can't be made");
    }
    while std::fs::exists(&file).is_ok_and(|exists| exists) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn alive(context: *mut c_void) -> Result<&'static Context, Status> {
    get::<Context>(context)
        .ok()
        .filter(|context| !context.is_destroyed())
        .ok_or(status::INVALID_CONTEXT)
}

sim_abi::api! { Some(&HOOKS), DOMAIN;
    fn cuDevicePrimaryCtxRetain[cbid::CU_DEVICE_PRIMARY_CTX_RETAIN](context: *mut *mut c_void, dev: i32) {
        ensure_initialized()?;
        give(context, handle(primary(dev)?))
    }
    fn cuDevicePrimaryCtxRelease_v2[cbid::CU_DEVICE_PRIMARY_CTX_RELEASE_V2](dev: i32) {
        ensure_initialized()?;
        hold_release();
        if usize::try_from(dev).is_ok_and(|dev| dev < 16) { Ok(()) } else { Err(status::INVALID_DEVICE) }
    }
    fn cuCtxCreate_v2[cbid::CU_CTX_CREATE_V2](context: *mut *mut c_void, flags: u32, dev: i32) {
        create_current(context, dev)
    }
    fn cuCtxCreate_v4[cbid::CU_CTX_CREATE_V4](context: *mut *mut c_void, params: *mut c_void, flags: u32, dev: i32) {
        create_current(context, dev)
    }
    fn cuDevicePrimaryCtxGetState[cbid::CU_DEVICE_PRIMARY_CTX_GET_STATE](dev: i32, flags: *mut u32, active: *mut i32) {
        ensure_initialized()?;
        let primary = usize::try_from(dev).ok().and_then(|dev| lock(&PRIMARY).get(dev).copied());
        give(flags, 0)?;
        give(active, i32::from(primary.ok_or(status::INVALID_DEVICE)?.is_some()))
    }
    fn cuDevicePrimaryCtxReset_v2[cbid::CU_DEVICE_PRIMARY_CTX_RESET_V2](dev: i32) {
        ensure_initialized()?;
        let primary = usize::try_from(dev).ok().and_then(|dev| lock(&PRIMARY).get_mut(dev).map(Option::take));
        primary.ok_or(status::INVALID_DEVICE)?.map_or(Ok(()), destroy)
    }
    fn cuCtxDestroy_v2[cbid::CU_CTX_DESTROY_V2](context: *mut c_void) {
        destroy(alive(context)?)
    }
    fn cuCtxSetCurrent[cbid::CU_CTX_SET_CURRENT](context: *mut c_void) {
        ensure_initialized()?;
        objects::set_current(if context.is_null() { None } else { Some(alive(context)?) });
        Ok(())
    }
    fn cuCtxGetCurrent[cbid::CU_CTX_GET_CURRENT](context: *mut *mut c_void) {
        ensure_initialized()?;
        give(context, current().map_or(std::ptr::null_mut(), handle))
    }
    fn cuCtxPushCurrent_v2[cbid::CU_CTX_PUSH_CURRENT_V2](context: *mut c_void) {
        ensure_initialized()?;
        objects::push_current(alive(context)?);
        Ok(())
    }
    fn cuCtxPopCurrent_v2[cbid::CU_CTX_POP_CURRENT_V2](context: *mut *mut c_void) {
        let popped = objects::pop_current()?;
        if context.is_null() { Ok(()) } else { give(context, handle(popped)) }
    }
    fn cuCtxGetDevice[cbid::CU_CTX_GET_DEVICE](device: *mut i32) {
        give(device, current().ok_or(status::INVALID_CONTEXT)?.device() as i32)
    }
    fn cuCtxSynchronize[cbid::CU_CTX_SYNCHRONIZE]() {
        submit::ready()?;
        let context = current().ok_or(status::INVALID_CONTEXT)?;
        let streams = context.streams();
        if streams.iter().any(|stream| stream.capture().is_some()) {
            return Err(status::STREAM_CAPTURE_UNSUPPORTED);
        }
        let done_at = streams.iter().map(|stream: &&Stream| stream.timeline.done_at()).max().unwrap_or(0);
        submit::synchronize(sync::CONTEXT, context, None, None, done_at);
        Ok(())
    }
}
