//! The lanes of the timeline, as spans that the page can hold: each kernel of a session up to [`MOST_SPANS`], and of a
//! larger one neighbours merged until they fit. The page merges further for what it shows at once (page.js).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::analysis::RunMap;

/// A million kernels with their layers and ranges: some MB in the file, and a second of a page's time.
const MOST_SPANS: usize = 1_500_000;
/// The first resolution, ns, at which neighbours are merged: shorter than any kernel and the wait before it.
const FINEST_NS: i64 = 2_000;
/// Names that the page holds; a program may name each range anew.
const MOST_NAMES: usize = 20_000;

/// What a lane shows; lanes stand in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LaneKind {
    Range,
    Step,
    Layer,
    Stream,
    Copy,
}

/// Process, kind, and numbers that tell lanes of that kind apart: thread and depth, device and stream.
pub(crate) type LaneKey = (u32, LaneKind, u32, u32);

/// One or more pieces of work, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start_ns: i64,
    pub(crate) end_ns: i64,
    /// The name with the longest piece.
    pub(crate) name: u32,
    pub(crate) count: u32,
    /// Sum of the pieces.
    pub(crate) busy_ns: i64,
    /// The longest piece.
    longest_ns: i64,
}

impl Span {
    fn one(start_ns: i64, end_ns: i64, name: u32) -> Self {
        let end_ns = end_ns.max(start_ns);
        let busy_ns = end_ns.saturating_sub(start_ns);
        Self {
            start_ns,
            end_ns,
            name,
            count: 1,
            busy_ns,
            longest_ns: busy_ns,
        }
    }

    /// Takes in the next span of its lane, if both are no longer than the resolution.
    fn merge(&mut self, next: &Self, resolution_ns: i64) -> bool {
        let end_ns = self.end_ns.max(next.end_ns);
        if end_ns.saturating_sub(self.start_ns) > resolution_ns {
            return false;
        }
        self.end_ns = end_ns;
        self.count = self.count.saturating_add(next.count);
        self.busy_ns = self.busy_ns.saturating_add(next.busy_ns);
        if next.longest_ns > self.longest_ns {
            (self.longest_ns, self.name) = (next.longest_ns, next.name);
        }
        true
    }
}

/// Collects spans lane by lane, in order of start within each.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: RunMap<LaneKey, Vec<Span>>,
    names: BTreeMap<String, u32>,
    most: usize,
    held: usize,
    resolution_ns: i64,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            lanes: RunMap::default(),
            names: BTreeMap::new(),
            most: MOST_SPANS,
            held: 0,
            resolution_ns: 0,
        }
    }
}

impl Lanes {
    /// Number of a name.
    pub(crate) fn name(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.names.get(text) {
            return number;
        }
        if self.names.len() >= MOST_NAMES {
            return self.names.get("…").copied().unwrap_or(0);
        }
        let text = if self.names.len() + 1 == MOST_NAMES {
            "…"
        } else {
            text
        };
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.insert(text.to_owned(), number);
        number
    }

    /// Adds a piece of work.
    pub(crate) fn push(&mut self, lane: LaneKey, start_ns: i64, end_ns: i64, name: u32) {
        let spans = self.lanes.of(lane);
        let span = Span::one(start_ns, end_ns, name);
        if self.resolution_ns > 0
            && spans
                .last_mut()
                .is_some_and(|last| last.merge(&span, self.resolution_ns))
        {
            return;
        }
        spans.push(span);
        self.held += 1;
        if self.held > self.most {
            self.coarsen();
        }
    }

    /// Until a half fits: the next time is far off then.
    fn coarsen(&mut self) {
        while self.held > self.most / 2 && self.resolution_ns < i64::MAX / 2 {
            self.resolution_ns = (self.resolution_ns * 2).max(FINEST_NS);
            let resolution_ns = self.resolution_ns;
            self.lanes.each_mut(|_, spans| {
                let mut merged: Vec<Span> = Vec::with_capacity(spans.len() / 2);
                for span in spans.iter() {
                    if !merged.last_mut().is_some_and(|last| last.merge(span, resolution_ns)) {
                        merged.push(*span);
                    }
                }
                *spans = merged;
            });
            self.held = self.lanes.values().map(Vec::len).sum();
        }
    }

    /// Neighbours no longer than this together are one span; 0 where each piece of work is there.
    pub(crate) fn resolution_ns(&self) -> i64 {
        self.resolution_ns
    }

    /// Names in order of their numbers.
    pub(crate) fn name_texts(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_by_key(|&(_, number)| number);
        names.into_iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Lanes in order.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (&LaneKey, &[Span])> {
        self.lanes.iter().map(|(key, spans)| (key, spans.as_slice()))
    }

    /// First start and last end of the GPU's work; of ranges where there is none. A range may have begun long before.
    pub(crate) fn bounds(&self) -> Option<(i64, i64)> {
        let has_work = self.lanes.iter().any(|(key, _)| key.1 != LaneKind::Range);
        let counts = |key: &LaneKey| !has_work || key.1 != LaneKind::Range;
        let spans = || {
            self.lanes
                .iter()
                .filter(|(key, _)| counts(key))
                .flat_map(|(_, spans)| spans)
        };
        Some((
            spans().map(|span| span.start_ns).min()?,
            spans().map(|span| span.end_ns).max()?,
        ))
    }
}

/// The spans as the page reads them: five LEB128 numbers each. The start counts from the end before (in zigzag, for
/// kernels of a stream may overlap), then length, name, pieces less one, and idle time within.
pub(crate) fn encode(spans: &[Span], first_ns: i64, bytes: &mut Vec<u8>) {
    let mut end_ns = first_ns;
    for span in spans {
        let from_end = span.start_ns.wrapping_sub(end_ns);
        let length = span.end_ns.wrapping_sub(span.start_ns);
        leb128(bytes, ((from_end << 1) ^ (from_end >> 63)).cast_unsigned());
        leb128(bytes, length.cast_unsigned());
        leb128(bytes, span.name.into());
        leb128(bytes, span.count.saturating_sub(1).into());
        leb128(bytes, length.saturating_sub(span.busy_ns).max(0).cast_unsigned());
        end_ns = span.end_ns;
    }
}

fn leb128(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LANE: LaneKey = (1, LaneKind::Stream, 0, 7);

    #[test]
    fn numbers_are_leb128() {
        let mut bytes = Vec::new();
        for value in [0, 127, 128, 300] {
            leb128(&mut bytes, value);
        }
        assert_eq!(bytes, [0, 127, 0x80, 1, 0xac, 2]);
        let mut bytes = Vec::new();
        encode(&[Span::one(10, 15, 3), Span::one(13, 14, 0)], 0, &mut bytes);
        assert_eq!(bytes, [20, 5, 3, 0, 0, 3, 1, 0, 0, 0]);
    }

    #[test]
    fn names_end_somewhere() {
        let mut lanes = Lanes::default();
        for number in 0..MOST_NAMES + 5 {
            lanes.name(&format!("range {number}"));
        }
        assert_eq!(lanes.name_texts().len(), MOST_NAMES);
        assert_eq!(lanes.name_texts()[MOST_NAMES - 1], "…");
        assert_eq!(lanes.name("another") as usize, MOST_NAMES - 1);
    }

    proptest! {
        #[test]
        fn merging_keeps_count_time_and_order(pieces in prop::collection::vec((0..9000i64, 0..5000i64), 1..400)) {
            let mut lanes = Lanes { most: 20, ..Lanes::default() };
            let mut at = 0;
            let (mut busy, mut last) = (0, 0);
            for &(wait, length) in &pieces {
                at += wait;
                lanes.push(LANE, at, at + length, 0);
                busy += length;
                at += length;
                last = at;
            }
            let spans = lanes.lanes().next().unwrap().1;
            prop_assert!(spans.len() <= 20);
            prop_assert_eq!(spans.iter().map(|span| span.count as usize).sum::<usize>(), pieces.len());
            prop_assert_eq!(spans.iter().map(|span| span.busy_ns).sum::<i64>(), busy);
            prop_assert_eq!(lanes.bounds().unwrap().1, last);
            prop_assert!(spans.windows(2).all(|pair| pair[0].end_ns <= pair[1].start_ns));
        }
    }
}
