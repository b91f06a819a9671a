//! Bringing a pass in line with ranges that name the layers of some of its kernels, its *anchors*: in compiled code perhaps
//! the attention alone. Two kernels with the same anchor are of one layer, and there is a border between two with different
//! ones; what structure says of borders holds where this leaves a choice.

use crate::session::structure::passes::Pass;

/// The layers of a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbered {
    /// Where each layer begins, and its number; none before layer 0.
    pub(crate) starts: Vec<(usize, Option<u16>)>,
    /// Where the last one ends.
    pub(crate) end: usize,
    /// Ranges name two layers of it: it is no other loop.
    pub(crate) is_said: bool,
    /// Ranges name one at least: the numbers are theirs.
    pub(crate) is_anchored: bool,
}

/// Kernels between the first and the last that ranges say to be of one layer.
struct Anchor {
    first: usize,
    last: usize,
    layer: u16,
}

/// The layers of a pass, `said` giving the layer that ranges say of a kernel.
pub(crate) fn numbered(pass: &Pass, said: impl Fn(usize) -> Option<u16>, is_norm: impl Fn(usize) -> bool) -> Numbered {
    let anchors = anchors(pass, said);
    let borders = borders(pass, &anchors, is_norm);
    let mut starts: Vec<(usize, Option<u16>)> = borders.iter().map(|&border| (border, None)).collect();
    for anchor in &anchors {
        let block = borders.partition_point(|&border| border <= anchor.first) - 1;
        starts[block].1 = Some(anchor.layer);
    }
    // The blocks before the first anchor count down to it, all others go on from the one before.
    let known = starts.iter().position(|(_, layer)| layer.is_some());
    let first = match known {
        Some(block) => i64::from(starts[block].1.unwrap_or(0)) - block as i64,
        None => 0,
    };
    let mut next = first;
    for (_, layer) in &mut starts {
        let number = layer.map_or(next, i64::from);
        *layer = u16::try_from(number).ok();
        next = number + 1;
    }
    Numbered {
        starts,
        end: pass.end(),
        is_said: anchors.len() >= 2,
        is_anchored: !anchors.is_empty(),
    }
}

fn anchors(pass: &Pass, said: impl Fn(usize) -> Option<u16>) -> Vec<Anchor> {
    let mut anchors = Vec::<Anchor>::new();
    for at in pass.start()..pass.end() {
        let Some(layer) = said(at) else { continue };
        match anchors.last_mut().filter(|last| last.layer == layer) {
            Some(last) => last.last = at,
            None => anchors.push(Anchor {
                first: at,
                last: at,
                layer,
            }),
        }
    }
    anchors
}

/// Where layers begin. Of each two anchors one border at least lies between them, none within one.
fn borders(pass: &Pass, anchors: &[Anchor], is_norm: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut borders = Vec::with_capacity(pass.layers());
    let mut of_pass = pass.borders[..pass.layers()].iter().copied().peekable();
    let mut last: Option<&Anchor> = None;
    for anchor in anchors {
        let from = borders.len();
        while let Some(border) = of_pass.next_if(|&border| border <= anchor.first) {
            borders.push(border);
        }
        if let Some(last) = last {
            let layers = usize::from(anchor.layer.saturating_sub(last.layer).max(1));
            let found = borders.len() - from;
            if found > layers {
                // Blocks smaller than layers: these begin where the last of them do.
                borders.drain(from..from + found - layers);
            } else if found == 0 {
                let between = last.last + 1..=anchor.first;
                borders.push(between.rev().find(|&at| is_norm(at)).unwrap_or(anchor.first));
            }
        }
        while of_pass.next_if(|&border| border <= anchor.last).is_some() {}
        last = Some(anchor);
    }
    borders.extend(of_pass);
    borders
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernels are letters: `n` is a norm, and below them stand the layers that ranges say.
    fn numbers(borders: &[usize], kernels: &str, said: &str) -> (String, bool) {
        let pass = Pass {
            borders: borders.to_vec(),
        };
        let (kernels, said) = (kernels.as_bytes(), said.as_bytes());
        let numbered = numbered(
            &pass,
            |at| said[at].is_ascii_digit().then(|| u16::from(said[at] - b'0')),
            |at| kernels[at] == b'n',
        );
        let ends = numbered
            .starts
            .iter()
            .skip(1)
            .map(|&(start, _)| start)
            .chain([numbered.end]);
        let mut text = " ".repeat(pass.start());
        for (&(start, layer), end) in numbered.starts.iter().zip(ends) {
            let letter = layer.map_or("-".to_owned(), |layer| layer.to_string());
            text += &letter.repeat(end - start);
        }
        (text, numbered.is_said)
    }

    #[test]
    fn without_anchors_layers_count_from_zero() {
        assert_eq!(numbers(&[1, 4, 7], "Enabnab", "       "), (" 000111".to_owned(), false));
    }

    #[test]
    fn anchors_number_the_blocks_around_them() {
        let (borders, kernels) = ([0, 3, 6, 9], "nabnabnab");
        assert_eq!(numbers(&borders, kernels, "    5  6 "), ("444555666".to_owned(), true));
        assert_eq!(numbers(&borders, kernels, "    5    "), ("444555666".to_owned(), false));
        assert_eq!(numbers(&borders, kernels, " 2     4 "), ("222333444".to_owned(), true));
        assert_eq!(numbers(&borders, kernels, "    0    "), ("---000111".to_owned(), false));
        assert_eq!(
            numbers(&borders, kernels, " 0  4  5 "),
            ("000444555".to_owned(), true),
            "a layer was lost"
        );
    }

    #[test]
    fn borders_lie_between_anchors() {
        // The blocks are cut in the wrong place: the norm is where layers begin.
        assert_eq!(numbers(&[0, 4, 7], "nabnabn", " 0 111 "), ("0001111".to_owned(), true));
        // Both borders fit: structure is believed.
        assert_eq!(numbers(&[0, 2, 5], "nabna", " 0  1"), ("00111".to_owned(), true));
        // One block has two layers, or a layer two blocks.
        assert_eq!(
            numbers(&[0, 6, 12], "nabnacnabnac", " 0  1  2  3 "),
            ("000111222333".to_owned(), true)
        );
        assert_eq!(
            numbers(&[0, 3, 6, 9, 12], "nabxabnabxab", "00 000111111"),
            ("000000111111".to_owned(), true)
        );
        // No norm tells.
        assert_eq!(numbers(&[0, 6], "gabgab", " 0  1 "), ("000011".to_owned(), true));
    }
}
