//! Steps: one pass through the layers with what is launched around it. Between two passes the GPU waits longest where one
//! step ends and the next begins, so the border lies there; but behind what ranges call a part after the layers, as
//! sampling, and not behind what they call one before them, as the embedding.

use crate::session::is_before_layers;

/// Kernels without a pass that are kept at most: a program without layers has no steps.
const MOST_WAITING: usize = 1 << 16;

/// Layer of a kernel, as its column says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Layer {
    /// The column is null.
    None,
    /// A number.
    Number(u32),
    /// Another text, by our number of it. It lies before the layers,
    Before(u32),
    /// or after them.
    After(u32),
}

impl Layer {
    /// By the column's text, and our number of it.
    pub(crate) fn named(text: &str, number: u32) -> Self {
        match text.parse() {
            Ok(layer) => Self::Number(layer),
            Err(_) if is_before_layers(text) => Self::Before(number),
            Err(_) => Self::After(number),
        }
    }
}

/// No step of a model pauses as long as a window is opened or closed in it.
const WINDOWS_APART_NS: i64 = 10_000_000;

/// What a step keeps of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    pub(crate) start_ns: i64,
    pub(crate) end_ns: i64,
    pub(crate) name: u32,
    pub(crate) layer: Layer,
    pub(crate) graph: Option<u32>,
    pub(crate) grid_x: i32,
    /// The path that says of which step it is, by our number.
    pub(crate) path: Option<u32>,
    pub(crate) window: u32,
}

/// Cuts the kernels of one device, in order of start, into steps.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    waiting: Vec<Item>,
    /// First and last kernel with a numbered layer among those, and the highest number.
    pass: Option<(usize, usize, u32)>,
}

impl Splitter {
    /// Adds a kernel. Gives the step that ended before it, or kernels that are of no step.
    pub(crate) fn push(&mut self, item: Item) -> Option<Cut> {
        let mut cut = self.is_elsewhere(&item).then(|| self.take_all()).flatten();
        self.waiting.push(item);
        if let Layer::Number(layer) = item.layer {
            if cut.is_none()
                && let Some((_, last, highest)) = self.pass
                // Kernels of two neighbours may start in either order.
                && layer + 1 < highest
            {
                cut = Some(Cut::Step(self.split_off(last)));
            }
            let at = self.waiting.len() - 1;
            let (first, _, highest) = self.pass.unwrap_or((at, at, layer));
            self.pass = Some((first, at, highest.max(layer)));
        }
        if cut.is_none() && self.waiting.len() > MOST_WAITING {
            cut = Some(match self.pass.take() {
                Some((_, last, _)) => Cut::Step(self.split_off(last)),
                None => Cut::Other(std::mem::take(&mut self.waiting)),
            });
        }
        cut
    }

    /// What is left at the end.
    pub(crate) fn finish(mut self) -> Option<Cut> {
        self.take_all()
    }

    fn take_all(&mut self) -> Option<Cut> {
        let waiting = std::mem::take(&mut self.waiting);
        match self.pass.take() {
            Some(_) => Some(Cut::Step(waiting)),
            None => (!waiting.is_empty()).then_some(Cut::Other(waiting)),
        }
    }

    /// In another window than the kernels that wait, and not one within theirs: what ran between the two was not recorded.
    fn is_elsewhere(&self, item: &Item) -> bool {
        let is_other = self.waiting.last().is_some_and(|last| last.window != item.window);
        let latest = || {
            self.waiting
                .iter()
                .map(|item| item.end_ns)
                .max()
                .unwrap_or(item.start_ns)
        };
        is_other && item.start_ns.saturating_sub(latest()) > WINDOWS_APART_NS
    }

    /// Everything up to the longest wait behind a kernel.
    fn split_off(&mut self, last: usize) -> Vec<Item> {
        self.pass = None;
        let is_after = |item: &Item| matches!(item.layer, Layer::After(_));
        let is_before = |item: &Item| matches!(item.layer, Layer::Before(_));
        let behind = self.waiting[last + 1..].iter().rposition(is_after);
        let last = behind.map_or(last, |at| last + 1 + at);
        let before = self.waiting[last + 1..].iter().position(is_before);
        let end = before.map_or(self.waiting.len(), |at| last + 2 + at);
        let mut latest = self.waiting[..=last].iter().map(|item| item.end_ns).max().unwrap_or(0);
        let (mut longest, mut border) = (i64::MIN, self.waiting.len());
        for (at, item) in self.waiting[..end].iter().enumerate().skip(last + 1) {
            let gap = item.start_ns.saturating_sub(latest);
            if gap > longest {
                (longest, border) = (gap, at);
            }
            latest = latest.max(item.end_ns);
        }
        let rest = self.waiting.split_off(border);
        std::mem::replace(&mut self.waiting, rest)
    }
}

/// What a splitter gives.
#[derive(Debug)]
pub(crate) enum Cut {
    Step(Vec<Item>),
    /// Kernels before any layer.
    Other(Vec<Item>),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps as the starts of their kernels. Each kernel is 2 long.
    fn steps(kernels: &[(i64, Option<u32>)]) -> Vec<Vec<i64>> {
        let layer = |layer: Option<u32>| layer.map_or(Layer::None, Layer::Number);
        steps_of(kernels.iter().map(|&(start_ns, number)| (start_ns, layer(number))))
    }

    fn steps_of(kernels: impl IntoIterator<Item = (i64, Layer)>) -> Vec<Vec<i64>> {
        let mut splitter = Splitter::default();
        let mut cuts = Vec::new();
        for (start_ns, layer) in kernels {
            cuts.extend(splitter.push(Item {
                start_ns,
                end_ns: start_ns + 2,
                name: 0,
                layer,
                graph: None,
                grid_x: 1,
                path: None,
                window: 1,
            }));
        }
        cuts.extend(splitter.finish());
        let starts = |cut: &Cut| match cut {
            Cut::Step(items) => items.iter().map(|item| item.start_ns).collect(),
            Cut::Other(_) => Vec::new(),
        };
        cuts.iter().map(starts).collect()
    }

    #[test]
    fn a_step_ends_at_the_longest_wait_between_two_passes() {
        let pass = |start: i64| {
            [
                (start, Some(0)),
                (start + 3, Some(2)),
                (start + 6, Some(1)),
                (start + 9, Some(3)),
            ]
        };
        let kernels = [
            &[(0, None)][..],
            &pass(3),
            &[(15, None), (30, None)],
            &pass(33),
            &[(45, None)],
        ]
        .concat();
        assert_eq!(
            steps(&kernels),
            [vec![0, 3, 6, 9, 12, 15], vec![30, 33, 36, 39, 42, 45]]
        );
        let no_wait = [&pass(0)[..], &pass(12)].concat();
        assert_eq!(steps(&no_wait), [vec![0, 3, 6, 9], vec![12, 15, 18, 21]]);
    }

    #[test]
    fn a_step_may_begin_with_its_first_layer() {
        let pass = |start: i64| [0, 1, 2].map(|layer| (start + 3 * i64::from(layer), Some(layer)));
        // The longest wait is the one before layer 0; before 49 there is a shorter one.
        let kernels = [
            &pass(0)[..],
            &[(9, None), (14, None)],
            &pass(40),
            &[(49, None)],
            &pass(60),
        ]
        .concat();
        assert_eq!(
            steps(&kernels),
            [vec![0, 3, 6, 9, 14], vec![40, 43, 46, 49], vec![60, 63, 66]]
        );
    }

    #[test]
    fn ranges_say_on_which_side_of_the_border_parts_lie() {
        let pass = |start: i64| [0, 1, 2].map(|layer| (start + 3 * i64::from(layer), Layer::Number(layer)));
        let between = [
            (60, Layer::After(7)),
            (63, Layer::None),
            (66, Layer::None),
            (69, Layer::Before(8)),
            (90, Layer::None),
        ];
        let kernels = [&pass(0)[..], &between, &pass(93)].concat();
        // Neither the wait before 60 nor the one before 90.
        assert_eq!(steps_of(kernels), [vec![0, 3, 6, 60], vec![63, 66, 69, 90, 93, 96, 99]]);
    }

    #[test]
    fn without_layers_there_are_no_steps() {
        assert_eq!(steps(&[(0, None), (5, None)]), [Vec::<i64>::new()]);
        assert!(steps(&[]).is_empty());
    }
}
