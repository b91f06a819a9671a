//! Forward passes in a sequence of kernels: where the block of a layer repeats, and where each layer begins.
//!
//! Repetitions with the same root are one *family*. A family whose root consists for the most part of other
//! repetitions is that of the steps, and one that lies within the blocks of another is a part of a layer; the others are
//! layers. (So a layer that is a loop for the most part, as experts launched one by one, is taken for a step, unless a
//! graph holds the pass.)
//!
//! What can't be seen from repetition alone is where in the cycle a layer begins: that is where the repetition begins,
//! variants of its kernels included, and not right after a norm, since layers begin with one. Where a window opened in the
//! middle of a step, the other end tells: behind the last layer there is the final norm.

use std::collections::{BTreeMap, VecDeque};

use crate::session::structure::names::Names;
use crate::session::structure::runs::{Run, runs};
use crate::session::structure::walk::{Block, Bounds, Start, beginning, ending, walk, with_variants};

/// Kernels of a layer.
const BLOCK: std::ops::RangeInclusive<usize> = 4..=1024;
/// Layers of a model: fewer are no repetition to speak of, more are a loop.
pub(crate) const LAYERS: std::ops::RangeInclusive<usize> = 3..=512;
/// Parts of a block that are tried as layers which alternate.
const ALTERNATING: std::ops::RangeInclusive<usize> = 2..=8;
/// In the place of a graph's kernels, where these are a pass of their own: a repetition that has it is one of steps.
pub(crate) const WHOLE: u32 = u32::MAX;
/// Kernels between two families of layers of a graph, at most. In the order of launch these may as well lie between a prefill
/// and a decode step: none are allowed.
const SEAM: usize = 2;

/// One pass through the layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pass {
    /// Where each layer begins, and where the last one ends.
    pub(crate) borders: Vec<usize>,
}

impl Pass {
    pub(crate) fn layers(&self) -> usize {
        self.borders.len().saturating_sub(1)
    }

    pub(crate) fn start(&self) -> usize {
        self.borders.first().copied().unwrap_or(0)
    }

    pub(crate) fn end(&self) -> usize {
        self.borders.last().copied().unwrap_or(0)
    }

    /// A layer that is neither the first nor the last, if there is one.
    fn layer(&self) -> std::ops::Range<usize> {
        let middle = self.layers() / 2;
        self.borders[middle]..self.borders[middle + 1]
    }
}

/// The passes in a sequence, in order. `is_one` says that it is one pass, as a graph's nodes are; `edges`, in order, where
/// steps may have been cut.
pub(crate) fn passes(text: &[u32], names: &Names, edges: &[usize], is_one: bool) -> Vec<Pass> {
    let mut families = families(text, is_one);
    let votes: Vec<_> = families
        .iter()
        .map(|family| family.beginnings(text, names, edges))
        .collect();
    // The layers of one model begin with the same kernel, whatever the rest of the block is.
    let mut openers = BTreeMap::<u32, usize>::new();
    for (family, votes) in families.iter().zip(&votes) {
        votes
            .iter()
            .for_each(|(&place, votes)| *openers.entry(family.root[place]).or_default() += votes);
    }
    let mut found = Vec::new();
    let mut taken = Cover::new(text.len());
    for (number, (family, votes)) in families.iter_mut().zip(&votes).enumerate() {
        family
            .runs
            .retain(|run| 2 * taken.within(run.start, run.end) < run.end - run.start);
        let first = votes
            .iter()
            .max_by_key(|&(place, votes)| (openers[&family.root[*place]], votes, std::cmp::Reverse(place)));
        let block = family.block(first.map_or(0, |(&place, _)| place), names);
        for pass in family.passes(text, names, &block, is_one) {
            taken.add(pass.start(), pass.end());
            found.push((pass, number));
        }
    }
    found.sort_by_key(|(pass, _)| (pass.start(), std::cmp::Reverse(pass.end())));
    let seam = if is_one { SEAM } else { 0 };
    let mut joined = Vec::<Pass>::new();
    let mut family_of_last = None;
    for (mut pass, family) in found {
        let Some(last) = joined.last_mut() else {
            joined.push(pass);
            family_of_last = Some(family);
            continue;
        };
        // Two families may claim the same kernels at their borders; the first one has them.
        pass.borders.retain(|&border| border >= last.end());
        if pass.layers() == 0 {
            continue;
        }
        // Two of one family are two steps with little in between: it was followed as far as it goes.
        let may_be_one = family_of_last.replace(family) != Some(family) && pass.start() - last.end() <= seam;
        if may_be_one && are_related(&text[last.layer()], &text[pass.layer()]) {
            last.borders.extend(pass.borders);
            last.borders.dedup();
        } else {
            joined.push(pass);
        }
    }
    joined.retain(|pass| LAYERS.contains(&pass.layers()));
    joined
}

/// Whether two kinds of layers may be of one model: they share at least a third of their kernels, as those with and
/// without experts share attention.
fn are_related(a: &[u32], b: &[u32]) -> bool {
    let common = a.iter().filter(|kernel| b.contains(kernel)).count();
    3 * common >= a.len().max(b.len())
}

/// Repetitions of one root.
struct Family {
    /// The smallest rotation of the block.
    root: Vec<u32>,
    /// In order of start.
    runs: Vec<Run>,
}

/// Repetitions that are one but for a few kernels.
struct Stretch {
    /// Where the first one begins, in the sequence and in the root.
    start: Start,
    /// Each with a place where the root begins in it.
    runs: Vec<(Run, Start)>,
}

/// The families that may be of layers, those with most kernels first.
fn families(text: &[u32], is_one: bool) -> Vec<Family> {
    let mut by_root = BTreeMap::<(usize, Vec<u32>), Vec<Run>>::new();
    for run in runs(text, BLOCK) {
        let block = &text[run.start..run.start + run.period];
        if !block.contains(&WHOLE) {
            let key = (run.period, smallest_rotation(block));
            by_root.entry(key).or_default().push(run);
        }
    }
    let mut layers = Vec::<Family>::new();
    // What the repetitions of up to half the period cover: the shorter ones come first.
    let mut inner = Cover::new(text.len());
    let mut waiting = VecDeque::<(usize, Vec<Run>)>::new();
    for ((period, root), runs) in by_root {
        while waiting.front().is_some_and(|&(shorter, _)| 2 * shorter <= period) {
            let shorter = waiting.pop_front().map_or_else(Vec::new, |(_, runs)| runs);
            shorter.iter().for_each(|run| inner.add(run.start, run.end));
        }
        waiting.push_back((period, runs.clone()));
        let family = Family { root, runs };
        // One that is made of shorter repetitions for the most part is of steps; within one pass there are none.
        let covered: usize = family.runs.iter().map(|run| inner.within(run.start, run.end)).sum();
        if is_one || 2 * covered < family.kernels() {
            layers.push(family);
        }
    }
    layers.sort_by_key(|family| std::cmp::Reverse((family.kernels(), family.root.len())));
    layers
}

impl Family {
    fn kernels(&self) -> usize {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// Places of the root at which repetitions begin, and how many kernels speak for each.
    fn beginnings(&self, text: &[u32], names: &Names, edges: &[usize]) -> BTreeMap<usize, usize> {
        let root = Block {
            kernels: self.root.clone(),
            layer: self.root.len(),
        };
        let is_cut = |at: usize| edges.binary_search(&at).is_ok();
        let with_variants = |start| {
            let are_alike = |a, b| names.are_alike(a, b);
            with_variants(text, &root, start, &are_alike, &|name| names.is_norm(name))
        };
        let mut votes = BTreeMap::new();
        for Stretch { start, runs } in self.stretches(text, &root) {
            let (at, place) = with_variants(start);
            let last = runs.last().map_or(start, |&(_, within)| within);
            let known = match is_cut(at) {
                false => Some(place),
                true => Some(ending(text, &root, last))
                    .filter(|&(end, _)| end < text.len() && !is_cut(end))
                    .map(|(_, place)| place),
            };
            for (run, (within, _)) in runs {
                // Cut on both sides: its steps have so little between them that it was walked over.
                let place = known.unwrap_or_else(|| {
                    let ahead = within - run.start;
                    with_variants((run.start, (root.layer - ahead % root.layer) % root.layer)).1
                });
                *votes.entry(place).or_default() += run.end - run.start;
            }
        }
        votes
    }

    /// The repetitions as one gets from each to the next over kernels that are missing, extra or exchanged.
    fn stretches(&self, text: &[u32], root: &Block) -> Vec<Stretch> {
        let mut stretches = Vec::<Stretch>::new();
        let mut before = 0;
        for &run in &self.runs {
            let Some(ahead) = place_of(&self.root, &text[run.start..run.start + run.period]) else {
                continue;
            };
            let within = (run.start + ahead, 0);
            let start = beginning(text, root, within, before);
            match stretches.last_mut().filter(|_| start.0 <= before) {
                Some(stretch) => stretch.runs.push((run, within)),
                None => stretches.push(Stretch {
                    start,
                    runs: vec![(run, within)],
                }),
            }
            before = within.0;
        }
        stretches
    }

    /// The block, whose first kernel is at this place of the root.
    fn block(&self, first: usize, names: &Names) -> Block {
        let mut kernels = self.root.clone();
        kernels.rotate_left(first);
        if !names.is_norm(kernels[0]) && kernels.last().is_some_and(|&last| names.is_norm(last)) {
            kernels.rotate_right(1);
        }
        let layer = layer_length(&kernels);
        Block { kernels, layer }
    }

    fn passes(&self, text: &[u32], names: &Names, block: &Block, is_one: bool) -> Vec<Pass> {
        let bridge = if is_one { *LAYERS.end() } else { 0 };
        let whole = (0, text.len());
        let mut strict = Vec::<Pass>::new();
        for run in &self.runs {
            let reached = strict.last().map_or(0, Pass::end);
            if run.start + block.layer <= reached {
                continue;
            }
            let Some(from) = first_border(text, block, run) else {
                continue;
            };
            let bounds = (reached.min(from), whole.1);
            strict.push(both_ways(text, block, names, from, bounds, (bridge, bridge)));
        }
        let usual = usual_layers(&strict);
        let mut passes = Vec::<Pass>::new();
        for (index, pass) in strict.iter().enumerate() {
            if passes.last().is_some_and(|last| pass.start() < last.end()) {
                continue;
            }
            let missing = usual.saturating_sub(pass.layers());
            if missing == 0 {
                passes.push(pass.clone());
                continue;
            }
            // Towards passes that are whole there is nothing to be found.
            let whole_after = strict[index + 1..].iter().find(|other| other.layers() >= usual);
            let bounds = (
                passes.last().map_or(0, Pass::end),
                whole_after.map_or(whole.1, Pass::start),
            );
            passes.push(longer(text, block, names, pass, bounds, usual));
        }
        passes
    }
}

/// A pass that lacks layers, followed over what lies between two of them.
fn longer(text: &[u32], block: &Block, names: &Names, pass: &Pass, bounds: (usize, usize), usual: usize) -> Pass {
    let after = usual - pass.layers();
    let inner = pass.borders[pass.layers() / 2];
    let (before_inner, after_inner) = (pass.layers() / 2, pass.layers() - pass.layers() / 2);
    let ahead = both_ways(text, block, names, inner, bounds, (0, after_inner + after));
    let behind = usual.saturating_sub(ahead.layers());
    both_ways(
        text,
        block,
        names,
        inner,
        bounds,
        (before_inner + behind, after_inner + after),
    )
}

fn both_ways(
    text: &[u32],
    block: &Block,
    names: &Names,
    from: usize,
    (start, end): (usize, usize),
    (behind, ahead): (usize, usize),
) -> Pass {
    let are_alike = |a, b| names.are_alike(a, b);
    let place = border_place(text, block, from);
    let go = |forward, bridge| {
        let bounds = Bounds { start, end, bridge };
        walk(text, block, (from, place), forward, bounds, &are_alike)
    };
    let mut borders = go(false, behind);
    borders.reverse();
    borders.push(from);
    borders.extend(go(true, ahead));
    Pass { borders }
}

/// Which border of the block is at this position: of alternating layers, the one after which the most kernels agree.
fn border_place(text: &[u32], block: &Block, from: usize) -> usize {
    let length = block.kernels.len();
    let agreeing = |place: usize| {
        let cyclic = (0..length).map(|step| block.kernels[(place + step) % length]);
        let ahead = text[from..]
            .iter()
            .zip(cyclic)
            .filter(|&(&kernel, expected)| kernel == expected);
        ahead.count()
    };
    let places = (0..length).step_by(block.layer);
    places
        .max_by_key(|&place| (agreeing(place), std::cmp::Reverse(place)))
        .unwrap_or(0)
}

/// The first border in a run.
fn first_border(text: &[u32], block: &Block, run: &Run) -> Option<usize> {
    let place = place_of(&block.kernels, &text[run.start..run.start + run.period])?;
    Some(run.start + place % block.layer)
}

/// How many layers most passes have; of two that are as frequent, the larger number.
fn usual_layers(passes: &[Pass]) -> usize {
    let mut counts = BTreeMap::<usize, usize>::new();
    passes
        .iter()
        .for_each(|pass| *counts.entry(pass.layers()).or_default() += 1);
    let most = counts.into_iter().max_by_key(|&(layers, count)| (count, layers));
    most.map_or(0, |(layers, _)| layers)
}

/// The whole block, unless it is made of equal parts that differ in a quarter of their kernels at most.
fn layer_length(block: &[u32]) -> usize {
    let length = block.len();
    let is_made_of = |part: usize| {
        let same = (0..length).filter(|&place| block[place] == block[(place + part) % length]);
        4 * same.count() >= 3 * length
    };
    let parts = ALTERNATING
        .rev()
        .filter(|parts| length.is_multiple_of(*parts))
        .map(|parts| length / parts);
    parts
        .filter(|part| BLOCK.contains(part))
        .find(|&part| is_made_of(part))
        .unwrap_or(length)
}

/// Booth's algorithm.
fn smallest_rotation(block: &[u32]) -> Vec<u32> {
    let length = block.len();
    let (mut best, mut other, mut agree) = (0, 1, 0);
    while best < length && other < length && agree < length {
        let (a, b) = (block[(best + agree) % length], block[(other + agree) % length]);
        if a == b {
            agree += 1;
            continue;
        }
        if a > b {
            best = (best + agree + 1).max(other);
            other = best + 1;
        } else {
            other += agree + 1;
        }
        agree = 0;
    }
    let mut rotated = block.to_vec();
    rotated.rotate_left(best.min(length - 1));
    rotated
}

/// Where a rotation of a block begins.
fn place_of(root: &[u32], rotated: &[u32]) -> Option<usize> {
    let length = root.len();
    (0..length).find(|&place| rotated[place..] == root[..length - place] && rotated[..place] == root[length - place..])
}

/// Which positions belong to some stretches.
struct Cover {
    marked: Vec<bool>,
}

impl Cover {
    fn new(length: usize) -> Self {
        Self {
            marked: vec![false; length],
        }
    }

    fn add(&mut self, start: usize, end: usize) {
        self.marked[start..end].fill(true);
    }

    fn within(&self, start: usize, end: usize) -> usize {
        self.marked[start..end].iter().filter(|&&marked| marked).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes through words, each of which is a layer or lies around them: kernels are letters, `n` is a norm.
    fn borders(words: &[&str], is_one: bool) -> Vec<Vec<usize>> {
        let mut names = Names::default();
        (0..128_u8).for_each(|letter| match letter {
            b'n' => names.push("rms_norm"),
            _ => names.push(&"x".repeat(usize::from(letter) + 1)),
        });
        let text: Vec<u32> = words.concat().bytes().map(u32::from).collect();
        passes(&text, &names, &[], is_one)
            .into_iter()
            .map(|pass| pass.borders)
            .collect()
    }

    /// Where each word of a pass begins, and where the last one ends.
    fn expected(around: usize, layers: &[&str]) -> Vec<usize> {
        let mut at = around;
        let mut borders = vec![at];
        for layer in layers {
            at += layer.len();
            borders.push(at);
        }
        borders
    }

    #[test]
    fn a_layer_begins_with_its_norm() {
        // The first layer's norm is part of the embedding, and the last norm is of no layer.
        let layers = ["nqaogud"; 5];
        let words = [&["E", "qaogud"], &layers[1..], &["nL"]].concat();
        assert_eq!(borders(&words, true), [[1, 7, 14, 21, 28, 35]]);
    }

    #[test]
    fn layers_may_alternate() {
        // Every sixth one attends to all, the others to a window.
        let layers = [&["nqwogudm"; 5][..], &["nqaogudm"]].concat().repeat(3);
        let words = [&["E"], &layers[..], &["L"]].concat();
        assert_eq!(borders(&words, true), [expected(1, &layers)]);
    }

    #[test]
    fn steps_with_little_in_between_are_passes_of_their_own() {
        let step = [&["nqaogud"; 5][..], &["L", "E"]].concat();
        let found = borders(&[&["E"], &step.repeat(4)[..]].concat(), false);
        let begins: Vec<usize> = found.iter().map(|borders| borders[0]).collect();
        assert_eq!(begins, [1, 38, 75, 112]);
        assert!(found.iter().all(|borders| borders.len() == 6), "{found:?}");
    }

    #[test]
    fn layers_of_two_kinds_are_one_pass() {
        let layers = [&["nqaonud"; 3][..], &["nqaontesx"; 9]].concat();
        let words = [&["E"], &layers[..], &["L"]].concat();
        assert_eq!(borders(&words, true), [expected(1, &layers)]);
    }

    #[test]
    fn a_loop_within_a_layer_is_none() {
        let layers = ["nqaonugdsugdsugdsr"; 6];
        let words = [&["E"], &layers[..], &["L"]].concat();
        assert_eq!(borders(&words, true), [expected(1, &layers)]);
    }

    #[test]
    fn steps_that_repeat_are_no_layers() {
        let layers = ["nqaogud"; 4];
        let step = [&["PE"], &layers[..], &["nLS"]].concat();
        let found = borders(&step.repeat(5), false);
        let each: Vec<_> = (0..5).map(|step| expected(2 + step * 33, &layers)).collect();
        assert_eq!(found, each);
    }

    #[test]
    fn too_few_and_too_short_blocks_are_none() {
        assert!(borders(&["E", "nqao", "nqao", "L"], true).is_empty());
        assert!(borders(&["abcabcabcabcabc"], true).is_empty());
        assert!(borders(&[], true).is_empty());
    }

    #[test]
    fn rotations_have_one_smallest() {
        for block in [&[3, 1, 2, 1][..], &[1, 1], &[5], &[2, 1, 2, 1, 1]] {
            let naive = (0..block.len()).map(|by| [&block[by..], &block[..by]].concat()).min();
            assert_eq!(Some(smallest_rotation(block)), naive);
        }
    }
}
