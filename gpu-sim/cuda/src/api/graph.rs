//! Stream capture and graphs.

use std::ffi::c_void;

use sim_abi::cbid::driver as cbid;
use sim_abi::trace::give;
use sim_abi::{Status, status};

use super::DOMAIN;
use crate::capture::{Capture, Graph, GraphExec, Node};
use crate::hooks::HOOKS;
use crate::objects::{die, get, handle, stream};
use crate::submit;

fn instantiate(exec: *mut *mut c_void, graph: *mut c_void) -> Result<(), Status> {
    submit::ready()?;
    give(exec, handle(GraphExec::instantiate(get::<Graph>(graph)?)))
}

fn begin(stream_handle: *mut c_void, graph: Option<&'static Graph>) -> Result<(), Status> {
    submit::ready()?;
    let stream = stream(stream_handle)?;
    if stream.capture().is_some() {
        return Err(status::ILLEGAL_STATE);
    }
    stream.set_capture(Some(Capture::begin(handle(stream), graph)));
    Ok(())
}

/// Writes where a C caller wants it, if he does.
fn offer<T>(place: *mut T, value: T) -> Result<(), Status> {
    if place.is_null() { Ok(()) } else { give(place, value) }
}

/// `CUstreamCaptureStatus`, the capture's id and its graph. What is not asked for is not given.
fn capture_info(
    stream_handle: *mut c_void,
    status: *mut u32,
    id: *mut u64,
    graph: *mut *mut c_void,
) -> Result<(), Status> {
    let Ok(stream) = stream(stream_handle) else {
        die("cuStreamGetCaptureInfo of a stream that is gone")
    };
    let Some(capture) = stream.capture() else {
        return give(status, 0);
    };
    match capture.graph() {
        Some(captured) => {
            give(status, 1)?;
            offer(id, capture.id())?;
            offer(graph, handle(captured))
        }
        None => give(status, 2),
    }
}

sim_abi::api! { Some(&HOOKS), DOMAIN;
    fn cuStreamBeginCapture_v2[cbid::CU_STREAM_BEGIN_CAPTURE_V2](stream_handle: *mut c_void, mode: u32) {
        begin(stream_handle, None)
    }
    fn cuStreamBeginCaptureToGraph[cbid::CU_STREAM_BEGIN_CAPTURE_TO_GRAPH](
        stream_handle: *mut c_void, graph: *mut c_void, dependencies: *const c_void, data: *const c_void,
        dependency_count: usize, mode: u32,
    ) {
        begin(stream_handle, Some(get::<Graph>(graph)?))
    }
    fn cuStreamGetCaptureInfo_v2[cbid::CU_STREAM_GET_CAPTURE_INFO_V2](
        stream_handle: *mut c_void, status: *mut u32, id: *mut u64, graph: *mut *mut c_void,
        dependencies: *mut *const c_void, dependency_count: *mut usize,
    ) {
        capture_info(stream_handle, status, id, graph)
    }
    fn cuStreamGetCaptureInfo_v3[cbid::CU_STREAM_GET_CAPTURE_INFO_V3](
        stream_handle: *mut c_void, status: *mut u32, id: *mut u64, graph: *mut *mut c_void,
        dependencies: *mut *const c_void, data: *mut *const c_void, dependency_count: *mut usize,
    ) {
        capture_info(stream_handle, status, id, graph)
    }
    fn cuStreamEndCapture[cbid::CU_STREAM_END_CAPTURE](stream_handle: *mut c_void, graph: *mut *mut c_void) {
        let stream = stream(stream_handle)?;
        let capture = stream.capture().ok_or(status::ILLEGAL_STATE)?;
        let captured = capture.end(handle(stream));
        if capture.has_ended() {
            stream.set_capture(None);
        }
        give(graph, captured.map_or(std::ptr::null_mut(), handle))?;
        captured.map(|_| ()).ok_or(status::STREAM_CAPTURE_INVALIDATED)
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
    fn cuGraphExecUpdate_v2[cbid::CU_GRAPH_EXEC_UPDATE_V2](
        exec: *mut c_void, graph: *mut c_void, result: *mut c_void,
    ) {
        let updated = get::<GraphExec>(exec)?.update(get::<Graph>(graph)?);
        updated.ok_or(status::GRAPH_EXEC_UPDATE_FAILURE)
    }
    fn cuGraphCreate[cbid::CU_GRAPH_CREATE](graph: *mut *mut c_void, flags: u32) {
        submit::ready()?;
        give(graph, handle(Graph::create()))
    }
    fn cuGraphClone[cbid::CU_GRAPH_CLONE](copy: *mut *mut c_void, graph: *mut c_void) {
        give(copy, handle(get::<Graph>(graph)?.copy()))
    }
    fn cuGraphAddChildGraphNode[cbid::CU_GRAPH_ADD_CHILD_GRAPH_NODE](
        node: *mut *mut c_void, graph: *mut c_void, dependencies: *const c_void, dependency_count: usize,
        child: *mut c_void,
    ) {
        give(node, handle(get::<Graph>(graph)?.add_child(get::<Graph>(child)?)))
    }
    fn cuGraphGetNodes[cbid::CU_GRAPH_GET_NODES](graph: *mut c_void, places: *mut *mut c_void, count: *mut usize) {
        let nodes = get::<Graph>(graph)?.nodes();
        if places.is_null() {
            return give(count, nodes.len());
        }
        // SAFETY: null or the caller's.
        let room = *unsafe { count.as_ref() }.ok_or(status::INVALID_VALUE)?;
        let given = nodes.iter().take(room);
        given.clone().enumerate().try_for_each(|(index, node)| give(places.wrapping_add(index), handle(*node)))?;
        give(count, given.len())
    }
    fn cuGraphNodeGetType[cbid::CU_GRAPH_NODE_GET_TYPE](node: *mut c_void, kind: *mut u32) {
        give(kind, get::<Node>(node)?.kind)
    }
    fn cuGraphChildGraphNodeGetGraph[cbid::CU_GRAPH_CHILD_GRAPH_NODE_GET_GRAPH](
        node: *mut c_void, graph: *mut *mut c_void,
    ) {
        give(graph, handle(get::<Node>(node)?.child.ok_or(status::INVALID_VALUE)?))
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
