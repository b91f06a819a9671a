//! Modules, functions and launches. A module has every function that it is asked for.

use std::ffi::{CStr, c_char, c_void};

use sim_abi::cbid::driver as cbid;
use sim_abi::trace::give;
use sim_abi::{Op, Status, op, status};

use super::DOMAIN;
use crate::hooks::HOOKS;
use crate::objects::{Function, Module, get, handle, stream};
use crate::{kernel, submit};

/// `CUlaunchConfig`.
#[repr(C)]
struct Config {
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: *mut c_void,
    attributes: *const Attribute,
    attribute_count: u32,
}

/// `CUlaunchAttribute`: an id and a union of 64 bytes.
#[repr(C)]
struct Attribute {
    id: u32,
    pad: u32,
    value: [u32; 16],
}

/// `CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION`.
const CLUSTER_DIMENSION: u32 = 4;

impl Config {
    fn cluster(&self) -> [u32; 3] {
        if self.attributes.is_null() {
            return [0; 3];
        }
        // SAFETY: the caller has so many attributes there.
        let attributes = unsafe { std::slice::from_raw_parts(self.attributes, self.attribute_count as usize) };
        let cluster = attributes.iter().find(|attribute| attribute.id == CLUSTER_DIMENSION);
        cluster.map_or([0; 3], |attribute| {
            [attribute.value[0], attribute.value[1], attribute.value[2]]
        })
    }
}

fn symbol(function: *mut c_void) -> *const c_char {
    get::<Function>(function).map_or(std::ptr::null(), |function| function.kernel.name)
}

fn launch(function: *mut c_void, config: &Config) -> Result<(), Status> {
    submit::ready()?;
    let (function, stream) = (get::<Function>(function)?, stream(config.stream)?);
    let threads = config
        .block
        .iter()
        .fold(1_u64, |product, side| product.saturating_mul(u64::from(*side)));
    if config.grid.contains(&0) || threads == 0 || threads > 1024 {
        return Err(status::INVALID_VALUE);
    }
    let launch = Op {
        kind: op::KERNEL,
        duration_ns: kernel::duration_ns(function.kernel, config.grid),
        dynamic_shared: config.shared,
        kernel: function.kernel,
        grid: config.grid,
        block: config.block,
        cluster: config.cluster(),
        ..Op::EMPTY
    };
    submit::one(stream, launch);
    Ok(())
}

sim_abi::api! { Some(&HOOKS), DOMAIN;
    fn cuModuleLoadData[cbid::CU_MODULE_LOAD_DATA](module: *mut *mut c_void, image: *const c_void) {
        submit::ready()?;
        give(module, handle(Module::create()))
    }
    fn cuModuleUnload[cbid::CU_MODULE_UNLOAD](module: *mut c_void) {
        get::<Module>(module).map(|_| ())
    }
    fn cuModuleGetFunction[cbid::CU_MODULE_GET_FUNCTION](
        function: *mut *mut c_void, module: *mut c_void, name: *const c_char,
    ) {
        submit::ready()?;
        get::<Module>(module)?;
        if name.is_null() {
            return Err(status::INVALID_VALUE);
        }
        // SAFETY: not null, and the caller gives a C string.
        let kernel = kernel::of_name(unsafe { CStr::from_ptr(name) });
        give(function, handle(Function::create(kernel)))
    }
    fn cuLaunchKernel[cbid::CU_LAUNCH_KERNEL](
        f: *mut c_void,
        grid_x: u32, grid_y: u32, grid_z: u32,
        block_x: u32, block_y: u32, block_z: u32,
        shared: u32, stream: *mut c_void, params: *mut *mut c_void, extra: *mut *mut c_void,
    ) symbol symbol(f), {
        launch(f, &Config {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared,
            stream,
            attributes: std::ptr::null(),
            attribute_count: 0,
        })
    }
    fn cuLaunchKernelEx[cbid::CU_LAUNCH_KERNEL_EX](
        config: *const Config, f: *mut c_void, params: *mut *mut c_void, extra: *mut *mut c_void,
    ) symbol symbol(f), {
        // SAFETY: the caller gives a launch configuration or null.
        launch(f, unsafe { config.as_ref() }.ok_or(status::INVALID_VALUE)?)
    }
}
