//! Stream capture and graphs. Ids as the real driver's: graphs and executables share one counter, and a node's id has
//! that of its graph or executable in the upper 32 bits. A replay runs the nodes one after the other in the order of
//! their capture, even if they were captured from several streams.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use sim_abi::{Header, Op, Resource, magic, op};

use crate::hooks::{self, HOOKS};
use crate::objects::{Context, Object, current, handle, lock, retire};
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
    /// `CUgraphNodeType`.
    pub(crate) kind: u32,
    /// The graph that a child-graph node holds.
    pub(crate) child: Option<&'static Graph>,
}

// SAFETY: `#[repr(C)]`, header first.
unsafe impl Object for Node {
    const MAGIC: u32 = magic::GRAPH_NODE;
}

impl Node {
    fn create(id: u64, kind: u32, child: Option<&'static Graph>) -> &'static Node {
        let header = Header {
            magic: magic::GRAPH_NODE,
            device: 0,
            id,
        };
        Box::leak(Box::new(Node { header, kind, child }))
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

/// `CU_GRAPH_NODE_TYPE_GRAPH`.
const CHILD: u32 = 4;

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

    /// Its nodes, in order of creation.
    pub(crate) fn nodes(&self) -> Vec<&'static Node> {
        lock(&self.nodes).iter().map(|(node, _)| *node).collect()
    }

    fn add(&self, op: &Op, child: Option<&'static Graph>) -> &'static Node {
        let kind = child.map_or_else(|| node_type(op), |_| CHILD);
        let node = {
            let mut nodes = lock(&self.nodes);
            let id = node_id(self.id(), nodes.len());
            let node = Node::create(id, kind, child);
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
        hooks::resource(&Resource {
            graph: handle(self),
            node: handle(node),
            node_type: kind,
            ..Resource::of(cbid::GRAPHNODE_CREATED)
        });
        node
    }

    /// Adds a node that holds a copy of a graph.
    pub(crate) fn add_child(&self, child: &Graph) -> &'static Node {
        self.add(&Op::EMPTY, Some(child.copy()))
    }

    /// A graph with the same nodes; its child graphs are copies, too.
    pub(crate) fn copy(&self) -> &'static Graph {
        let copy = Graph::create();
        for (node, op) in lock(&self.nodes).clone() {
            copy.add(&op, node.child.map(Graph::copy));
        }
        copy
    }

    /// What runs, in order, each with its number in an executable: own nodes count first, then those of each child graph
    /// with the children of its own.
    fn numbered(&self, next: &mut usize) -> Vec<(&'static Node, usize, Op)> {
        let nodes = lock(&self.nodes).clone();
        let base = *next;
        *next += nodes.len();
        let mut all = Vec::new();
        for (index, (node, op)) in nodes.into_iter().enumerate() {
            match node.child {
                Some(child) => all.extend(child.numbered(next)),
                None => all.push((node, base + index, op)),
            }
        }
        all
    }
}

/// A capture under way; shared by the streams that take part in it.
pub(crate) struct Capture {
    graph: &'static Graph,
    /// The stream on which it began, where it must end.
    origin: usize,
    ended: AtomicBool,
    invalidated: AtomicBool,
}

impl Capture {
    /// Captures into `graph`, or into a new one.
    pub(crate) fn begin(origin: *const c_void, graph: Option<&'static Graph>) -> Arc<Capture> {
        Arc::new(Capture {
            graph: graph.unwrap_or_else(Graph::create),
            origin: origin as usize,
            ended: AtomicBool::new(false),
            invalidated: AtomicBool::new(false),
        })
    }

    pub(crate) fn add(&self, op: &Op) {
        self.graph.add(op, None);
    }

    pub(crate) fn id(&self) -> u64 {
        self.graph.header.id
    }

    /// Where it captures to; None once something was done that a capture does not allow.
    pub(crate) fn graph(&self) -> Option<&'static Graph> {
        (!self.invalidated.load(Ordering::Acquire)).then_some(self.graph)
    }

    /// Something was done that a capture does not allow: it gives no graph.
    pub(crate) fn invalidate(&self) {
        self.invalidated.store(true, Ordering::Release);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Ends it on the stream on which it began; None on another, or if it gives no graph.
    pub(crate) fn end(&self, stream: *const c_void) -> Option<&'static Graph> {
        if self.origin != stream as usize {
            return None;
        }
        self.ended.store(true, Ordering::Release);
        self.graph()
    }
}

#[repr(C)]
pub(crate) struct GraphExec {
    header: Header,
    replay: AtomicPtr<Replay>,
}

/// What a launch of an executable runs.
pub(crate) struct Replay {
    pub(crate) ops: Box<[Op]>,
    pub(crate) length_ns: u64,
}

// SAFETY: `#[repr(C)]`, header first.
unsafe impl Object for GraphExec {
    const MAGIC: u32 = magic::GRAPH_EXEC;
}

/// Executables with their contexts.
static EXECS: Mutex<Vec<(&'static GraphExec, Option<&'static Context>)>> = Mutex::new(Vec::new());

impl GraphExec {
    /// A graph made ready to launch.
    pub(crate) fn instantiate(graph: &Graph) -> &'static GraphExec {
        let id = next_id();
        let source = graph.numbered(&mut 0);
        let replay = Box::into_raw(Box::new(schedule(id, &source)));
        let header = Header {
            magic: magic::GRAPH_EXEC,
            device: 0,
            id: u64::from(id),
        };
        let exec: &'static GraphExec = Box::leak(Box::new(GraphExec {
            header,
            replay: AtomicPtr::new(replay),
        }));
        HOOKS.graph_execs.fetch_add(1, Ordering::AcqRel);
        lock(&EXECS).push((exec, current()));

        let graph_exec = handle(exec);
        let resource = |cbid| Resource {
            graph: handle(graph),
            graph_exec,
            graph_exec_id: id,
            ..Resource::of(cbid)
        };
        if hooks::is_traced() {
            hooks::resource(&resource(cbid::GRAPHEXEC_CREATE_STARTING));
            for ((original, ..), op) in source.iter().zip(&exec.replay().ops) {
                hooks::resource(&Resource {
                    node: handle(Node::create(op.graph_node, original.kind, None)),
                    original_node: handle(*original),
                    original_graph: handle(graph),
                    node_type: original.kind,
                    ..resource(cbid::GRAPHNODE_CLONED)
                });
            }
            hooks::resource(&resource(cbid::GRAPHEXEC_CREATED));
        }
        exec
    }

    /// Takes the nodes of a graph of the same kinds of nodes; None with another.
    pub(crate) fn update(&self, graph: &Graph) -> Option<()> {
        let new = schedule(self.id(), &graph.numbered(&mut 0));
        let kinds = |replay: &Replay| replay.ops.iter().map(|op| (op.kind, op.graph_node)).collect::<Vec<_>>();
        if kinds(&new) != kinds(self.replay()) {
            return None;
        }
        // The old one stays: a launch may just read it.
        self.replay.store(Box::into_raw(Box::new(new)), Ordering::Release);
        Some(())
    }

    /// A context goes, with its executables. They are not freed, so that who asks for one is found out.
    pub(crate) fn destroy_all(context: &'static Context) {
        let is_of = |of: &Option<&'static Context>| of.is_some_and(|of| std::ptr::eq(of, context));
        let gone = lock(&EXECS).extract_if(.., |(_, of)| is_of(of)).collect::<Vec<_>>();
        for (exec, _) in gone {
            exec.announce_end();
            retire(exec);
        }
    }

    pub(crate) fn destroy(&'static self) {
        lock(&EXECS).retain(|(exec, _)| !std::ptr::eq(*exec, self));
        self.announce_end();
        let replay = self.replay.load(Ordering::Acquire);
        // SAFETY: both were leaked by `instantiate` or `update`; the owner says that it is not launched any more.
        unsafe {
            drop(Box::from_raw(replay));
            drop(Box::from_raw(std::ptr::from_ref(self).cast_mut()));
        }
    }

    fn announce_end(&'static self) {
        let (graph_exec, graph_exec_id) = (handle(self), self.id());
        let resource = Resource::of(cbid::GRAPHEXEC_DESTROY_STARTING);
        hooks::resource(&Resource {
            graph_exec,
            graph_exec_id,
            ..resource
        });
        HOOKS.graph_execs.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn id(&self) -> u32 {
        self.header.id as u32
    }

    pub(crate) fn replay(&self) -> &Replay {
        // SAFETY: leaked by `instantiate` or `update`.
        unsafe { &*self.replay.load(Ordering::Acquire) }
    }
}

/// Gives each operation its place in a replay and its node id.
fn schedule(exec: u32, source: &[(&'static Node, usize, Op)]) -> Replay {
    let mut length_ns = 0;
    let ops = source.iter().enumerate().map(|(index, (_, number, op))| {
        let offset_ns = if index == 0 {
            0
        } else {
            length_ns + scaled(GRAPH_GAP_NS)
        };
        length_ns = offset_ns + op.duration_ns;
        Op {
            offset_ns,
            graph_node: node_id(exec, *number),
            ..*op
        }
    });
    Replay {
        ops: ops.collect(),
        length_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_keeps_the_order_and_carries_its_id_in_the_upper_half_of_each_node() {
        let capture = Capture::begin(std::ptr::null(), None);
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
            assert_eq!(exec.replay().length_ns, 6_000 + 2 * GRAPH_GAP_NS);
            for (index, op) in exec.replay().ops.iter().enumerate() {
                assert_eq!((op.graph_node >> 32) as u32, exec.id());
                assert_eq!(op.graph_node as u32 as usize, index);
                assert_eq!((op.source_node >> 32) as u32, op.source_graph);
                assert_ne!(op.source_graph, exec.id());
            }
        }
        assert_ne!(first.id(), second.id());
        let offsets: Vec<_> = first.replay().ops.iter().map(|op| op.offset_ns).collect();
        assert_eq!(offsets, [0, 1_000 + GRAPH_GAP_NS, 3_000 + 2 * GRAPH_GAP_NS]);
        first.destroy();
        second.destroy();
    }

    /// A graph with so many kernels, each as long as said.
    fn of(durations: &[u64]) -> &'static Graph {
        let graph = Graph::create();
        for &duration_ns in durations {
            let op = Op {
                duration_ns,
                ..Op::EMPTY
            };
            graph.add(&op, None);
        }
        graph
    }

    fn numbers(exec: &GraphExec) -> Vec<(u64, u64)> {
        let ops = exec.replay().ops.iter();
        ops.map(|op| (op.duration_ns, op.graph_node & u64::from(u32::MAX)))
            .collect()
    }

    #[test]
    fn child_graphs_run_in_their_place_and_count_behind_the_graphs_own_nodes() {
        let (inner, outer, parent) = (of(&[10]), of(&[20, 21]), of(&[30]));
        outer.add_child(inner);
        inner.add(&Op::EMPTY, None);
        parent.add_child(outer);
        parent.add_child(inner);
        let exec = GraphExec::instantiate(parent);
        // The parent has 0..3, the first child 3..6, its own child 6 (a copy, made before the node was added), then 7..9.
        assert_eq!(numbers(exec), [(30, 0), (20, 3), (21, 4), (10, 6), (10, 7), (0, 8)]);
        let [of_node, other] = [0, 1].map(|index| parent.nodes()[1 + index].child.unwrap());
        assert!(of_node.id() != outer.id() && other.id() != inner.id(), "copies");
        exec.destroy();
    }

    #[test]
    fn an_update_keeps_the_id_and_needs_the_same_nodes() {
        let exec = GraphExec::instantiate(of(&[1, 2]));
        let id = exec.id();
        assert!(exec.update(of(&[3])).is_none());
        exec.update(of(&[3, 4])).unwrap();
        assert_eq!((numbers(exec), exec.id()), (vec![(3, 0), (4, 1)], id));
        exec.destroy();
    }

    #[test]
    fn a_capture_that_was_broken_gives_no_graph() {
        let capture = Capture::begin(std::ptr::null(), None);
        capture.invalidate();
        assert!(capture.end(std::ptr::null()).is_none() && capture.has_ended());
    }
}
