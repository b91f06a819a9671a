//! PM sampling: a device writes its counters into a hardware buffer at an interval, from which they are moved into
//! counter data images.

use crate::constants::{
    APPEND_KEEP_OLDEST, ERROR_OUT_OF_MEMORY, TRIGGER_GPU_SYSCLK_INTERVAL, TRIGGER_GPU_TIME_INTERVAL,
};
use crate::counters::params::*;
use crate::counters::{Failure, Names, Table, cupti, text};
use std::ffi::{CString, c_void};

/// Readies CUPTI's counters and asks for the name of a device's chip.
pub fn chip(functions: &Table, device: u32) -> Result<CString, Failure> {
    // Not counted: a second call does nothing, and one that takes it back would be for all users in the process.
    cupti!(functions, cuptiProfilerInitialize, &mut ProfilerInitialize::default())?;
    let mut params = DeviceGetChipName {
        device: device as usize,
        ..Default::default()
    };
    cupti!(functions, cuptiDeviceGetChipName, &mut params)?;
    Ok(text(params.chip).unwrap_or_default())
}

/// What a device can count, for [`Host::new`](crate::counters::Host::new).
pub fn availability(functions: &Table, device: u32) -> Result<Vec<u8>, Failure> {
    let mut params = PmGetCounterAvailability {
        device: device as usize,
        ..Default::default()
    };
    cupti!(functions, cuptiPmSamplingGetCounterAvailability, &mut params)?;
    let mut image = vec![0_u8; params.size];
    params.image = image.as_mut_ptr();
    cupti!(functions, cuptiPmSamplingGetCounterAvailability, &mut params)?;
    Ok(image)
}

fn enable(functions: &Table, device: u32) -> Result<*mut c_void, Failure> {
    let mut params = PmEnable {
        device: device as usize,
        ..Default::default()
    };
    cupti!(functions, cuptiPmSamplingEnable, &mut params)?;
    Ok(params.object)
}

/// Samples in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Samples that have begun to arrive.
    pub populated: usize,
    /// Of those, from the first on, the ones that are all there.
    pub completed: usize,
}

/// What a decode found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// `DECODE_STOPPED_*`, or 0 for another reason.
    pub stop_reason: u32,
    /// The hardware buffer was full: samples were lost.
    pub overflow: bool,
}

/// A device taken for sampling; given back when dropped.
#[derive(Debug)]
pub struct Sampling {
    functions: Table,
    device: u32,
    object: *mut c_void,
}

// SAFETY: an object of CUPTI's own that is tied to no thread.
unsafe impl Send for Sampling {}

impl Sampling {
    /// Takes a device. One client at a time has it.
    pub fn enable(functions: &Table, device: u32) -> Result<Sampling, Failure> {
        Ok(Sampling {
            functions: *functions,
            device,
            object: enable(functions, device)?,
        })
    }

    /// Gives the device back and takes it again: nothing is configured then.
    pub fn enable_again(&mut self) -> Result<(), Failure> {
        self.disable();
        self.object = enable(&self.functions, self.device)?;
        Ok(())
    }

    fn disable(&mut self) {
        let object = std::mem::replace(&mut self.object, std::ptr::null_mut());
        if !object.is_null() {
            let mut params = PmDisable {
                object,
                ..Default::default()
            };
            let _ = cupti!(self.functions, cuptiPmSamplingDisable, &mut params);
        }
    }

    /// Says what to sample and how often. Samples that find the hardware buffer full are lost.
    ///
    /// Turing and GA100 count cycles of the system clock in the place of nanoseconds: about as many, of a clock that
    /// varies. The samples' own times tell.
    pub fn configure(&self, config: &[u8], hardware_buffer_bytes: usize, interval_ns: u64) -> Result<(), Failure> {
        let by = |trigger| self.set_config(config, hardware_buffer_bytes, interval_ns, trigger);
        by(TRIGGER_GPU_TIME_INTERVAL).or_else(|failure| by(TRIGGER_GPU_SYSCLK_INTERVAL).map_err(|_| failure))
    }

    fn set_config(
        &self,
        config: &[u8],
        hardware_buffer_bytes: usize,
        interval: u64,
        trigger_mode: u32,
    ) -> Result<(), Failure> {
        let mut params = PmSetConfig {
            object: self.object,
            config_size: config.len(),
            config: config.as_ptr(),
            hardware_buffer_bytes,
            interval,
            trigger_mode,
            append_mode: APPEND_KEEP_OLDEST,
            ..Default::default()
        };
        cupti!(self.functions, cuptiPmSamplingSetConfig, &mut params)
    }

    /// Starts.
    pub fn start(&self) -> Result<(), Failure> {
        let mut params = PmStart {
            object: self.object,
            ..Default::default()
        };
        cupti!(self.functions, cuptiPmSamplingStart, &mut params)
    }

    /// Stops; samples taken so far can still be decoded.
    pub fn stop(&self) -> Result<(), Failure> {
        let mut params = PmStop {
            object: self.object,
            ..Default::default()
        };
        cupti!(self.functions, cuptiPmSamplingStop, &mut params)
    }

    /// Bytes of an image for so many samples of the metrics.
    pub fn image_bytes(&self, names: &Names, max_samples: u32) -> Result<usize, Failure> {
        let mut size = PmGetCounterDataSize {
            object: self.object,
            names: names.as_ptr(),
            count: names.len(),
            max_samples,
            ..Default::default()
        };
        cupti!(self.functions, cuptiPmSamplingGetCounterDataSize, &mut size)?;
        Ok(size.size)
    }

    /// Empties an image.
    pub fn empty(&self, image: &mut [u8]) -> Result<(), Failure> {
        let mut params = PmCounterDataImageInitialize {
            object: self.object,
            size: image.len(),
            image: image.as_mut_ptr(),
            ..Default::default()
        };
        cupti!(self.functions, cuptiPmSamplingCounterDataImageInitialize, &mut params)
    }

    /// Moves samples from the hardware buffer to an image, behind those that it holds. An H100 takes more from the buffer
    /// than the image may have room for: the rest is gone.
    pub fn decode(&self, image: &mut [u8]) -> Result<Decoded, Failure> {
        let mut params = PmDecodeData {
            object: self.object,
            image: image.as_mut_ptr(),
            size: image.len(),
            ..Default::default()
        };
        let overflow = match cupti!(self.functions, cuptiPmSamplingDecodeData, &mut params) {
            // How 13.0 says it.
            Err(failure) if failure.code == ERROR_OUT_OF_MEMORY => true,
            done => done.map(|()| params.overflow != 0)?,
        };
        Ok(Decoded {
            stop_reason: params.stop_reason,
            overflow,
        })
    }

    /// Samples of an image.
    pub fn held(&self, image: &[u8]) -> Result<Held, Failure> {
        let mut params = PmGetCounterDataInfo {
            image: image.as_ptr(),
            size: image.len(),
            ..Default::default()
        };
        cupti!(self.functions, cuptiPmSamplingGetCounterDataInfo, &mut params)?;
        Ok(Held {
            populated: params.populated,
            completed: params.completed,
        })
    }

    /// Start and end of a sample, on CUPTI's clock.
    pub fn sample_times(&self, image: &[u8], sample: usize) -> Result<(u64, u64), Failure> {
        let mut params = PmCounterDataGetSampleInfo {
            object: self.object,
            image: image.as_ptr(),
            size: image.len(),
            sample,
            ..Default::default()
        };
        cupti!(self.functions, cuptiPmSamplingCounterDataGetSampleInfo, &mut params)?;
        Ok((params.start, params.end))
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        self.disable();
    }
}
