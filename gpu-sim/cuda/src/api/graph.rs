//! Stream capture and graphs.

use std::ffi::c_void;

use sim_abi::cbid::driver as cbid;
use sim_abi::trace::give;
use sim_abi::{Status, status};

use super::DOMAIN;
use crate::capture::{Capture, Graph, GraphExec};
use crate::hooks::HOOKS;
use crate::objects::{get, handle, stream};
use crate::submit;

fn instantiate(exec: *mut *mut c_void, graph: *mut c_void) -> Result<(), Status> {
    submit::ready()?;
    give(exec, handle(GraphExec::instantiate(get::<Graph>(graph)?)))
}

sim_abi::api! { Some(&HOOKS), DOMAIN;
    fn cuStreamBeginCapture_v2[cbid::CU_STREAM_BEGIN_CAPTURE_V2](stream_handle: *mut c_void, mode: u32) {
        submit::ready()?;
        let stream = stream(stream_handle)?;
        if stream.capture().is_some() {
            return Err(status::ILLEGAL_STATE);
        }
        stream.set_capture(Some(Capture::begin(handle(stream))));
        Ok(())
    }
    fn cuStreamEndCapture[cbid::CU_STREAM_END_CAPTURE](stream_handle: *mut c_void, graph: *mut *mut c_void) {
        let stream = stream(stream_handle)?;
        let capture = stream.capture().ok_or(status::ILLEGAL_STATE)?;
        let captured = capture.end(handle(stream)).ok_or(status::STREAM_CAPTURE_INVALIDATED)?;
        stream.set_capture(None);
        give(graph, handle(captured))
    }
    fn cuStreamIsCapturing[cbid::CU_STREAM_IS_CAPTURING](stream_handle: *mut c_void, capturing: *mut u32) {
        give(capturing, u32::from(stream(stream_handle)?.capture().is_some()))
    }
    fn cuGraphInstantiateWithFlags[cbid::CU_GRAPH_INSTANTIATE_WITH_FLAGS](
        exec: *mut *mut c_void, graph: *mut c_void, flags: u64,
    ) {
        instantiate(exec, graph)
    }
    fn cuGraphInstantiateWithParams[cbid::CU_GRAPH_INSTANTIATE_WITH_PARAMS](
        exec: *mut *mut c_void, graph: *mut c_void, params: *mut c_void,
    ) {
        instantiate(exec, graph)
    }
    fn cuGraphLaunch[cbid::CU_GRAPH_LAUNCH](exec: *mut c_void, stream_handle: *mut c_void) {
        submit::ready()?;
        submit::graph(stream(stream_handle)?, get::<GraphExec>(exec)?)
    }
    fn cuGraphExecDestroy[cbid::CU_GRAPH_EXEC_DESTROY](exec: *mut c_void) {
        get::<GraphExec>(exec)?.destroy();
        Ok(())
    }
    fn cuGraphDestroy[cbid::CU_GRAPH_DESTROY](graph: *mut c_void) {
        get::<Graph>(graph).map(|_| ())
    }
}
