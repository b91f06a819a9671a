//! The profiler host: which metrics fit into one pass, and what a sample's counters mean.

use crate::constants::PROFILER_TYPE_PM_SAMPLING;
use crate::counters::params::*;
use crate::counters::{Failure, Names, Table, cupti};
use std::ffi::{CStr, CString, c_void};
use std::ptr;

/// A chip's metrics. One thread at a time uses one; several may have their own.
#[derive(Debug)]
pub struct Host {
    functions: Table,
    host: *mut c_void,
    // CUPTI may keep pointers to both.
    _chip: CString,
    _availability: Vec<u8>,
}

// SAFETY: an object of CUPTI's own that is tied to no thread.
unsafe impl Send for Host {}

impl Host {
    /// For PM sampling on `chip`. `availability`: what the device at hand can count; all that the chip has without it.
    pub fn new(functions: &Table, chip: &CStr, availability: Option<&[u8]>) -> Result<Host, Failure> {
        let chip = chip.to_owned();
        let availability = availability.unwrap_or_default().to_vec();
        let mut params = HostInitialize {
            profiler_type: PROFILER_TYPE_PM_SAMPLING,
            chip: chip.as_ptr(),
            availability: if availability.is_empty() {
                ptr::null()
            } else {
                availability.as_ptr()
            },
            ..Default::default()
        };
        cupti!(functions, cuptiProfilerHostInitialize, &mut params)?;
        Ok(Host {
            functions: *functions,
            host: params.host,
            _chip: chip,
            _availability: availability,
        })
    }

    /// Adds metrics. After a failure the object may hold some of them: make another.
    pub fn add(&mut self, names: &Names) -> Result<(), Failure> {
        let mut params = HostConfigAddMetrics {
            host: self.host,
            names: names.as_ptr(),
            count: names.len(),
            ..Default::default()
        };
        cupti!(self.functions, cuptiProfilerHostConfigAddMetrics, &mut params)
    }

    /// The configuration of the metrics added.
    pub fn config_image(&self) -> Result<Vec<u8>, Failure> {
        let mut size = HostGetConfigImageSize {
            host: self.host,
            ..Default::default()
        };
        cupti!(self.functions, cuptiProfilerHostGetConfigImageSize, &mut size)?;
        let mut image = vec![0_u8; size.size];
        let mut params = HostGetConfigImage {
            host: self.host,
            size: image.len(),
            image: image.as_mut_ptr(),
            ..Default::default()
        };
        cupti!(self.functions, cuptiProfilerHostGetConfigImage, &mut params)?;
        Ok(image)
    }

    /// Runs of the program that a configuration needs: sampling takes those of one only.
    pub fn passes(&self, config: &mut [u8]) -> Result<usize, Failure> {
        let mut params = HostGetNumOfPasses {
            size: config.len(),
            image: config.as_mut_ptr(),
            ..Default::default()
        };
        cupti!(self.functions, cuptiProfilerHostGetNumOfPasses, &mut params)?;
        Ok(params.passes)
    }

    /// Values of the metrics in one sample of a counter data image.
    pub fn evaluate(&self, image: &[u8], sample: usize, names: &Names, values: &mut [f64]) -> Result<(), Failure> {
        assert!(values.len() >= names.len(), "room for a value a metric");
        let mut params = HostEvaluateToGpuValues {
            host: self.host,
            image: image.as_ptr(),
            size: image.len(),
            sample,
            names: names.as_ptr(),
            count: names.len(),
            values: values.as_mut_ptr(),
            ..Default::default()
        };
        cupti!(self.functions, cuptiProfilerHostEvaluateToGpuValues, &mut params)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let mut params = HostDeinitialize {
            host: self.host,
            ..Default::default()
        };
        let _ = cupti!(self.functions, cuptiProfilerHostDeinitialize, &mut params);
    }
}
