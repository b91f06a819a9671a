//! Kernels of one device in the order of launch, looked through a stretch at a time, so that memory grows with the layers
//! found and not with the kernels.

use std::collections::BTreeMap;

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
}

/// From here on, kernels are of this layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) place: Place,
    pub(crate) layer: Option<u16>,
    /// Layers of the pass that it belongs to.
    layers: u16,
}

/// The stream of one device.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    waiting: Vec<Waiting>,
    marks: Vec<Mark>,
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
        let safe = if is_last { count } else { count - count / 4 };
        let mut done = 0;
        for pass in passes(&text, names, false) {
            if pass.end() > safe {
                break;
            }
            done = pass.end();
            self.mark(&pass);
        }
        // What no pass was found in is given up, so that this comes to an end.
        let done = if done == 0 { safe } else { done };
        self.waiting.drain(..done);
    }

    fn mark(&mut self, pass: &Pass) {
        let layers = u16::try_from(pass.layers()).unwrap_or(u16::MAX);
        for (layer, &border) in (0..).zip(&pass.borders) {
            let place = match self.waiting.get(border) {
                Some(kernel) => kernel.place,
                None => self
                    .waiting
                    .last()
                    .map_or((i64::MAX, 0), |last| (last.place.0, last.place.1 + 1)),
            };
            self.marks.push(Mark {
                place,
                layer: (layer < layers).then_some(layer),
                layers,
            });
        }
    }

    /// How many passes have which number of layers.
    pub(crate) fn count(&self, counts: &mut BTreeMap<u16, usize>) {
        let ends = self.marks.iter().filter(|mark| mark.layer.is_none());
        ends.for_each(|mark| *counts.entry(mark.layers).or_default() += 1);
    }

    /// The marks of passes with one of these numbers of layers, in order of launch.
    pub(crate) fn finish(mut self, is_counted: impl Fn(u16) -> bool) -> Vec<Mark> {
        self.marks.retain(|mark| is_counted(mark.layers));
        self.marks.sort_by_key(|mark| mark.place);
        self.marks
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
