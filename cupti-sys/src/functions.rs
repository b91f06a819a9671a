//! The functions of libcupti that colonel calls. Each may be absent: older libraries lack the newer ones.

use crate::callbacks::{SubscriberHandle, SubscriberParams};
use crate::counters::params::*;
use libloading::os::unix::Library;
use std::ffi::{c_char, c_void};

/// What every function returns: [`SUCCESS`](crate::constants::SUCCESS) or one of the `ERROR_*`.
pub type CuptiResult = u32;

/// Asks for an empty buffer: sets where it is, its bytes, and how many records it may take (0: as many as fit).
pub type BufferRequested = unsafe extern "C" fn(buffer: *mut *mut u8, size: *mut usize, max_num_records: *mut usize);

/// Hands a buffer back with `valid_size` bytes of records in it.
pub type BufferCompleted =
    unsafe extern "C" fn(context: *mut c_void, stream_id: u32, buffer: *mut u8, size: usize, valid_size: usize);

/// A subscriber's callback; what `data` points to follows from the domain.
pub type Callback = unsafe extern "C" fn(userdata: *mut c_void, domain: u32, cbid: u32, data: *const c_void);

macro_rules! functions {
    ($( $(#[$doc:meta])* $name:ident ( $( $argument:ident: $type:ty ),* ); )*) => {
        /// libcupti's functions, under their own names.
        #[derive(Debug, Clone, Copy, Default)]
        #[expect(non_snake_case, reason = "symbols keep the names that NVIDIA's documentation has them under")]
        pub struct Functions {
            $( $(#[$doc])* pub $name: Option<unsafe extern "C" fn($( $argument: $type ),*) -> CuptiResult>, )*
        }

        impl Functions {
            /// All functions looked up, and the size of each argument: what the header check compares.
            pub const SIGNATURES: &'static [(&'static str, &'static [usize])] =
                &[ $( (stringify!($name), &[ $( size_of::<$type>() ),* ]), )* ];

            /// Looks every function up in `library`.
            ///
            /// # Safety
            /// `library` is a libcupti (or has the same functions under the same names) and is never unloaded.
            pub unsafe fn lookup(library: &Library) -> Self {
                Self {
                    // SAFETY: a symbol of this name in a libcupti has this type.
                    $( $name: unsafe { library.get(concat!(stringify!($name), "\0")) }.ok().map(|symbol| *symbol), )*
                }
            }

            /// Names of the functions that are absent.
            pub fn missing(&self) -> Vec<&'static str> {
                let mut missing = Vec::new();
                $( if self.$name.is_none() { missing.push(stringify!($name)); } )*
                missing
            }
        }
    };
}

functions! {
    /// The library's API version.
    cuptiGetVersion(version: *mut u32);
    /// Now, on the clock of the records.
    cuptiGetTimestamp(timestamp: *mut u64);
    /// Name of a result.
    cuptiGetResultString(result: CuptiResult, text: *mut *const c_char);
    /// Description of a result.
    cuptiGetErrorMessage(result: CuptiResult, text: *mut *const c_char);
    /// Name of a callback in its domain.
    cuptiGetCallbackName(domain: u32, cbid: u32, name: *mut *const c_char);

    /// Installs the subscriber.
    cuptiSubscribe(subscriber: *mut SubscriberHandle, callback: Option<Callback>, userdata: *mut c_void);
    /// The same, naming us and, in the way, the other; since 13.0.
    cuptiSubscribe_v2(
        subscriber: *mut SubscriberHandle, callback: Option<Callback>, userdata: *mut c_void,
        params: *mut SubscriberParams
    );
    /// Removes the subscriber.
    cuptiUnsubscribe(subscriber: SubscriberHandle);
    /// Turns one callback on or off.
    cuptiEnableCallback(enable: u32, subscriber: SubscriberHandle, domain: u32, cbid: u32);
    /// Turns a domain's callbacks on or off.
    cuptiEnableDomain(enable: u32, subscriber: SubscriberHandle, domain: u32);

    /// Says where buffers come from and go to.
    cuptiActivityRegisterCallbacks(requested: Option<BufferRequested>, completed: Option<BufferCompleted>);
    /// Turns a kind of record on.
    cuptiActivityEnable(kind: u32);
    /// Turns a kind of record off.
    cuptiActivityDisable(kind: u32);
    /// Turns records of one driver function on or off; since 12.5.
    cuptiActivityEnableDriverApi(cbid: u32, enable: u8);
    /// Turns records of one runtime function on or off; since 12.5.
    cuptiActivityEnableRuntimeApi(cbid: u32, enable: u8);
    /// Delivers the buffers, with [`FLUSH_FORCED`](crate::constants::FLUSH_FORCED) the unfinished ones too.
    cuptiActivityFlushAll(flag: u32);
    /// Delivers full buffers every so many ms; 0 stops that.
    cuptiActivityFlushPeriod(milliseconds: u32);
    /// The record after `record` (the first after null) in a buffer, or `ERROR_MAX_LIMIT_REACHED` at its end.
    cuptiActivityGetNextRecord(buffer: *mut u8, valid_size: usize, record: *mut *mut c_void);
    /// Records dropped since the last call, over all streams.
    cuptiActivityGetNumDroppedRecords(context: *mut c_void, stream_id: u32, dropped: *mut usize);
    /// Reads an `ATTR_*`.
    cuptiActivityGetAttribute(attribute: u32, size: *mut usize, value: *mut c_void);
    /// Writes an `ATTR_*`.
    cuptiActivitySetAttribute(attribute: u32, size: *mut usize, value: *mut c_void);
    /// How threads are numbered in records, a `THREAD_ID_TYPE_*`; not with several subscribers.
    cuptiSetThreadIdType(kind: u32);
    /// Bytes of a record in an API version (0: the library's own); since 13.2.
    cuptiActivityGetStructSize(kind: u32, api_version: u32, size: *mut usize);
    /// Kinds turned on, over all subscribers when `subscriber` is null; since 13.2. `size` says how many `kinds` holds
    /// (not stated by NVIDIA whether as a count or in bytes), `count` becomes the true number.
    cuptiActivityGetEnabledKinds(subscriber: SubscriberHandle, kinds: *mut u32, size: *mut u32, count: *mut u32);
    /// Opens an external region in this thread.
    cuptiActivityPushExternalCorrelationId(kind: u32, id: u64);
    /// Closes it.
    cuptiActivityPopExternalCorrelationId(kind: u32, last: *mut u64);
    /// Id of an executable graph, as records have it.
    cuptiGetGraphExecId(exec: *mut c_void, id: *mut u32);
    /// Detaches CUPTI from the process.
    cuptiFinalize();

    /// Readies the counters' part of CUPTI.
    cuptiProfilerInitialize(params: *mut ProfilerInitialize);
    /// Name of a device's chip, as the profiler host knows it.
    cuptiDeviceGetChipName(params: *mut DeviceGetChipName);
    /// Makes a host object, which knows a chip's metrics; since 12.6, as all that follow.
    cuptiProfilerHostInitialize(params: *mut HostInitialize);
    /// Ends it.
    cuptiProfilerHostDeinitialize(params: *mut HostDeinitialize);
    /// Adds metrics to its configuration.
    cuptiProfilerHostConfigAddMetrics(params: *mut HostConfigAddMetrics);
    /// Bytes of the configuration.
    cuptiProfilerHostGetConfigImageSize(params: *mut HostGetConfigImageSize);
    /// The configuration.
    cuptiProfilerHostGetConfigImage(params: *mut HostGetConfigImage);
    /// Runs of the program that a configuration needs.
    cuptiProfilerHostGetNumOfPasses(params: *mut HostGetNumOfPasses);
    /// Values of metrics in one sample.
    cuptiProfilerHostEvaluateToGpuValues(params: *mut HostEvaluateToGpuValues);
    /// What a device can count.
    cuptiPmSamplingGetCounterAvailability(params: *mut PmGetCounterAvailability);
    /// Takes a device for sampling.
    cuptiPmSamplingEnable(params: *mut PmEnable);
    /// Gives it back.
    cuptiPmSamplingDisable(params: *mut PmDisable);
    /// Says what to sample, and how often.
    cuptiPmSamplingSetConfig(params: *mut PmSetConfig);
    /// Starts sampling.
    cuptiPmSamplingStart(params: *mut PmStart);
    /// Stops it.
    cuptiPmSamplingStop(params: *mut PmStop);
    /// Moves samples from the hardware buffer to an image.
    cuptiPmSamplingDecodeData(params: *mut PmDecodeData);
    /// Bytes of an image.
    cuptiPmSamplingGetCounterDataSize(params: *mut PmGetCounterDataSize);
    /// Makes an empty image.
    cuptiPmSamplingCounterDataImageInitialize(params: *mut PmCounterDataImageInitialize);
    /// Samples in an image.
    cuptiPmSamplingGetCounterDataInfo(params: *mut PmGetCounterDataInfo);
    /// When a sample was taken.
    cuptiPmSamplingCounterDataGetSampleInfo(params: *mut PmCounterDataGetSampleInfo);
}
