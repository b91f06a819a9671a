//! The GPUs as the process sees them, asked from the driver that is mapped already. Needs no context and makes none.

use std::ffi::{CStr, c_char, c_int};

use libloading::os::unix::Library;

use crate::schema::columns::TableBuilder;
use crate::schema::tables::{DeviceRow, DevicesBuilder};

type Device = c_int;
type Status = u32;

/// `CUdevice_attribute`, as far as it is asked for.
mod attribute {
    pub(super) const WARP_SIZE: i32 = 10;
    pub(super) const CLOCK_RATE_KHZ: i32 = 13;
    pub(super) const MULTIPROCESSOR_COUNT: i32 = 16;
    pub(super) const MEMORY_CLOCK_RATE_KHZ: i32 = 36;
    pub(super) const MEMORY_BUS_WIDTH_BITS: i32 = 37;
    pub(super) const L2_CACHE_BYTES: i32 = 38;
    pub(super) const MAX_THREADS_PER_MULTIPROCESSOR: i32 = 39;
    pub(super) const COMPUTE_CAPABILITY_MAJOR: i32 = 75;
    pub(super) const COMPUTE_CAPABILITY_MINOR: i32 = 76;
    pub(super) const MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: i32 = 81;
    pub(super) const MAX_REGISTERS_PER_MULTIPROCESSOR: i32 = 82;
    pub(super) const MAX_BLOCKS_PER_MULTIPROCESSOR: i32 = 106;
    pub(super) const RESERVED_SHARED_MEMORY_PER_BLOCK: i32 = 111;
}

struct Driver {
    count: unsafe extern "C" fn(*mut c_int) -> Status,
    get: unsafe extern "C" fn(*mut Device, c_int) -> Status,
    name: unsafe extern "C" fn(*mut c_char, c_int, Device) -> Status,
    attribute: unsafe extern "C" fn(*mut c_int, c_int, Device) -> Status,
    total_memory: unsafe extern "C" fn(*mut usize, Device) -> Status,
    uuid: Option<unsafe extern "C" fn(*mut [u8; 16], Device) -> Status>,
}

impl Driver {
    fn mapped() -> Option<Driver> {
        // SAFETY: takes the copy that is mapped, or none; symbols of these names in libcuda have these types.
        unsafe {
            let library = Library::open(Some("libcuda.so.1"), libc::RTLD_LAZY | libc::RTLD_NOLOAD).ok()?;
            let driver = Driver {
                count: *library.get(b"cuDeviceGetCount\0").ok()?,
                get: *library.get(b"cuDeviceGet\0").ok()?,
                name: *library.get(b"cuDeviceGetName\0").ok()?,
                attribute: *library.get(b"cuDeviceGetAttribute\0").ok()?,
                total_memory: *library.get(b"cuDeviceTotalMem_v2\0").ok()?,
                uuid: library.get(b"cuDeviceGetUuid_v2\0").ok().map(|function| *function),
            };
            std::mem::forget(library);
            Some(driver)
        }
    }

    fn attribute(&self, device: Device, attribute: i32) -> u32 {
        let mut value = 0;
        // SAFETY: `value` lives through the call.
        let status = unsafe { (self.attribute)(&raw mut value, attribute, device) };
        if status == 0 {
            u32::try_from(value).unwrap_or(0)
        } else {
            0
        }
    }

    fn push(&self, pid: u32, ordinal: c_int, builder: &mut DevicesBuilder) -> Option<()> {
        let mut device = 0;
        let mut name = [0_u8; 256];
        let mut memory_bytes = 0_usize;
        let mut uuid = [0_u8; 16];
        // SAFETY: every place lives through its call; the name's length is given.
        let uuid = unsafe {
            if (self.get)(&raw mut device, ordinal) != 0 {
                return None;
            }
            (self.name)(name.as_mut_ptr().cast(), name.len() as c_int - 1, device);
            (self.total_memory)(&raw mut memory_bytes, device);
            self.uuid
                .filter(|get| get(&raw mut uuid, device) == 0)
                .map(|_| format_uuid(&uuid))
        };
        let ask = |attribute| self.attribute(device, attribute);
        // Two transfers a clock, bits to bytes.
        let bandwidth = u64::from(ask(attribute::MEMORY_CLOCK_RATE_KHZ))
            * 1_000
            * 2
            * u64::from(ask(attribute::MEMORY_BUS_WIDTH_BITS))
            / 8;
        builder.push(DeviceRow {
            pid,
            device_id: ordinal.cast_unsigned(),
            name: &CStr::from_bytes_until_nul(&name).ok()?.to_string_lossy(),
            uuid: uuid.as_deref(),
            compute_major: ask(attribute::COMPUTE_CAPABILITY_MAJOR),
            compute_minor: ask(attribute::COMPUTE_CAPABILITY_MINOR),
            sm_count: ask(attribute::MULTIPROCESSOR_COUNT),
            max_threads_per_sm: ask(attribute::MAX_THREADS_PER_MULTIPROCESSOR),
            max_blocks_per_sm: ask(attribute::MAX_BLOCKS_PER_MULTIPROCESSOR),
            registers_per_sm: ask(attribute::MAX_REGISTERS_PER_MULTIPROCESSOR),
            shared_bytes_per_sm: ask(attribute::MAX_SHARED_MEMORY_PER_MULTIPROCESSOR),
            reserved_shared_bytes_per_block: ask(attribute::RESERVED_SHARED_MEMORY_PER_BLOCK),
            warp_size: ask(attribute::WARP_SIZE),
            l2_bytes: u64::from(ask(attribute::L2_CACHE_BYTES)),
            memory_bytes: memory_bytes as u64,
            memory_bandwidth_bytes_per_s: (bandwidth > 0).then_some(bandwidth),
            clock_khz: ask(attribute::CLOCK_RATE_KHZ),
        });
        Some(())
    }
}

fn format_uuid(uuid: &[u8; 16]) -> String {
    let mut text = String::from("GPU-");
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Appends a row for each GPU of the process; none while the driver is not initialised.
pub(crate) fn push_all(pid: u32, builder: &mut DevicesBuilder) {
    let Some(driver) = Driver::mapped() else { return };
    let mut count = 0;
    // SAFETY: `count` lives through the call.
    if unsafe { (driver.count)(&raw mut count) } == 0 {
        for ordinal in 0..count {
            driver.push(pid, ordinal, builder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_read_as_nvidia_smi_prints_them() {
        let uuid = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255];
        assert_eq!(format_uuid(&uuid), "GPU-00010203-0405-0607-0809-0a0b0c0d0eff");
    }
}
