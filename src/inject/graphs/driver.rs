//! What the driver says of captures and graphs. Both calls made during a capture are allowed there.

use std::ffi::{CStr, c_void};
use std::ptr;

use crate::inject::graphs::Handle;
use crate::inject::graphs::expand::Nodes;
use crate::inject::preload::Shadowed;

const SUCCESS: u32 = 0;
/// `CU_STREAM_CAPTURE_STATUS_ACTIVE`.
const ACTIVE: u32 = 1;
/// `CU_GRAPH_NODE_TYPE_GRAPH`.
const CHILD: u32 = 4;
/// `CU_GRAPH_NODE_TYPE_CONDITIONAL`.
const CONDITIONAL: u32 = 13;

type Out<T> = *mut T;
/// Stream, status, id, graph, dependencies, (their data,) number of these.
type CaptureInfo2 = unsafe extern "C" fn(Handle, Out<u32>, Out<u64>, Out<Handle>, Out<Handle>, Out<usize>) -> u32;
type CaptureInfo3 =
    unsafe extern "C" fn(Handle, Out<u32>, Out<u64>, Out<Handle>, Out<Handle>, Out<Handle>, Out<usize>) -> u32;

/// The functions of libcuda that are asked.
#[derive(Debug)]
pub(crate) struct Driver {
    capture_info: CaptureInfo,
    graph_nodes: unsafe extern "C" fn(Handle, Out<Handle>, Out<usize>) -> u32,
    node_type: unsafe extern "C" fn(Handle, Out<u32>) -> u32,
    child_graph: unsafe extern "C" fn(Handle, Out<Handle>) -> u32,
    current_context: unsafe extern "C" fn(Out<Handle>) -> u32,
    primary_context: unsafe extern "C" fn(i32, Out<u32>, Out<i32>) -> u32,
}

#[derive(Debug)]
enum CaptureInfo {
    /// Since 12.3. The older one refuses captures with programmatic launches.
    Three(CaptureInfo3),
    /// Since 11.3.
    Two(CaptureInfo2),
}

/// What a stream is at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Captured {
    /// It captures, into a graph that has so many nodes.
    Nodes(u32),
    /// It does not capture, or no longer in a way that gives a graph.
    Nothing,
    /// The driver would not say: its status.
    Refused(u32),
}

/// A function of the libcuda that is mapped.
fn find<F: Copy>(name: &'static CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    let address = Shadowed::of_driver(name).address();
    // SAFETY: of the size of a pointer, and the types above are those of cuda.h for these names.
    (!address.is_null()).then(|| unsafe { std::mem::transmute_copy(&address) })
}

impl Driver {
    /// None without a driver, or with one that lacks a function.
    pub(crate) fn find() -> Option<Driver> {
        let newest = find(c"cuStreamGetCaptureInfo_v3").map(CaptureInfo::Three);
        Some(Driver {
            capture_info: newest.or_else(|| find(c"cuStreamGetCaptureInfo_v2").map(CaptureInfo::Two))?,
            graph_nodes: find(c"cuGraphGetNodes")?,
            node_type: find(c"cuGraphNodeGetType")?,
            child_graph: find(c"cuGraphChildGraphNodeGetGraph")?,
            current_context: find(c"cuCtxGetCurrent")?,
            primary_context: find(c"cuDevicePrimaryCtxGetState")?,
        })
    }

    /// A driver of before 12.3 that knows captures alone, and whose primary contexts are all held.
    #[cfg(test)]
    pub(crate) fn of_captures(
        ask: CaptureInfo2,
        graph_nodes: unsafe extern "C" fn(Handle, Out<Handle>, Out<usize>) -> u32,
    ) -> Driver {
        extern "C" fn no_type(_: Handle, _: Out<u32>) -> u32 {
            1
        }
        extern "C" fn no_child(_: Handle, _: Out<Handle>) -> u32 {
            1
        }
        extern "C" fn no_context(_: Out<Handle>) -> u32 {
            1
        }
        extern "C" fn is_held(_: i32, _: Out<u32>, is_active: Out<i32>) -> u32 {
            // SAFETY: a place of the caller's.
            unsafe { *is_active = 1 };
            SUCCESS
        }
        Driver {
            capture_info: CaptureInfo::Two(ask),
            graph_nodes,
            node_type: no_type,
            child_graph: no_child,
            current_context: no_context,
            primary_context: is_held,
        }
    }

    /// How far the capture of a stream is.
    pub(crate) fn captured(&self, stream: Handle) -> Captured {
        let (mut capture, mut id, mut graph) = (0, 0, 0);
        let (mut dependencies, mut data, mut count) = (0, 0, 0);
        // SAFETY: every place lives through the call, and nobody gives the stream back meanwhile.
        let status = unsafe {
            match self.capture_info {
                CaptureInfo::Three(ask) => ask(
                    stream,
                    &raw mut capture,
                    &raw mut id,
                    &raw mut graph,
                    &raw mut dependencies,
                    &raw mut data,
                    &raw mut count,
                ),
                CaptureInfo::Two(ask) => ask(
                    stream,
                    &raw mut capture,
                    &raw mut id,
                    &raw mut graph,
                    &raw mut dependencies,
                    &raw mut count,
                ),
            }
        };
        match (status, self.count(graph)) {
            (SUCCESS, _) if capture != ACTIVE => Captured::Nothing,
            (SUCCESS, Some(count)) => Captured::Nodes(count),
            (status, _) => Captured::Refused(status),
        }
    }

    /// Nodes of a graph.
    pub(crate) fn count(&self, graph: Handle) -> Option<u32> {
        let mut count = 0;
        if graph == 0 {
            return None;
        }
        // SAFETY: null asks for the number alone, whose place lives through the call; the graph is its owner's.
        let status = unsafe { (self.graph_nodes)(graph, ptr::null_mut(), &raw mut count) };
        (status == SUCCESS).then(|| u32::try_from(count).ok()).flatten()
    }

    /// Nodes of a graph with its child graphs.
    pub(crate) fn nodes(&self, graph: Handle) -> Option<Nodes> {
        let mut handles = vec![0; self.count(graph)? as usize];
        let mut count = handles.len();
        // SAFETY: room for `count` handles.
        let status = unsafe { (self.graph_nodes)(graph, handles.as_mut_ptr(), &raw mut count) };
        if status != SUCCESS {
            return None;
        }
        handles.truncate(count);
        let mut nodes = Nodes {
            count: u32::try_from(handles.len()).ok()?,
            ..Nodes::default()
        };
        for (node, at) in handles.into_iter().zip(0..) {
            let mut kind = 0;
            // SAFETY: a node of this graph; the place lives through the call.
            if unsafe { (self.node_type)(node, &raw mut kind) } != SUCCESS {
                return None;
            }
            match kind {
                CHILD => nodes.children.push((at, self.child(node)?)),
                CONDITIONAL => nodes.is_open_ended = true,
                _ => {}
            }
        }
        Some(nodes)
    }

    /// The context of the calling thread.
    pub(crate) fn current_context(&self) -> Option<Handle> {
        let mut context = 0;
        // SAFETY: the place lives through the call.
        let status = unsafe { (self.current_context)(&raw mut context) };
        (status == SUCCESS && context != 0).then_some(context)
    }

    /// Whether the primary context of a device is gone: nobody holds it any more.
    pub(crate) fn is_released(&self, device: i32) -> bool {
        let (mut flags, mut is_active) = (0, 1);
        // SAFETY: the places live through the call.
        let status = unsafe { (self.primary_context)(device, &raw mut flags, &raw mut is_active) };
        status != SUCCESS || is_active == 0
    }

    /// The graph that a child-graph node holds.
    pub(crate) fn child(&self, node: Handle) -> Option<Handle> {
        let mut graph = 0;
        // SAFETY: a node; the place lives through the call.
        let status = unsafe { (self.child_graph)(node, &raw mut graph) };
        (status == SUCCESS && graph != 0).then_some(graph)
    }
}
