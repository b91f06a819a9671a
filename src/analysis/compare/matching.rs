//! Which kernel of one session is which of another: by name, by its place in the step, by its name but for numbers.

use std::collections::BTreeMap;

use serde::Serialize;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::schema::names::short_name;

/// Names of a session that are tried with each other, where they are the same but for numbers.
const MOST_ALIKE: usize = 100;

/// How a row was matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// The same name; of kernels, also the same grid and block in most launches.
    Exact,
    /// The same function, with another grid or block, other template arguments, or other numbers in its name.
    Reshaped,
    /// Another function in the same place of the step.
    Renamed,
    /// The second session has none.
    OnlyA,
    /// The first has none.
    OnlyB,
}

impl Match {
    /// In a table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Reshaped => "reshaped",
            Self::Renamed => "renamed",
            Self::OnlyA => "only in A",
            Self::OnlyB => "only in B",
        }
    }
}

/// Rows of both, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) a: Option<usize>,
    pub(crate) b: Option<usize>,
    pub(crate) how: Match,
}

/// Names of both sessions, with kernels in the order of a step of each.
#[derive(Debug)]
pub(crate) struct Matcher<'a> {
    names: [Vec<&'a str>; 2],
    /// The partner of each.
    partners: [Vec<Option<usize>>; 2],
    pairs: Vec<Pair>,
}

impl<'a> Matcher<'a> {
    /// Matches equal names.
    pub(crate) fn new(a: Vec<&'a str>, b: Vec<&'a str>) -> Self {
        let mut matcher = Self {
            partners: [vec![None; a.len()], vec![None; b.len()]],
            pairs: Vec::new(),
            names: [a, b],
        };
        let known: BTreeMap<&str, usize> = matcher.names[1].iter().copied().zip(0..).collect();
        for at in 0..matcher.names[0].len() {
            if let Some(&partner) = known.get(matcher.names[0][at]) {
                matcher.join(at, partner, Match::Exact);
            }
        }
        matcher
    }

    fn join(&mut self, a: usize, b: usize, how: Match) {
        if self.partners[0][a].is_none() && self.partners[1][b].is_none() {
            (self.partners[0][a], self.partners[1][b]) = (Some(b), Some(a));
            let (a, b) = (Some(a), Some(b));
            self.pairs.push(Pair { a, b, how });
        }
    }

    /// Matches what is in the same place: one sequence of kernels is turned into the other, and where a stretch is replaced
    /// by one as long, each kernel has the other's place. It must be the place of half its launches at least.
    pub(crate) fn by_place(&mut self, sequences: &[[&[u32]; 2]]) {
        let mut votes = BTreeMap::<(usize, usize), usize>::new();
        let mut seen = [0, 1].map(|side: usize| vec![0; self.names[side].len()]);
        for [a, b] in sequences {
            let count = |seen: &mut Vec<usize>, rows: &[u32]| rows.iter().for_each(|&row| seen[row as usize] += 1);
            count(&mut seen[0], a);
            count(&mut seen[1], b);
            // What is matched has one number in both.
            let beyond = self.names[0].len();
            let a_numbers: Vec<usize> = a.iter().map(|&row| row as usize).collect();
            let b_numbers: Vec<usize> = b
                .iter()
                .map(|&row| self.partners[1][row as usize].unwrap_or(beyond + row as usize))
                .collect();
            for operation in capture_diff_slices(Algorithm::Patience, &a_numbers, &b_numbers) {
                if let DiffOp::Replace {
                    old_index,
                    old_len,
                    new_index,
                    new_len,
                } = operation
                    && old_len == new_len
                {
                    for offset in 0..old_len {
                        let pair = (a[old_index + offset] as usize, b[new_index + offset] as usize);
                        *votes.entry(pair).or_default() += 1;
                    }
                }
            }
        }
        let mut votes: Vec<_> = votes
            .into_iter()
            .filter(|&((a, b), count)| 2 * count >= seen[0][a].max(seen[1][b]))
            .map(|((a, b), count)| (!self.is_same_function(a, b), std::cmp::Reverse(count), a, b))
            .collect();
        votes.sort_unstable();
        for (is_other, _, a, b) in votes {
            self.join(a, b, if is_other { Match::Renamed } else { Match::Reshaped });
        }
    }

    /// Matches names that are the same but for numbers, those with most in common first; then functions that each session has once.
    pub(crate) fn by_function(&mut self) {
        let left = |side: usize| {
            let all = self.partners[side].iter().enumerate();
            all.filter(|(_, partner)| partner.is_none()).map(|(at, _)| at)
        };
        let mut families = BTreeMap::<String, [Vec<usize>; 2]>::new();
        for side in [0, 1] {
            for at in left(side) {
                let family = without_numbers(self.names[side][at]);
                families.entry(family).or_default()[side].push(at);
            }
        }
        let mut candidates = Vec::new();
        for [a, b] in families.into_values() {
            for &a in a.iter().take(MOST_ALIKE) {
                for &b in b.iter().take(MOST_ALIKE) {
                    candidates.push((different_numbers(self.names[0][a], self.names[1][b]), a, b));
                }
            }
        }
        let mut functions = BTreeMap::<&str, [Vec<usize>; 2]>::new();
        for side in [0, 1] {
            for (at, name) in self.names[side].iter().enumerate() {
                functions.entry(short_name(name)).or_default()[side].push(at);
            }
        }
        candidates.sort_unstable();
        for (_, a, b) in candidates {
            self.join(a, b, Match::Reshaped);
        }
        for [a, b] in functions.into_values() {
            if let ([a], [b]) = (&a[..], &b[..]) {
                self.join(*a, *b, Match::Reshaped);
            }
        }
    }

    /// All pairs, and what has no partner.
    pub(crate) fn finish(mut self) -> Vec<Pair> {
        for (side, how) in [(0, Match::OnlyA), (1, Match::OnlyB)] {
            for (at, partner) in self.partners[side].iter().enumerate() {
                if partner.is_none() {
                    let (a, b) = if side == 0 { (Some(at), None) } else { (None, Some(at)) };
                    self.pairs.push(Pair { a, b, how });
                }
            }
        }
        self.pairs
    }

    fn is_same_function(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.names[0][a], self.names[1][b]);
        short_name(a) == short_name(b) || without_numbers(a) == without_numbers(b)
    }
}

/// `nvjet_128x8` and `nvjet_64x16` are `nvjet_#x#`.
fn without_numbers(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        match character.is_ascii_digit() {
            true if text.ends_with('#') => {}
            true => text.push('#'),
            false => text.push(character),
        }
    }
    text
}

/// How many numbers differ between names that are the same but for them.
fn different_numbers(a: &str, b: &str) -> usize {
    let numbers = |name: &'_ str| -> Vec<String> {
        let parts = name.split(|c: char| !c.is_ascii_digit());
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    numbers(a).iter().zip(numbers(b)).filter(|(a, b)| *a != b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of both sides and steps as numbers of them; what is matched, and how.
    fn matched<'a>(a: &[&'a str], b: &[&'a str], steps: [&[u32]; 2]) -> Vec<(Option<&'a str>, Option<&'a str>, Match)> {
        let mut matcher = Matcher::new(a.to_vec(), b.to_vec());
        matcher.by_place(&[steps]);
        matcher.by_function();
        let named = |pair: Pair| (pair.a.map(|at| a[at]), pair.b.map(|at| b[at]), pair.how);
        matcher.finish().into_iter().map(named).collect()
    }

    #[test]
    fn by_name_place_and_function() {
        let a = [
            "norm",
            "nvjet_64x8",
            "silu<4>",
            "rope",
            "void add<float>(int)",
            "old",
            "gone",
        ];
        let b = ["norm", "nvjet_128x16", "silu<8>", "rope", "void add<half>(int)", "new"];
        // `old` becomes `new` in its place; the rest is told by name.
        let steps: [&[u32]; 2] = [&[0, 5, 3, 0, 5, 3], &[0, 5, 3, 0, 5, 3]];
        let found = matched(&a, &b, steps);
        let expected = [
            (Some("norm"), Some("norm"), Match::Exact),
            (Some("rope"), Some("rope"), Match::Exact),
            (Some("old"), Some("new"), Match::Renamed),
            (Some("silu<4>"), Some("silu<8>"), Match::Reshaped),
            (Some("nvjet_64x8"), Some("nvjet_128x16"), Match::Reshaped),
            (
                Some("void add<float>(int)"),
                Some("void add<half>(int)"),
                Match::Reshaped,
            ),
            (Some("gone"), None, Match::OnlyA),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_fused_kernel_is_no_partner() {
        let found = matched(&["norm", "mul", "add"], &["norm", "fused"], [&[0, 1, 2, 0], &[0, 1, 0]]);
        let hows: Vec<_> = found.iter().map(|(_, _, how)| *how).collect();
        assert_eq!(hows, [Match::Exact, Match::OnlyA, Match::OnlyA, Match::OnlyB]);
    }

    #[test]
    fn the_same_function_in_the_same_place_wins_over_a_closer_name() {
        let a = ["norm", "gemm_64x8", "rope", "gemm_64x9"];
        let b = ["norm", "gemm_64x10", "rope", "gemm_64x80"];
        let steps: [&[u32]; 2] = [&[0, 1, 2, 3], &[0, 3, 2, 1]];
        let found = matched(&a, &b, steps);
        assert!(found.contains(&(Some("gemm_64x8"), Some("gemm_64x80"), Match::Reshaped)));
        assert!(found.contains(&(Some("gemm_64x9"), Some("gemm_64x10"), Match::Reshaped)));
    }

    #[test]
    fn several_functions_of_one_name_are_not_guessed() {
        let a = ["elementwise<Fill>", "elementwise<Add>"];
        let b = ["elementwise<Copy>", "elementwise<Add>"];
        let hows: Vec<_> = matched(&a, &b, [&[], &[]]).iter().map(|(_, _, how)| *how).collect();
        assert_eq!(hows, [Match::Exact, Match::OnlyA, Match::OnlyB]);
    }
}
