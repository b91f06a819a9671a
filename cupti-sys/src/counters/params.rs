//! Parameter structures of PM sampling and of the profiler host (cupti_pmsampling.h, cupti_profiler_host.h, since
//! 12.6). Each begins with its own size, by which a newer library knows how much of it we know.

use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::ptr;

/// A structure as the check against NVIDIA's headers sees it.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Name in NVIDIA's headers.
    pub c_name: &'static str,
    /// Bytes up to the end of the last field: what CUPTI calls the structure's size.
    pub size: usize,
    /// Name, offset and size of each field.
    pub fields: &'static [(&'static str, usize, usize)],
}

/// Starting value of a field.
trait Blank {
    const BLANK: Self;
}

macro_rules! blank {
    ($( $type:ty = $value:expr; )*) => { $( impl Blank for $type { const BLANK: Self = $value; } )* };
}

blank! {
    u8 = 0; u32 = 0; u64 = 0; usize = 0;
    *mut c_void = ptr::null_mut(); *const u8 = ptr::null(); *mut u8 = ptr::null_mut(); *const c_char = ptr::null();
    *mut f64 = ptr::null_mut(); *const *const c_char = ptr::null();
}

macro_rules! params {
    ($( $(#[$doc:meta])* $name:ident = $c_name:literal, last $last:ident { $( $field:ident: $type:ty = $c_field:literal, )* } )*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Debug)]
            #[expect(missing_docs, reason = "NVIDIA's documentation describes the fields under the names in `SHAPES`")]
            pub struct $name {
                pub struct_size: usize,
                pub private: *mut c_void,
                $( pub $field: $type, )*
            }

            impl Default for $name {
                fn default() -> Self {
                    Self {
                        struct_size: Self::SIZE,
                        private: ptr::null_mut(),
                        $( $field: Blank::BLANK, )*
                    }
                }
            }

            impl $name {
                const SIZE: usize = {
                    // Padding behind the last field does not count.
                    const fn size_of_field<T>(_: *const T) -> usize { size_of::<T>() }
                    let blank = std::mem::MaybeUninit::<Self>::uninit();
                    // SAFETY: only the field's type is looked at; the place is never read.
                    let field = unsafe { &raw const (*blank.as_ptr()).$last };
                    offset_of!(Self, $last) + size_of_field(field)
                };
            }
        )*

        /// Every structure.
        pub const SHAPES: &[Shape] = &[ $( Shape {
            c_name: $c_name,
            size: $name::SIZE,
            fields: &[
                ("structSize", offset_of!($name, struct_size), size_of::<usize>()),
                ("pPriv", offset_of!($name, private), size_of::<usize>()),
                $( ($c_field, offset_of!($name, $field), size_of::<$type>()), )*
            ],
        }, )* ];
    };
}

params! {
    /// Of `cuptiProfilerInitialize`.
    ProfilerInitialize = "CUpti_Profiler_Initialize_Params", last private { }
    /// Of `cuptiDeviceGetChipName`.
    DeviceGetChipName = "CUpti_Device_GetChipName_Params", last chip {
        device: usize = "deviceIndex",
        chip: *const c_char = "pChipName",
    }
    /// Of `cuptiProfilerHostInitialize`.
    HostInitialize = "CUpti_Profiler_Host_Initialize_Params", last host {
        profiler_type: u32 = "profilerType",
        chip: *const c_char = "pChipName",
        availability: *const u8 = "pCounterAvailabilityImage",
        host: *mut c_void = "pHostObject",
    }
    /// Of `cuptiProfilerHostDeinitialize`.
    HostDeinitialize = "CUpti_Profiler_Host_Deinitialize_Params", last host {
        host: *mut c_void = "pHostObject",
    }
    /// Of `cuptiProfilerHostConfigAddMetrics`.
    HostConfigAddMetrics = "CUpti_Profiler_Host_ConfigAddMetrics_Params", last count {
        host: *mut c_void = "pHostObject",
        names: *const *const c_char = "ppMetricNames",
        count: usize = "numMetrics",
    }
    /// Of `cuptiProfilerHostGetConfigImageSize`.
    HostGetConfigImageSize = "CUpti_Profiler_Host_GetConfigImageSize_Params", last size {
        host: *mut c_void = "pHostObject",
        size: usize = "configImageSize",
    }
    /// Of `cuptiProfilerHostGetConfigImage`.
    HostGetConfigImage = "CUpti_Profiler_Host_GetConfigImage_Params", last image {
        host: *mut c_void = "pHostObject",
        size: usize = "configImageSize",
        image: *mut u8 = "pConfigImage",
    }
    /// Of `cuptiProfilerHostGetNumOfPasses`.
    HostGetNumOfPasses = "CUpti_Profiler_Host_GetNumOfPasses_Params", last passes {
        size: usize = "configImageSize",
        image: *mut u8 = "pConfigImage",
        passes: usize = "numOfPasses",
    }
    /// Of `cuptiProfilerHostEvaluateToGpuValues`.
    HostEvaluateToGpuValues = "CUpti_Profiler_Host_EvaluateToGpuValues_Params", last values {
        host: *mut c_void = "pHostObject",
        image: *const u8 = "pCounterDataImage",
        size: usize = "counterDataImageSize",
        sample: usize = "rangeIndex",
        names: *const *const c_char = "ppMetricNames",
        count: usize = "numMetrics",
        values: *mut f64 = "pMetricValues",
    }
    /// Of `cuptiPmSamplingGetCounterAvailability`.
    PmGetCounterAvailability = "CUpti_PmSampling_GetCounterAvailability_Params", last image {
        device: usize = "deviceIndex",
        size: usize = "counterAvailabilityImageSize",
        image: *mut u8 = "pCounterAvailabilityImage",
    }
    /// Of `cuptiPmSamplingEnable`.
    PmEnable = "CUpti_PmSampling_Enable_Params", last object {
        device: usize = "deviceIndex",
        object: *mut c_void = "pPmSamplingObject",
    }
    /// Of `cuptiPmSamplingDisable`.
    PmDisable = "CUpti_PmSampling_Disable_Params", last object {
        object: *mut c_void = "pPmSamplingObject",
    }
    /// Of `cuptiPmSamplingSetConfig`.
    PmSetConfig = "CUpti_PmSampling_SetConfig_Params", last append_mode {
        object: *mut c_void = "pPmSamplingObject",
        config_size: usize = "configSize",
        config: *const u8 = "pConfig",
        hardware_buffer_bytes: usize = "hardwareBufferSize",
        interval: u64 = "samplingInterval",
        trigger_mode: u32 = "triggerMode",
        append_mode: u32 = "hwBufferAppendMode",
    }
    /// Of `cuptiPmSamplingStart`.
    PmStart = "CUpti_PmSampling_Start_Params", last object {
        object: *mut c_void = "pPmSamplingObject",
    }
    /// Of `cuptiPmSamplingStop`.
    PmStop = "CUpti_PmSampling_Stop_Params", last object {
        object: *mut c_void = "pPmSamplingObject",
    }
    /// Of `cuptiPmSamplingDecodeData`.
    PmDecodeData = "CUpti_PmSampling_DecodeData_Params", last overflow {
        object: *mut c_void = "pPmSamplingObject",
        image: *mut u8 = "pCounterDataImage",
        size: usize = "counterDataImageSize",
        stop_reason: u32 = "decodeStopReason",
        overflow: u8 = "overflow",
    }
    /// Of `cuptiPmSamplingGetCounterDataSize`.
    PmGetCounterDataSize = "CUpti_PmSampling_GetCounterDataSize_Params", last size {
        object: *mut c_void = "pPmSamplingObject",
        names: *const *const c_char = "pMetricNames",
        count: usize = "numMetrics",
        max_samples: u32 = "maxSamples",
        size: usize = "counterDataSize",
    }
    /// Of `cuptiPmSamplingCounterDataImageInitialize`.
    PmCounterDataImageInitialize = "CUpti_PmSampling_CounterDataImage_Initialize_Params", last image {
        object: *mut c_void = "pPmSamplingObject",
        size: usize = "counterDataSize",
        image: *mut u8 = "pCounterData",
    }
    /// Of `cuptiPmSamplingGetCounterDataInfo`.
    PmGetCounterDataInfo = "CUpti_PmSampling_GetCounterDataInfo_Params", last completed {
        image: *const u8 = "pCounterDataImage",
        size: usize = "counterDataImageSize",
        total: usize = "numTotalSamples",
        populated: usize = "numPopulatedSamples",
        completed: usize = "numCompletedSamples",
    }
    /// Of `cuptiPmSamplingCounterDataGetSampleInfo`.
    PmCounterDataGetSampleInfo = "CUpti_PmSampling_CounterData_GetSampleInfo_Params", last end {
        object: *mut c_void = "pPmSamplingObject",
        image: *const u8 = "pCounterDataImage",
        size: usize = "counterDataImageSize",
        sample: usize = "sampleIndex",
        start: u64 = "startTimestamp",
        end: u64 = "endTimestamp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_says_how_long_it_is_without_the_padding_behind_it() {
        assert_eq!(PmDecodeData::default().struct_size, 45);
        assert_eq!(ProfilerInitialize::default().struct_size, 16);
        assert_eq!(HostInitialize::default().struct_size, 48);
    }
}
