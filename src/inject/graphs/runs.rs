//! Which ranges the nodes of a graph were captured in: nodes are numbered in the order of their capture, and stretches
//! of them lie in the same ranges. No CUDA.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::schema::ranges::MAX_NAME_BYTES;

/// Memory that all captures together may keep.
const MAX_BYTES: usize = 64 << 20;

static BYTES: AtomicUsize = AtomicUsize::new(0);

/// The ranges that are open on a thread, joined by `/`; `None` for none.
pub(crate) type Path = Option<Arc<str>>;

/// Nodes that follow each other and were captured in the same ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) begin: u32,
    pub(crate) end: u32,
    pub(crate) path: Path,
}

/// All nodes of a graph, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs(Vec<Run>);

/// What could not be kept beside all else: so many runs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany(pub(crate) u64);

impl Runs {
    /// Keeps them, if there is room.
    pub(crate) fn keep(runs: Vec<Run>) -> Result<Arc<Runs>, TooMany> {
        let bytes = bytes(&runs);
        let with = |kept: usize| kept.checked_add(bytes).filter(|sum| *sum <= MAX_BYTES);
        match BYTES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with) {
            Ok(_) => Ok(Arc::new(Runs(runs))),
            Err(_) => Err(TooMany(runs.len() as u64)),
        }
    }

    pub(crate) fn all(&self) -> &[Run] {
        &self.0
    }

    /// True where a range says anything.
    pub(crate) fn name_any(&self) -> bool {
        self.0.iter().any(|run| run.path.is_some())
    }

    pub(crate) fn path_of(&self, node: u32) -> Path {
        let at = self.0.partition_point(|run| run.end <= node);
        self.0
            .get(at)
            .filter(|run| run.begin <= node)
            .and_then(|run| run.path.clone())
    }
}

/// Texts that runs share count for each.
fn bytes(runs: &[Run]) -> usize {
    let text = |run: &Run| run.path.as_ref().map_or(0, |path| path.len());
    runs.iter().map(|run| size_of::<Run>() + text(run)).sum()
}

impl Drop for Runs {
    fn drop(&mut self) {
        BYTES.fetch_sub(bytes(&self.0), Ordering::Relaxed);
    }
}

/// Runs of a capture under way.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Up to where the last note was.
    done: Vec<Run>,
    begin: u32,
    path: Path,
}

impl Notes {
    /// A capture into a graph that has nodes already.
    pub(crate) fn after(runs: &[Run]) -> Notes {
        Notes {
            done: runs.to_vec(),
            begin: runs.last().map_or(0, |run| run.end),
            path: None,
        }
    }

    /// True where these ranges were noted last.
    pub(crate) fn are_in(&self, path: &Path) -> bool {
        self.path == *path
    }

    /// The nodes from `count` on are captured in these ranges.
    pub(crate) fn note(&mut self, count: u32, path: Path) {
        append(&mut self.done, self.begin, count, &self.path);
        self.begin = self.begin.max(count);
        self.path = path;
    }

    /// The capture ends with so many nodes.
    pub(crate) fn finish(mut self, count: u32) -> Vec<Run> {
        self.note(count, None);
        self.done
    }
}

/// Adds a run; one that has no node is none, and one with the path of the last goes on with it.
pub(crate) fn append(runs: &mut Vec<Run>, begin: u32, end: u32, path: &Path) {
    if begin >= end {
        return;
    }
    match runs.last_mut() {
        Some(last) if last.end == begin && last.path == *path => last.end = end,
        _ => runs.push(Run {
            begin,
            end,
            path: path.clone(),
        }),
    }
}

/// The ranges of a child graph's own capture behind those that it was added in. Of a text that is too long, the end.
pub(crate) fn joined(outer: &Path, inner: &Path) -> Path {
    let (Some(outer), Some(inner)) = (outer, inner) else {
        return inner.clone().or_else(|| outer.clone());
    };
    let text = format!("{outer}/{inner}");
    if text.len() <= MAX_NAME_BYTES {
        return Some(Arc::from(text));
    }
    let mut from = text.len() - MAX_NAME_BYTES;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    Some(Arc::from(format!("…{}", text.get(from..).unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Path {
        (!text.is_empty()).then(|| Arc::from(text))
    }

    fn shown(runs: &[Run]) -> Vec<(u32, u32, &str)> {
        let shown = |run: &Run| (run.begin, run.end);
        let texts = runs.iter().map(|run| run.path.as_deref().unwrap_or(""));
        runs.iter().map(shown).zip(texts).map(|((b, e), t)| (b, e, t)).collect()
    }

    fn finished(notes: &[(u32, &str)], count: u32) -> Vec<Run> {
        let mut all = Notes::default();
        notes.iter().for_each(|(at, text)| all.note(*at, path(text)));
        all.finish(count)
    }

    #[test]
    fn a_run_ends_where_the_next_note_is() {
        let runs = finished(&[(0, "a"), (2, "a/b"), (5, "a"), (5, "a/c"), (6, "")], 8);
        assert_eq!(shown(&runs), [(0, 2, "a"), (2, 5, "a/b"), (5, 6, "a/c"), (6, 8, "")]);
        assert_eq!(shown(&finished(&[(0, "a"), (3, ""), (3, "a")], 4)), [(0, 4, "a")]);
        assert!(finished(&[(0, "a")], 0).is_empty());
    }

    #[test]
    fn a_capture_goes_on_in_a_graph_that_has_nodes() {
        let first = finished(&[(0, "a")], 2);
        let mut notes = Notes::after(&first);
        notes.note(3, path("b"));
        assert_eq!(shown(&notes.finish(5)), [(0, 2, "a"), (2, 3, ""), (3, 5, "b")]);
    }

    #[test]
    fn what_is_kept_is_bounded_and_given_back() {
        let run = |end: u32, text: &str| Run {
            begin: 0,
            end,
            path: path(text),
        };
        let small = Runs::keep(vec![run(1, "a")]).unwrap();
        assert_eq!(small.path_of(0), path("a"));
        let huge = "x".repeat(MAX_BYTES);
        assert_eq!(Runs::keep(vec![run(1, ""), run(2, &huge)]).unwrap_err(), TooMany(2));
        let half = "x".repeat(MAX_BYTES / 2);
        for _ in 0..3 {
            drop(Runs::keep(vec![run(1, &half)]).unwrap());
        }
    }

    #[test]
    fn paths_are_joined_and_keep_their_end() {
        let join = |outer: &str, inner: &str| joined(&path(outer), &path(inner)).map(|text| text.to_string());
        assert_eq!(join("a", "b").as_deref(), Some("a/b"));
        assert_eq!(join("", "b").as_deref(), Some("b"));
        assert_eq!(join("a", "").as_deref(), Some("a"));
        assert_eq!(join("", ""), None);
        let long = join(&"é".repeat(MAX_NAME_BYTES), "end").unwrap();
        assert!(long.starts_with("…é") && long.ends_with("é/end"), "{}", long.len());
        assert!(long.len() <= MAX_NAME_BYTES + "…".len());
    }

    proptest! {
        #[test]
        fn each_node_has_the_path_noted_last(steps in prop::collection::vec((0..4_u32, "[ab]?"), 0..40)) {
            let (mut notes, mut naive, mut count) = (Notes::default(), Vec::new(), 0);
            for (nodes, text) in &steps {
                notes.note(count, path(text));
                count += nodes;
                naive.extend((0..*nodes).map(|_| path(text)));
            }
            let runs = Runs::keep(notes.finish(count)).unwrap();
            let found: Vec<Path> = (0..count).map(|node| runs.path_of(node)).collect();
            prop_assert_eq!(found, naive);
            let merged = runs.all().windows(2).all(|pair| pair[0].end == pair[1].begin && pair[0].path != pair[1].path);
            prop_assert!(merged);
        }
    }
}
