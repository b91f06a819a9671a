//! Kernels of one device in the order of launch, looked through a stretch at a time, so that memory grows with the layers
//! found and not with the kernels.

use std::collections::BTreeMap;

use crate::session::structure::Spot;
use crate::session::structure::anchors::{Numbered, numbered};
use crate::session::structure::names::Names;
use crate::session::structure::passes::{Pass, WHOLE, passes};

/// Kernels looked at together: hundreds of steps of a large model.
const STRETCH: usize = 128 * 1024;

/// Where a kernel stands in the order of launch: its launch, and its node in a graph that was launched.
pub(crate) type Place = (i64, u64);

/// Correlation ids without their wrap at 2^32.
#[derive(Debug, Default)]
pub(crate) struct Launches {
    latest: Option<i64>,
}

impl Launches {
    /// The launch's number in its process. Kernels run in nearly the order of their launches.
    pub(crate) fn number(&mut self, correlation_id: u32) -> i64 {
        let latest = self.latest.unwrap_or(i64::from(correlation_id));
        let ahead = correlation_id.wrapping_sub(latest as u32) as i32;
        let number = latest + i64::from(ahead);
        self.latest = Some(latest.max(number));
        number
    }
}

/// A kernel that waits to be looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) place: Place,
    pub(crate) name: u32,
    pub(crate) graph: Option<u32>,
    /// The layer that ranges say.
    pub(crate) said: Option<u16>,
    pub(crate) window: u32,
}

/// From here on, kernels are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) place: Place,
    pub(crate) spot: Option<Spot>,
}

/// A pass that was found.
#[derive(Debug)]
struct Found {
    layers: u16,
    /// One a layer, one for the norm behind the last if there is one, and one behind all.
    marks: Vec<Mark>,
    /// Ranges say that it is one.
    is_said: bool,
    /// The numbers of its layers are those of ranges.
    is_anchored: bool,
    /// A window opened right before it, or closed right behind it: a step was cut there.
    opened: bool,
    closed: bool,
}

impl Found {
    fn is_cut(&self) -> bool {
        self.opened != self.closed
    }
}

/// The stream of one device.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    waiting: Vec<Waiting>,
    /// The window of the kernel before those.
    window: Option<u32>,
    found: Vec<Found>,
}

impl Stream {
    /// Adds a kernel. True when there are enough to look through.
    pub(crate) fn push(&mut self, kernel: Waiting) -> bool {
        self.waiting.push(kernel);
        self.waiting.len() >= STRETCH
    }

    /// Finds the passes among what waits, `is_whole` telling of graphs that are passes themselves. The passes near the end
    /// may go on in what is still to come, unless this is the last call.
    pub(crate) fn look_through(&mut self, names: &Names, is_last: bool, is_whole: impl Fn(u32) -> bool) {
        self.waiting.sort_by_key(|kernel| kernel.place);
        for kernel in &mut self.waiting {
            if kernel.graph.is_some_and(&is_whole) {
                kernel.name = WHOLE;
            }
        }
        self.waiting
            .dedup_by(|next, kernel| kernel.name == WHOLE && next.name == WHOLE && next.place.0 == kernel.place.0);
        let count = self.waiting.len();
        if !is_last && count < STRETCH / 2 {
            return;
        }
        let text: Vec<u32> = self.waiting.iter().map(|kernel| kernel.name).collect();
        let edges: Vec<usize> = (0..count)
            .filter(|&at| self.window_before(at) != Some(self.waiting[at].window))
            .collect();
        let safe = if is_last { count } else { count - count / 4 };
        let mut done = 0;
        let mut passes = passes(&text, names, &edges, false).into_iter().peekable();
        while let Some(pass) = passes.next_if(|pass| pass.end() <= safe) {
            done = pass.end();
            let next = passes.peek().map_or(usize::MAX, Pass::start);
            self.note(&pass, next, names, is_last);
        }
        // What no pass was found in is given up, so that this comes to an end.
        let done = if done == 0 { safe } else { done };
        self.window = self.waiting[..done].last().map(|kernel| kernel.window).or(self.window);
        self.waiting.drain(..done);
    }

    /// The window of the kernel before this one.
    fn window_before(&self, at: usize) -> Option<u32> {
        match at.checked_sub(1) {
            Some(before) => Some(self.waiting[before].window),
            None => self.window,
        }
    }

    /// Keeps a pass; the next one begins at `next`.
    fn note(&mut self, pass: &Pass, next: usize, names: &Names, is_last: bool) {
        let waiting = &self.waiting;
        let Numbered {
            starts,
            end,
            is_said,
            is_anchored,
        } = numbered(pass, |at| waiting[at].said, |at| names.is_norm(waiting[at].name));
        let mark = |(at, spot): (usize, Option<Spot>)| Mark {
            place: match waiting.get(at) {
                Some(kernel) => kernel.place,
                None => waiting
                    .last()
                    .map_or((i64::MAX, 0), |last| (last.place.0, last.place.1 + 1)),
            },
            spot,
        };
        let has_norm = end < next && waiting.get(end).is_some_and(|kernel| names.is_norm(kernel.name));
        let last = match has_norm {
            true => [Some((end, Some(Spot::FinalNorm))), Some((end + 1, None))],
            false => [Some((end, None)), None],
        };
        let ends = starts.iter().skip(1).map(|&(start, _)| start).chain([end]);
        let longest = starts.iter().zip(ends).map(|(&(start, _), end)| end - start).max();
        // Less than a layer may be left of the one that was cut.
        let (before, behind) = (
            pass.start().saturating_sub(longest.unwrap_or(0)),
            (end + longest.unwrap_or(0)).min(waiting.len() - 1),
        );
        let window = |at: usize| Some(waiting[at].window);
        let first = self.window_before(before);
        self.found.push(Found {
            is_said,
            is_anchored,
            opened: first != window(pass.start()),
            closed: window(end - 1) != window(behind) || (is_last && behind == waiting.len() - 1),
            layers: u16::try_from(starts.len()).unwrap_or(u16::MAX),
            marks: (starts.into_iter().map(|(at, layer)| (at, layer.map(Spot::Layer))))
                .chain(last.into_iter().flatten())
                .map(mark)
                .collect(),
        });
    }

    /// How many passes have which number of layers.
    pub(crate) fn count(&self, with_cut: bool, counts: &mut BTreeMap<u16, usize>) {
        let passes = self.found.iter().filter(|pass| with_cut || !pass.is_cut());
        passes.for_each(|pass| *counts.entry(pass.layers).or_default() += 1);
    }

    /// The marks of passes that ranges name or that have one of these numbers of layers, in order of launch. Of a step that
    /// was cut by a window, they have the number that the layers of whole ones have, if all these have as many.
    pub(crate) fn finish(self, depths: &[u16]) -> Vec<Mark> {
        let depth = <[u16; 1]>::try_from(depths).map(|[depth]| depth);
        let mut marks = Vec::new();
        for mut pass in self.found {
            let missing = depth.ok().and_then(|depth| depth.checked_sub(pass.layers)).unwrap_or(0);
            let is_cut = missing > 0 && pass.is_cut();
            if !pass.is_said && !depths.contains(&pass.layers) && !is_cut {
                continue;
            }
            if !pass.is_anchored && is_cut && pass.opened {
                for mark in &mut pass.marks {
                    if let Some(Spot::Layer(layer)) = &mut mark.spot {
                        *layer += missing;
                    }
                }
            }
            marks.append(&mut pass.marks);
        }
        marks.sort_by_key(|mark| mark.place);
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_where_ids_wrap() {
        let mut launches = Launches::default();
        let numbers: Vec<i64> = [u32::MAX - 1, 0, u32::MAX, 5].map(|id| launches.number(id)).into();
        let first = i64::from(u32::MAX - 1);
        assert_eq!(numbers, [first, first + 2, first + 1, first + 7]);
    }
}
