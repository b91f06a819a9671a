//! Following a repeating block along a sequence, over kernels that are missing, extra or exchanged.

/// Kernels that must agree again after a place where the sequence departs from the block.
const CONFIRM: usize = 3;
/// Kernels left out of the sequence or of the block at such a place, at most.
const MOST_EDITS: usize = 4;

/// A block of kernels, cut into layers of equal length.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) kernels: Vec<u32>,
    /// Kernels of a layer: the whole block, or a part of it where layers alternate.
    pub(crate) layer: usize,
}

/// What may be crossed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The sequence from here on, to there.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Layers up to which kernels that are not of the block may lie between two of them. Beyond it they are taken for
    /// what lies between two forward passes.
    pub(crate) bridge: usize,
}

/// From where a walk starts: between two kernels of the sequence, and between two of the block.
pub(crate) type Start = (usize, usize);

/// Walks from a border between two layers. Gives the borders it comes by, nearest first.
pub(crate) fn walk(
    text: &[u32],
    block: &Block,
    start: Start,
    forward: bool,
    bounds: Bounds,
    are_alike: &dyn Fn(u32, u32) -> bool,
) -> Vec<usize> {
    let mut walk = Walk::new(text, block, start, forward, bounds);
    walk.go();
    walk.finish(are_alike);
    walk.borders
}

/// Where the repetition begins, in the sequence and in the block, found by walking back from somewhere in it, not further
/// than to `bound`.
pub(crate) fn beginning(text: &[u32], block: &Block, start: Start, bound: usize) -> Start {
    end_of_walk(text, block, start, bound, false)
}

/// Where the repetition ends, in the sequence and in the block.
pub(crate) fn ending(text: &[u32], block: &Block, start: Start) -> Start {
    end_of_walk(text, block, start, 0, true)
}

fn end_of_walk(text: &[u32], block: &Block, start: Start, bound: usize, forward: bool) -> Start {
    let bounds = Bounds {
        start: bound,
        end: text.len(),
        bridge: 0,
    };
    let mut walk = Walk::new(text, block, start, forward, bounds);
    walk.go();
    (walk.at, walk.place)
}

/// A beginning with the variants of the block's kernels before it, up to a kernel with which layers begin.
pub(crate) fn with_variants(
    text: &[u32],
    block: &Block,
    start: Start,
    are_alike: &dyn Fn(u32, u32) -> bool,
    begins_layers: &dyn Fn(u32) -> bool,
) -> Start {
    let bounds = Bounds {
        start: 0,
        end: text.len(),
        bridge: 0,
    };
    let mut walk = Walk::new(text, block, start, false, bounds);
    let mut steps = 0;
    while steps < block.kernels.len() && !begins_layers(block.kernels[walk.place]) && walk.is_variant(are_alike) {
        walk.step(1, 1);
        steps += 1;
    }
    (walk.at, walk.place)
}

struct Walk<'a> {
    text: &'a [u32],
    block: &'a Block,
    forward: bool,
    bounds: Bounds,
    /// Between two kernels of the sequence.
    at: usize,
    /// Between two kernels of the block.
    place: usize,
    /// Kernels that agreed since the last border.
    matched: usize,
    borders: Vec<usize>,
}

impl<'a> Walk<'a> {
    fn new(text: &'a [u32], block: &'a Block, (at, place): Start, forward: bool, bounds: Bounds) -> Self {
        Self {
            text,
            block,
            forward,
            bounds,
            at,
            place,
            matched: 0,
            borders: Vec::new(),
        }
    }

    fn go(&mut self) {
        while let Some((skipped, left_out)) = self.next_step() {
            self.step(skipped, left_out);
        }
    }

    /// Whether the next kernel may stand for that of the block.
    fn is_variant(&self, are_alike: &dyn Fn(u32, u32) -> bool) -> bool {
        let expected = self.expected(0);
        self.kernel(0)
            .is_some_and(|kernel| kernel == expected || are_alike(kernel, expected))
    }

    /// A kernel of the sequence that lies ahead.
    fn kernel(&self, ahead: usize) -> Option<u32> {
        if self.forward {
            let at = self.at + ahead;
            (at < self.bounds.end).then(|| self.text[at])
        } else {
            let at = self.at.checked_sub(ahead + 1)?;
            (at >= self.bounds.start).then(|| self.text[at])
        }
    }

    /// The kernel of the block that should be there.
    fn expected(&self, ahead: usize) -> u32 {
        let length = self.block.kernels.len();
        let ahead = ahead % length;
        let place = if self.forward {
            self.place + ahead
        } else {
            self.place + 2 * length - 1 - ahead
        };
        self.block.kernels[place % length]
    }

    fn agrees(&self, skipped: usize, left_out: usize) -> bool {
        self.kernel(skipped)
            .is_some_and(|kernel| kernel == self.expected(left_out))
    }

    fn is_border(&self) -> bool {
        self.place.is_multiple_of(self.block.layer)
    }

    /// How many kernels of the sequence and of the block to go on by: the fewest after which they agree again.
    fn next_step(&self) -> Option<(usize, usize)> {
        if self.agrees(0, 0) {
            return Some((1, 1));
        }
        let may_bridge = self.borders.len() < self.bounds.bridge;
        let may_skip = |skipped, left_out| may_bridge || !(self.is_border() || self.begins_anew(skipped, left_out));
        let steps = (1..=2 * MOST_EDITS).flat_map(|edits| {
            (0..=edits.min(MOST_EDITS))
                .rev()
                .map(move |skipped| (skipped, edits - skipped))
        });
        // One exchanged kernel is one edit, not two.
        [(1, 1)].into_iter().chain(steps).find(|&(skipped, left_out)| {
            left_out <= MOST_EDITS
                && (skipped == 0 || may_skip(skipped, left_out))
                && (0..CONFIRM).all(|ahead| self.agrees(skipped + ahead, left_out + ahead))
        })
    }

    /// Whether the last of the skipped kernels are those with which a layer begins: what lies before them lies at the border.
    /// So it is where the final norm is that of the layers, and a layer's first kernel.
    fn begins_anew(&self, skipped: usize, left_out: usize) -> bool {
        let layer = self.block.layer;
        let passed = match self.forward {
            true => self.place % layer,
            false => (layer - self.place % layer) % layer,
        };
        let first = passed + left_out;
        let of_block = |back: usize| self.expected(self.block.kernels.len() + left_out - 1 - back);
        first < layer
            && first <= skipped
            && (0..first).all(|back| self.kernel(skipped - 1 - back) == Some(of_block(back)))
    }

    fn step(&mut self, skipped: usize, left_out: usize) {
        if (skipped, left_out) == (1, 1) && self.agrees(0, 0) {
            self.matched += 1;
        }
        let length = self.block.kernels.len();
        for step in 1..=left_out.max(1) {
            if step <= left_out {
                self.place = if self.forward {
                    self.place + 1
                } else {
                    self.place + length - 1
                } % length;
            }
            let skip = match step == left_out.max(1) {
                true => skipped.saturating_sub(step - 1),
                false => usize::from(step <= skipped),
            };
            self.at = if self.forward { self.at + skip } else { self.at - skip };
            if step <= left_out && self.is_border() {
                self.borders.push(self.at);
                self.matched = 0;
            }
        }
    }

    /// The outermost layer may begin or end with variants of the others' kernels.
    fn finish(&mut self, are_alike: &dyn Fn(u32, u32) -> bool) {
        if self.is_border() || 2 * self.matched < self.block.layer {
            return;
        }
        while !self.is_border() && self.is_variant(are_alike) {
            self.step(1, 1);
        }
        if self.borders.last() != Some(&self.at) {
            self.borders.push(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn borders(text: &str, forward: bool, bridge: usize) -> Vec<usize> {
        let text: Vec<u32> = text.bytes().map(u32::from).collect();
        let block = Block {
            kernels: "abcdefgh".bytes().map(u32::from).collect(),
            layer: 8,
        };
        let bounds = Bounds {
            start: 0,
            end: text.len(),
            bridge,
        };
        let from = if forward { 0 } else { text.len() };
        let upper = |a: u32, b: u32| a.max(b) - a.min(b) == 32;
        walk(&text, &block, (from, 0), forward, bounds, &upper)
    }

    #[test]
    fn a_walk_goes_over_missing_extra_and_exchanged_kernels() {
        assert_eq!(borders("abcdefghabcdefgh", true, 0), [8, 16]);
        assert_eq!(borders("abcxdefghabcdefgh", true, 0), [9, 17]);
        assert_eq!(borders("abdefghabcdefgh", true, 0), [7, 15]);
        assert_eq!(borders("abcxefghabcdefghzz", true, 0), [8, 16]);
        assert_eq!(borders("zzabcxefghabcdefgh", false, 0), [10, 2]);
        assert_eq!(
            borders("abcdefgabcdefgh", false, 0),
            [7, 0],
            "the last of a layer is missing"
        );
    }

    #[test]
    fn what_lies_between_two_layers_is_crossed_only_within_a_pass() {
        assert_eq!(borders("abcdefghxabcdefgh", true, 0), [8]);
        assert_eq!(borders("abcdefghxabcdefghxabcdefgh", true, 2), [8, 17]);
    }

    #[test]
    fn the_outermost_layers_may_have_variants() {
        assert_eq!(borders("xAbCdefghabcdefgh", false, 0), [9, 1]);
        assert_eq!(borders("abcdefghabcdefGy", true, 0), [8, 15]);
        assert_eq!(
            borders("abcdefghabcy", true, 0),
            [8],
            "less than half of a layer is none"
        );
    }
}
