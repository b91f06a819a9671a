//! Maximal repetitions ("runs") of a sequence, by the runs theorem of Bannai et al. (2017): each run has a Lyndon root,
//! under the order of the symbols or under the reversed one, and that root is the longest Lyndon word which starts at
//! its first symbol. So the longest Lyndon words at each position, two a position, are all the candidates there are.
//!
//! How far two suffixes agree is found by hashes of prefixes, in steps that double, so that the whole takes linear time
//! times the logarithm of the longest agreement. What is reported was compared symbol by symbol.

use rustc_hash::FxHashMap;

/// A stretch that repeats with a period at least twice, and can't be made longer on either side. The period is its
/// smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Run {
    /// First position.
    pub(crate) start: usize,
    /// Position after the last.
    pub(crate) end: usize,
    /// Smallest period.
    pub(crate) period: usize,
}

/// Runs whose period lies in the range, in order of start.
pub(crate) fn runs(symbols: &[u32], periods: std::ops::RangeInclusive<usize>) -> Vec<Run> {
    let text = Text::new(symbols);
    let mut found = Vec::new();
    for reversed in [false, true] {
        // Of each period the run found last: the next candidates lie within it.
        let mut last = FxHashMap::<usize, usize>::default();
        for (at, period) in text.lyndon_words(reversed).into_iter().enumerate() {
            if !periods.contains(&period) || last.get(&period).is_some_and(|&end| at + period <= end) {
                continue;
            }
            let run = text.extend(at, period);
            if run.end - run.start >= 2 * period && text.repeats(run) {
                last.insert(period, run.end);
                found.push(run);
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Arithmetic modulo the Mersenne prime 2^61 - 1.
const MODULUS: u64 = (1 << 61) - 1;
const BASE: u64 = 0x1234_5678_9abc_def1 % MODULUS;

fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    // The two halves of 61 bits.
    let sum = (product & u128::from(MODULUS)) as u64 + (product >> 61) as u64;
    if sum >= MODULUS { sum - MODULUS } else { sum }
}

/// Symbols with the hashes of all prefixes.
struct Text<'a> {
    symbols: &'a [u32],
    prefixes: Vec<u64>,
    powers: Vec<u64>,
}

impl<'a> Text<'a> {
    fn new(symbols: &'a [u32]) -> Self {
        let mut prefixes = Vec::with_capacity(symbols.len() + 1);
        let mut powers = Vec::with_capacity(symbols.len() + 1);
        let (mut hash, mut power) = (0, 1);
        for &symbol in symbols {
            prefixes.push(hash);
            powers.push(power);
            // Not zero, which would not change the hash.
            hash = (times(hash, BASE) + u64::from(symbol) + 1) % MODULUS;
            power = times(power, BASE);
        }
        prefixes.push(hash);
        powers.push(power);
        Self {
            symbols,
            prefixes,
            powers,
        }
    }

    fn hash(&self, from: usize, length: usize) -> u64 {
        let head = times(self.prefixes[from], self.powers[length]);
        let whole = self.prefixes[from + length];
        if whole >= head {
            whole - head
        } else {
            whole + MODULUS - head
        }
    }

    /// Length of each position's longest Lyndon word: it ends before the next smaller suffix.
    fn lyndon_words(&self, reversed: bool) -> Vec<usize> {
        let count = self.symbols.len();
        let mut lengths = vec![1; count];
        for at in (0..count).rev() {
            let mut next = at + 1;
            while next < count && self.is_smaller(at, next, reversed) {
                next += lengths[next];
            }
            lengths[at] = next - at;
        }
        lengths
    }

    /// Whether one suffix is smaller than a shorter one. The end is smaller than every symbol in both orders.
    fn is_smaller(&self, longer: usize, shorter: usize, reversed: bool) -> bool {
        let common = self.agree_after(longer, shorter);
        shorter + common < self.symbols.len()
            && (self.symbols[longer + common] < self.symbols[shorter + common]) != reversed
    }

    /// The longest stretch around two positions a period apart that has this period.
    fn extend(&self, at: usize, period: usize) -> Run {
        Run {
            start: at - self.agree_before(at, at + period),
            end: at + period + self.agree_after(at, at + period),
            period,
        }
    }

    fn repeats(&self, run: Run) -> bool {
        self.symbols[run.start..run.end - run.period] == self.symbols[run.start + run.period..run.end]
    }

    /// How many symbols agree from two positions on; `b` is the larger one, and may be the end.
    fn agree_after(&self, a: usize, b: usize) -> usize {
        let limit = self.symbols.len() - b;
        let near = limit.min(NEAR);
        let common = (0..near)
            .take_while(|&step| self.symbols[a + step] == self.symbols[b + step])
            .count();
        if common < near {
            return common;
        }
        gallop(near, limit, |from, length| {
            self.hash(a + from, length) == self.hash(b + from, length)
        })
    }

    /// How many symbols agree before two positions; `a` is the smaller one.
    fn agree_before(&self, a: usize, b: usize) -> usize {
        let near = a.min(NEAR);
        let common = (1..=near)
            .take_while(|&step| self.symbols[a - step] == self.symbols[b - step])
            .count();
        if common < near {
            return common;
        }
        gallop(near, a, |from, length| {
            self.hash(a - from - length, length) == self.hash(b - from - length, length)
        })
    }
}

/// Most comparisons end within a few symbols: hashes would cost more.
const NEAR: usize = 8;

/// The largest length up to `limit` for which all pieces agree, `known` being known to.
fn gallop(known: usize, limit: usize, agree: impl Fn(usize, usize) -> bool) -> usize {
    let mut common = known;
    let mut step = NEAR;
    while common + step <= limit && agree(common, step) {
        common += step;
        step *= 2;
    }
    while step > 1 {
        step /= 2;
        if common + step <= limit && agree(common, step) {
            common += step;
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By definition: of each period, the maximal stretches; their smallest period must be this one.
    fn naive(symbols: &[u32]) -> Vec<Run> {
        let has_period = |run: Run| (run.start + run.period..run.end).all(|i| symbols[i] == symbols[i - run.period]);
        let mut found = Vec::new();
        for period in 1..=symbols.len() / 2 {
            let mut start = 0;
            while start + period < symbols.len() {
                let agree = (start..symbols.len() - period)
                    .take_while(|&i| symbols[i] == symbols[i + period])
                    .count();
                let run = Run {
                    start,
                    end: start + agree + period,
                    period,
                };
                let is_smallest = !(1..period).any(|period| has_period(Run { period, ..run }));
                if agree >= period && is_smallest {
                    found.push(run);
                }
                start += agree + 1;
            }
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn a_repetition_within_a_repetition_is_found_too() {
        let symbols: Vec<u32> = "xabbabbabbabby".bytes().map(u32::from).collect();
        let found = runs(&symbols, 1..=usize::MAX);
        let run = |start, end, period| Run { start, end, period };
        assert!(found.contains(&run(1, 13, 3)), "{found:?}");
        assert!(
            found.contains(&run(2, 4, 1)) && found.contains(&run(11, 13, 1)),
            "{found:?}"
        );
        assert_eq!(found, naive(&symbols));
        assert_eq!(runs(&symbols, 2..=3), [run(1, 13, 3)]);
        assert!(runs(&[], 1..=9).is_empty() && runs(&[4], 1..=9).is_empty());
    }

    #[test]
    fn long_repetitions_are_found_whole() {
        let symbols: Vec<u32> = (0..10_000).map(|i| i % 7).collect();
        assert_eq!(
            runs(&symbols, 2..=100),
            [Run {
                start: 0,
                end: 10_000,
                period: 7
            }]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn runs_equal_the_naive_ones(symbols in prop::collection::vec(0..3u32, 0..70)) {
            prop_assert_eq!(runs(&symbols, 1..=usize::MAX), naive(&symbols));
        }

        #[test]
        fn runs_of_repeated_words_equal_the_naive_ones(
            words in prop::collection::vec((prop::collection::vec(0..4u32, 1..9), 1..9usize), 1..6)
        ) {
            let symbols: Vec<u32> = words.iter().flat_map(|(word, times)| word.repeat(*times)).collect();
            prop_assert_eq!(runs(&symbols, 1..=usize::MAX), naive(&symbols));
        }
    }
}
