//! The exported functions. Each is given a structure that says its own size.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cupti_sys::constants::*;
use cupti_sys::counters::params::*;

use super::images::{self, Data};
use super::metrics::{self, CHIP, METRICS};
use super::sampler::{Sampler, Taken};
use crate::api::{exports, without_driver};
use crate::driver::attach;
use crate::faults::faults;
use crate::teardown::{die_if_torn_down, tear_down_sooner};
use crate::version::api_version;

/// Profiler hosts and samplers by their handles.
static HOSTS: Mutex<BTreeMap<usize, Host>> = Mutex::new(BTreeMap::new());
static SAMPLERS: Mutex<BTreeMap<usize, Sampler>> = Mutex::new(BTreeMap::new());

/// Starts of sampling in this process.
static STARTS: AtomicU64 = AtomicU64::new(0);

/// What a device can count, to a client only bytes.
const AVAILABILITY: &[u8; 16] = b"SIM-AVAILABILITY";

#[derive(Default)]
struct Host {
    metrics: Vec<u32>,
    /// A metric could not be added: nothing can any more.
    spoilt: bool,
}

fn hosts() -> MutexGuard<'static, BTreeMap<usize, Host>> {
    HOSTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn samplers() -> MutexGuard<'static, BTreeMap<usize, Sampler>> {
    SAMPLERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A structure of the caller's, at least as long as we know it.
trait Sizes {
    fn given_bytes(&self) -> usize;
}

macro_rules! sized {
    ($( $name:ident ),*) => { $( impl Sizes for $name { fn given_bytes(&self) -> usize { self.struct_size } } )* };
}

sized!(
    ProfilerInitialize,
    DeviceGetChipName,
    HostInitialize,
    HostDeinitialize,
    HostConfigAddMetrics,
    HostGetConfigImageSize,
    HostGetConfigImage,
    HostGetNumOfPasses,
    HostEvaluateToGpuValues,
    PmGetCounterAvailability,
    PmEnable,
    PmDisable,
    PmSetConfig,
    PmStart,
    PmStop,
    PmDecodeData,
    PmGetCounterDataSize,
    PmCounterDataImageInitialize,
    PmGetCounterDataInfo,
    PmCounterDataGetSampleInfo
);

fn params<'a, P: Sizes + Default>(pointer: *mut P) -> Result<&'a mut P, u32> {
    if api_version() < API_VERSION_12_6 {
        return Err(ERROR_NOT_SUPPORTED);
    }
    // SAFETY: null or the caller's, for the length of the call.
    let params = unsafe { pointer.as_mut() }.ok_or(ERROR_INVALID_PARAMETER)?;
    let known = P::default().given_bytes();
    if params.given_bytes() < known {
        Err(ERROR_INVALID_PARAMETER)
    } else {
        Ok(params)
    }
}

/// Bytes of the caller's.
fn bytes<'a>(pointer: *const u8, size: usize) -> Result<&'a [u8], u32> {
    if pointer.is_null() {
        return Err(ERROR_INVALID_PARAMETER);
    }
    // SAFETY: the caller has `size` bytes there, for the length of the call.
    Ok(unsafe { std::slice::from_raw_parts(pointer, size) })
}

/// Bytes of the caller's, to be written to.
fn bytes_mut<'a>(pointer: *mut u8, size: usize) -> Result<&'a mut [u8], u32> {
    if pointer.is_null() {
        return Err(ERROR_INVALID_PARAMETER);
    }
    // SAFETY: as above, and nobody else's.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, size) })
}

/// Numbers of the metrics named.
fn numbers(names: *const *const c_char, count: usize) -> Result<Vec<u32>, u32> {
    if names.is_null() {
        return Err(ERROR_INVALID_PARAMETER);
    }
    // SAFETY: the caller has `count` pointers there.
    let names = unsafe { std::slice::from_raw_parts(names, count) };
    let number = |name: &*const c_char| {
        if name.is_null() {
            return Err(ERROR_INVALID_PARAMETER);
        }
        // SAFETY: not null, so a C string of the caller's.
        let name = unsafe { CStr::from_ptr(*name) }.to_str();
        name.ok().and_then(metrics::number).ok_or(ERROR_INVALID_PARAMETER)
    };
    names.iter().map(number).collect()
}

fn sampler<T>(object: *mut c_void, act: impl FnOnce(&mut Sampler) -> Result<T, u32>) -> Result<T, u32> {
    act(samplers().get_mut(&(object as usize)).ok_or(ERROR_INVALID_PARAMETER)?)
}

fn host<T>(object: *mut c_void, act: impl FnOnce(&mut Host) -> Result<T, u32>) -> Result<T, u32> {
    act(hosts().get_mut(&(object as usize)).ok_or(ERROR_INVALID_PARAMETER)?)
}

/// A handle that was not given out yet.
fn handle() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    0x5111_0000 + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A device of the driver's.
fn device(index: usize) -> Result<u32, u32> {
    let count = (attach()?.device_count)();
    let device = u32::try_from(index).ok().filter(|device| *device < count);
    device.ok_or(ERROR_INVALID_DEVICE)
}

fn enable(index: usize) -> Result<usize, u32> {
    let device = device(index)?;
    faults().counters.map_or(Ok(()), Err)?;
    let mut samplers = samplers();
    if samplers.values().any(|sampler| sampler.device == device) {
        return Err(ERROR_INVALID_OPERATION);
    }
    let handle = handle();
    samplers.insert(handle, Sampler::new(device));
    Ok(handle)
}

exports! {
    fn cuptiProfilerInitialize(pointer: *mut ProfilerInitialize) {
        params(pointer)?;
        attach().map(|_| ())
    }
    fn cuptiDeviceGetChipName(pointer: *mut DeviceGetChipName) {
        let params = params(pointer)?;
        device(params.device)?;
        params.chip = if faults().unknown_chip { c"GX999".as_ptr() } else { c"GH100".as_ptr() };
        Ok(())
    }
    fn cuptiPmSamplingGetCounterAvailability(pointer: *mut PmGetCounterAvailability) {
        let params = params(pointer)?;
        device(params.device)?;
        if !params.image.is_null() {
            let image = bytes_mut(params.image, params.size)?;
            image.get_mut(..AVAILABILITY.len()).ok_or(ERROR_PARAMETER_SIZE_NOT_SUFFICIENT)?.copy_from_slice(AVAILABILITY);
        }
        params.size = AVAILABILITY.len();
        Ok(())
    }

    fn cuptiProfilerHostInitialize(pointer: *mut HostInitialize) {
        let params = params(pointer)?;
        without_driver()?;
        if params.chip.is_null() || params.profiler_type != PROFILER_TYPE_PM_SAMPLING {
            return Err(ERROR_INVALID_PARAMETER);
        }
        // SAFETY: not null, so a C string of the caller's.
        if unsafe { CStr::from_ptr(params.chip) }.to_bytes() != CHIP.as_bytes() {
            return Err(ERROR_INVALID_CHIP_NAME);
        }
        if !params.availability.is_null() && bytes(params.availability, AVAILABILITY.len())? != AVAILABILITY {
            return Err(ERROR_INVALID_PARAMETER);
        }
        let handle = handle();
        hosts().insert(handle, Host::default());
        params.host = handle as *mut c_void;
        Ok(())
    }
    fn cuptiProfilerHostDeinitialize(pointer: *mut HostDeinitialize) {
        hosts().remove(&(params(pointer)?.host as usize)).map(|_| ()).ok_or(ERROR_INVALID_PARAMETER)
    }
    fn cuptiProfilerHostConfigAddMetrics(pointer: *mut HostConfigAddMetrics) {
        let params = params(pointer)?;
        host(params.host, |host| {
            if host.spoilt {
                return Err(ERROR_UNKNOWN);
            }
            let numbers = numbers(params.names, params.count).inspect_err(|_| host.spoilt = true)?;
            host.metrics.extend(numbers);
            Ok(())
        })
    }
    fn cuptiProfilerHostGetConfigImageSize(pointer: *mut HostGetConfigImageSize) {
        let params = params(pointer)?;
        params.size = host(params.host, |host| Ok(images::config(&host.metrics).len()))?;
        Ok(())
    }
    fn cuptiProfilerHostGetConfigImage(pointer: *mut HostGetConfigImage) {
        let params = params(pointer)?;
        let config = host(params.host, |host| Ok(images::config(&host.metrics)))?;
        let image = bytes_mut(params.image, params.size)?;
        image.get_mut(..config.len()).ok_or(ERROR_PARAMETER_SIZE_NOT_SUFFICIENT)?.copy_from_slice(&config);
        Ok(())
    }
    fn cuptiProfilerHostGetNumOfPasses(pointer: *mut HostGetNumOfPasses) {
        let params = params(pointer)?;
        let config = images::metrics_of_config(bytes(params.image, params.size)?).ok_or(ERROR_INVALID_PARAMETER)?;
        params.passes = metrics::passes(&config) as usize;
        Ok(())
    }
    fn cuptiProfilerHostEvaluateToGpuValues(pointer: *mut HostEvaluateToGpuValues) {
        let params = params(pointer)?;
        host(params.host, |_| Ok(()))?;
        let data = Data::read(bytes(params.image, params.size)?).ok_or(ERROR_INVALID_PARAMETER)?;
        let sample = data.sample(params.sample).ok_or(ERROR_INVALID_PARAMETER)?;
        let sampled = data.metrics();
        for (index, number) in numbers(params.names, params.count)?.into_iter().enumerate() {
            let at = sampled.iter().position(|metric| *metric == number).ok_or(ERROR_INVALID_METRIC_NAME)?;
            let value = METRICS[number as usize].value(sample.counts[at], sample.end - sample.start);
            // SAFETY: the caller has room for a value a name.
            unsafe { params.values.add(index).write(value) };
        }
        Ok(())
    }

    fn cuptiPmSamplingEnable(pointer: *mut PmEnable) {
        let params = params(pointer)?;
        params.object = enable(params.device)? as *mut c_void;
        tear_down_sooner();
        Ok(())
    }
    fn cuptiPmSamplingDisable(pointer: *mut PmDisable) {
        die_if_torn_down("cuptiPmSamplingDisable");
        samplers().remove(&(params(pointer)?.object as usize)).map(|_| ()).ok_or(ERROR_INVALID_PARAMETER)
    }
    fn cuptiPmSamplingSetConfig(pointer: *mut PmSetConfig) {
        if let Some(milliseconds) = faults().slow_counters_ms {
            std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        }
        die_if_torn_down("cuptiPmSamplingSetConfig");
        let params = params(pointer)?;
        let config = images::metrics_of_config(bytes(params.config, params.config_size)?).ok_or(ERROR_INVALID_PARAMETER)?;
        if metrics::passes(&config) != 1 {
            return Err(ERROR_NOT_SUPPORTED);
        }
        let by_time = params.trigger_mode == TRIGGER_GPU_TIME_INTERVAL;
        if params.interval == 0 || !(by_time || params.trigger_mode == TRIGGER_GPU_SYSCLK_INTERVAL) {
            return Err(ERROR_INVALID_PARAMETER);
        }
        if by_time && faults().no_time_trigger {
            return Err(ERROR_NOT_SUPPORTED);
        }
        // A system clock of 1.25 GHz.
        let interval = if by_time { params.interval } else { params.interval * 4 / 5 };
        sampler(params.object, |sampler| {
            if sampler.runs() {
                return Err(ERROR_INVALID_OPERATION);
            }
            sampler.configure(config, params.hardware_buffer_bytes, interval, faults().counters_room);
            Ok(())
        })
    }
    fn cuptiPmSamplingStart(pointer: *mut PmStart) {
        sampler(params(pointer)?.object, |sampler| {
            if !sampler.is_configured() || sampler.runs() {
                return Err(ERROR_INVALID_OPERATION);
            }
            let starts = STARTS.fetch_add(1, Ordering::Relaxed);
            let is_over = |most: Option<u64>, starts| most.is_some_and(|most| starts >= most);
            if is_over(faults().counters_starts, starts) || is_over(faults().counters_restarts, sampler.starts) {
                return Err(ERROR_UNKNOWN);
            }
            sampler.start();
            Ok(())
        })
    }
    fn cuptiPmSamplingStop(pointer: *mut PmStop) {
        die_if_torn_down("cuptiPmSamplingStop");
        sampler(params(pointer)?.object, |sampler| {
            if !sampler.runs() {
                return Err(ERROR_INVALID_OPERATION);
            }
            sampler.stop();
            Ok(())
        })
    }
    fn cuptiPmSamplingGetCounterDataSize(pointer: *mut PmGetCounterDataSize) {
        let params = params(pointer)?;
        let metrics = numbers(params.names, params.count)?.len();
        sampler(params.object, |_| Ok(()))?;
        params.size = images::data_bytes(metrics, params.max_samples as usize);
        Ok(())
    }
    fn cuptiPmSamplingCounterDataImageInitialize(pointer: *mut PmCounterDataImageInitialize) {
        let params = params(pointer)?;
        let image = bytes_mut(params.image, params.size)?;
        sampler(params.object, |sampler| {
            images::initialize(image, &sampler.metrics);
            Ok(())
        })
    }
    fn cuptiPmSamplingDecodeData(pointer: *mut PmDecodeData) {
        die_if_torn_down("cuptiPmSamplingDecodeData");
        let params = params(pointer)?;
        let image = bytes_mut(params.image, params.size)?;
        let data = Data::read(image).ok_or(ERROR_INVALID_PARAMETER)?;
        let taken = sampler(params.object, |sampler| Ok(sampler.take(data.room() - data.len())))?;
        params.overflow = u8::from(taken == Taken::Overflow);
        let Taken::Samples(samples, is_full) = taken else {
            return Err(ERROR_OUT_OF_MEMORY);
        };
        images::append(image, &samples);
        params.stop_reason = if is_full { DECODE_STOPPED_IMAGE_FULL } else { DECODE_STOPPED_AT_END };
        Ok(())
    }
    fn cuptiPmSamplingGetCounterDataInfo(pointer: *mut PmGetCounterDataInfo) {
        let params = params(pointer)?;
        let data = Data::read(bytes(params.image, params.size)?).ok_or(ERROR_INVALID_PARAMETER)?;
        params.total = data.room();
        params.populated = data.len();
        params.completed = data.len();
        Ok(())
    }
    fn cuptiPmSamplingCounterDataGetSampleInfo(pointer: *mut PmCounterDataGetSampleInfo) {
        let params = params(pointer)?;
        let data = Data::read(bytes(params.image, params.size)?).ok_or(ERROR_INVALID_PARAMETER)?;
        sampler(params.object, |_| Ok(()))?;
        let sample = data.sample(params.sample).ok_or(ERROR_INVALID_PARAMETER)?;
        (params.start, params.end) = (sample.start, sample.end);
        Ok(())
    }
}
