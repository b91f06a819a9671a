//! The nodes of an executable graph, numbered as its records number them: those of the graph itself, then those of its
//! child graphs.

use std::sync::Arc;

use crate::inject::graphs::Handle;
use crate::inject::graphs::runs::{Path, Run, Runs, append, joined};

/// Child graphs lie within each other no deeper than this.
const MAX_DEPTH: u32 = 64;

/// What there is to know of the graphs.
pub(crate) trait Known {
    /// Nodes of a graph, in order of creation.
    fn nodes(&self, graph: Handle) -> Option<Nodes>;
    /// What is known of a graph's capture.
    fn runs(&self, graph: Handle) -> Option<Arc<Runs>>;
}

/// The nodes of one graph.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    pub(crate) count: u32,
    /// Child graphs, by the number of their node.
    pub(crate) children: Vec<(u32, Handle)>,
    /// It has nodes whose graphs are not told: what comes behind the graph's own nodes can't be numbered.
    pub(crate) is_open_ended: bool,
}

/// Runs of an executable made of this graph. None: its nodes can't be had.
pub(crate) fn expand(graph: Handle, known: &impl Known) -> Option<Vec<Run>> {
    let mut all = Vec::new();
    add(graph, known, &None, &mut all, &mut 0, 0)?;
    Some(all)
}

/// Adds a graph's own nodes, then each child with its own children. On an H100 the children of one graph follow it in
/// the order of their nodes, a child's own children before the next child. False where what follows has no number.
fn add(
    graph: Handle,
    known: &impl Known,
    outer: &Path,
    all: &mut Vec<Run>,
    next: &mut u32,
    depth: u32,
) -> Option<bool> {
    let nodes = known.nodes(graph)?;
    let base = *next;
    *next = base.checked_add(nodes.count)?;
    let runs = known.runs(graph).unwrap_or_default();
    let mut done = 0;
    for run in runs.all() {
        let (begin, end) = (run.begin.min(nodes.count), run.end.min(nodes.count));
        append(all, base + done, base + begin, outer);
        append(all, base + begin, base + end, &joined(outer, &run.path));
        done = end;
    }
    append(all, base + done, *next, outer);
    if nodes.is_open_ended || depth >= MAX_DEPTH {
        return Some(false);
    }
    for (node, child) in nodes.children {
        let outer = joined(outer, &runs.path_of(node));
        if !add(child, known, &outer, all, next, depth + 1)? {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Graphs with their nodes' paths; a node that is a graph has its handle.
    #[derive(Default)]
    struct Graphs(BTreeMap<Handle, Vec<(&'static str, Option<Handle>)>>, Vec<Handle>);

    impl Known for Graphs {
        fn nodes(&self, graph: Handle) -> Option<Nodes> {
            let nodes = self.0.get(&graph)?;
            let children = nodes
                .iter()
                .zip(0..)
                .filter_map(|((_, child), at)| Some((at, (*child)?)));
            Some(Nodes {
                count: u32::try_from(nodes.len()).unwrap(),
                children: children.collect(),
                is_open_ended: self.1.contains(&graph),
            })
        }

        fn runs(&self, graph: Handle) -> Option<Arc<Runs>> {
            let mut runs = Vec::new();
            for ((text, _), at) in self.0.get(&graph)?.iter().zip(0..) {
                append(&mut runs, at, at + 1, &(!text.is_empty()).then(|| Arc::from(*text)));
            }
            Some(Runs::keep(runs).unwrap())
        }
    }

    fn texts(graph: Handle, known: &Graphs) -> Vec<String> {
        let runs = expand(graph, known).unwrap();
        let each = runs
            .iter()
            .flat_map(|run| (run.begin..run.end).map(|_| run.path.as_deref().unwrap_or("")));
        each.map(str::to_owned).collect()
    }

    #[test]
    fn children_follow_the_graphs_own_nodes_and_lie_in_its_ranges() {
        let mut known = Graphs::default();
        known.0.insert(1, vec![("p", None), ("p", Some(2)), ("", Some(3))]);
        known.0.insert(2, vec![("a", None), ("", Some(4)), ("b", None)]);
        known.0.insert(3, vec![("", None)]);
        known.0.insert(4, vec![("c", None)]);
        assert_eq!(texts(1, &known), ["p", "p", "", "p/a", "p", "p/b", "p/c", ""]);
        known.1.push(1);
        assert_eq!(texts(1, &known), ["p", "p", ""], "a conditional node among them");
        known.1 = vec![2];
        let expected = ["p", "p", "", "p/a", "p", "p/b"];
        assert_eq!(
            texts(1, &known),
            expected,
            "one in the first child: where the second begins is not known"
        );
    }

    #[test]
    fn a_graph_that_is_gone_or_holds_itself_gives_no_numbers_that_are_wrong() {
        let mut known = Graphs::default();
        known.0.insert(1, vec![("p", Some(9))]);
        assert_eq!(expand(1, &known), None);
        known.0.insert(9, vec![("", Some(9))]);
        assert_eq!(expand(1, &known).unwrap().len(), 1, "no endless walk");
    }
}
