//! Stream capture and graphs. Ids as the real driver's: graphs and executables share one counter, and a node's id has
//! that of its graph or executable in the upper 32 bits. A replay runs the nodes one after the other in the order of
//! their capture, even if they were captured from several streams.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use sim_abi::{Header, Op, Resource, magic, op};

use crate::hooks::{self, HOOKS};
use crate::objects::{Object, handle, lock};
use crate::timeline::{GRAPH_GAP_NS, scaled};

/// `CUpti_CallbackIdResource` of graphs.
mod cbid {
    pub(super) const GRAPH_CREATED: u32 = 9;
    pub(super) const GRAPHNODE_CREATED: u32 = 13;
    pub(super) const GRAPHEXEC_CREATE_STARTING: u32 = 17;
    pub(super) const GRAPHEXEC_CREATED: u32 = 18;
    pub(super) const GRAPHEXEC_DESTROY_STARTING: u32 = 19;
    pub(super) const GRAPHNODE_CLONED: u32 = 20;
}

fn next_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Id of node `index` of the graph or executable `owner`.
fn node_id(owner: u32, index: usize) -> u64 {
    u64::from(owner) << 32 | index as u64
}

#[repr(C)]
pub(crate) struct Node {
    header: Header,
}

// SAFETY: `#[repr(C)]`, header first.
unsafe impl Object for Node {
    const MAGIC: u32 = magic::GRAPH_NODE;
}

impl Node {
    fn create(id: u64) -> &'static Node {
        Box::leak(Box::new(Node {
            header: Header {
                magic: magic::GRAPH_NODE,
                device: 0,
                id,
            },
        }))
    }
}

#[repr(C)]
pub(crate) struct Graph {
    header: Header,
    nodes: Mutex<Vec<(&'static Node, Op)>>,
}

// SAFETY: `#[repr(C)]`, header first.
unsafe impl Object for Graph {
    const MAGIC: u32 = magic::GRAPH;
}

/// `CUgraphNodeType`.
fn node_type(op: &Op) -> u32 {
    match op.kind {
        op::KERNEL => 0,
        op::MEMSET => 2,
        _ => 1,
    }
}

impl Graph {
    pub(crate) fn create() -> &'static Graph {
        let id = u64::from(next_id());
        let header = Header {
            magic: magic::GRAPH,
            device: 0,
            id,
        };
        let graph: &'static Graph = Box::leak(Box::new(Graph {
            header,
            nodes: Mutex::new(Vec::new()),
        }));
        hooks::resource(&Resource {
            graph: handle(graph),
            ..Resource::of(cbid::GRAPH_CREATED)
        });
        graph
    }

    fn id(&self) -> u32 {
        self.header.id as u32
    }

    fn add(&self, op: &Op) {
        let node = {
            let mut nodes = lock(&self.nodes);
            let id = node_id(self.id(), nodes.len());
            let node = Node::create(id);
            nodes.push((
                node,
                Op {
                    source_node: id,
                    source_graph: self.id(),
                    ..*op
                },
            ));
            node
        };
        let node_type = node_type(op);
        let (graph, node) = (handle(self), handle(node));
        hooks::resource(&Resource {
            graph,
            node,
            node_type,
            ..Resource::of(cbid::GRAPHNODE_CREATED)
        });
    }
}

/// A capture under way; shared by the streams that take part in it.
pub(crate) struct Capture {
    graph: &'static Graph,
    /// The stream on which it began, where it must end.
    origin: usize,
    ended: AtomicBool,
}

impl Capture {
    pub(crate) fn begin(origin: *const c_void) -> Arc<Capture> {
        Arc::new(Capture {
            graph: Graph::create(),
            origin: origin as usize,
            ended: AtomicBool::new(false),
        })
    }

    pub(crate) fn add(&self, op: &Op) {
        self.graph.add(op);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Ends it on the stream on which it began; None on another.
    pub(crate) fn end(&self, stream: *const c_void) -> Option<&'static Graph> {
        if self.origin != stream as usize {
            return None;
        }
        self.ended.store(true, Ordering::Release);
        Some(self.graph)
    }
}

#[repr(C)]
pub(crate) struct GraphExec {
    header: Header,
    ops: Box<[Op]>,
    length_ns: u64,
}

// SAFETY: `#[repr(C)]`, header first.
unsafe impl Object for GraphExec {
    const MAGIC: u32 = magic::GRAPH_EXEC;
}

impl GraphExec {
    /// A graph made ready to launch.
    pub(crate) fn instantiate(graph: &Graph) -> &'static GraphExec {
        let id = next_id();
        let source = lock(&graph.nodes).clone();
        let (ops, length_ns) = schedule(id, source.iter().map(|(_, op)| *op));
        let header = Header {
            magic: magic::GRAPH_EXEC,
            device: 0,
            id: u64::from(id),
        };
        let exec: &'static GraphExec = Box::leak(Box::new(GraphExec { header, ops, length_ns }));
        HOOKS.graph_execs.fetch_add(1, Ordering::AcqRel);

        let graph_exec = handle(exec);
        let resource = |cbid| Resource {
            graph: handle(graph),
            graph_exec,
            graph_exec_id: id,
            ..Resource::of(cbid)
        };
        if hooks::is_traced() {
            hooks::resource(&resource(cbid::GRAPHEXEC_CREATE_STARTING));
            for (original, op) in source.iter().zip(&exec.ops) {
                hooks::resource(&Resource {
                    node: handle(Node::create(op.graph_node)),
                    original_node: handle(original.0),
                    original_graph: handle(graph),
                    node_type: node_type(op),
                    ..resource(cbid::GRAPHNODE_CLONED)
                });
            }
            hooks::resource(&resource(cbid::GRAPHEXEC_CREATED));
        }
        exec
    }

    pub(crate) fn destroy(&'static self) {
        let (graph_exec, graph_exec_id) = (handle(self), self.id());
        let resource = Resource::of(cbid::GRAPHEXEC_DESTROY_STARTING);
        hooks::resource(&Resource {
            graph_exec,
            graph_exec_id,
            ..resource
        });
        HOOKS.graph_execs.fetch_sub(1, Ordering::AcqRel);
        // SAFETY: leaked by `instantiate`; its owner says that it is not launched any more.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(self).cast_mut()) });
    }

    pub(crate) fn id(&self) -> u32 {
        self.header.id as u32
    }

    pub(crate) fn ops(&self) -> &[Op] {
        &self.ops
    }

    pub(crate) fn length_ns(&self) -> u64 {
        self.length_ns
    }
}

/// Gives each operation its place in a replay and its node id; returns how long the replay takes, too.
fn schedule(exec: u32, source: impl Iterator<Item = Op>) -> (Box<[Op]>, u64) {
    let mut end = 0;
    let ops = source
        .enumerate()
        .map(|(index, op)| {
            let offset_ns = if index == 0 { 0 } else { end + scaled(GRAPH_GAP_NS) };
            end = offset_ns + op.duration_ns;
            Op {
                offset_ns,
                graph_node: node_id(exec, index),
                ..op
            }
        })
        .collect();
    (ops, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_keeps_the_order_and_carries_its_id_in_the_upper_half_of_each_node() {
        let capture = Capture::begin(std::ptr::null());
        for duration_ns in [1_000, 2_000, 3_000] {
            capture.add(&Op {
                duration_ns,
                ..Op::EMPTY
            });
        }
        assert!(
            capture.end(8 as *const c_void).is_none(),
            "a capture ends where it began"
        );
        let graph = capture.end(std::ptr::null()).unwrap();
        assert!(capture.has_ended());
        let [first, second] = [GraphExec::instantiate(graph), GraphExec::instantiate(graph)];

        for exec in [first, second] {
            assert_eq!(exec.length_ns(), 6_000 + 2 * GRAPH_GAP_NS);
            for (index, op) in exec.ops().iter().enumerate() {
                assert_eq!((op.graph_node >> 32) as u32, exec.id());
                assert_eq!(op.graph_node as u32 as usize, index);
                assert_eq!((op.source_node >> 32) as u32, op.source_graph);
                assert_ne!(op.source_graph, exec.id());
            }
        }
        assert_ne!(first.id(), second.id());
        let offsets: Vec<_> = first.ops().iter().map(|op| op.offset_ns).collect();
        assert_eq!(offsets, [0, 1_000 + GRAPH_GAP_NS, 3_000 + 2 * GRAPH_GAP_NS]);
        first.destroy();
        second.destroy();
    }
}
