//! Prefill and decode: said by ranges, else told from how steps follow each other.

use serde::Serialize;

/// Phase of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The prompt is worked through.
    Prefill,
    /// A token a request.
    Decode,
    /// Nobody says.
    Other,
}

impl Phase {
    /// In a table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Other => "other",
        }
    }
}

/// What the ranges around a step say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Said {
    pub(crate) phase: Phase,
    pub(crate) batch: Option<u64>,
}

impl Said {
    /// From a path of ranges: a range that begins with `prefill` or `decode`, or vLLM's own
    /// `execute_context_2(64)_generation_3(3)`: requests in prefill and in decode, with their tokens.
    pub(crate) fn by(path: &str) -> Option<Self> {
        path.split('/').find_map(|range| {
            let range = range.to_ascii_lowercase();
            if let Some(rest) = range.strip_prefix("execute_context_") {
                let (context, generation) = rest.split_once("generation_")?;
                let (context, generation) = (leading_number(context)?, leading_number(generation)?);
                let phase = if context > 0 { Phase::Prefill } else { Phase::Decode };
                return Some(Self {
                    phase,
                    batch: Some(context + generation),
                });
            }
            let phase = match () {
                () if is_word(&range, "prefill") => Phase::Prefill,
                () if is_word(&range, "decode") => Phase::Decode,
                () => return None,
            };
            Some(Self {
                phase,
                batch: batch(&range),
            })
        })
    }
}

/// Whether a range begins with a word: `decode_step` does with `decode`, `decoder` does not.
fn is_word(range: &str, word: &str) -> bool {
    let rest = range.strip_prefix(word);
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

/// `batch=4`, `batch 4`, `bs4`.
fn batch(range: &str) -> Option<u64> {
    ["batch_size", "batch", "bs"].iter().find_map(|word| {
        let (_, rest) = range.split_once(word)?;
        leading_number(rest.trim_start_matches([' ', '=', ':', '_']))
    })
}

fn leading_number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// Steps of one kind in a row that make it decode.
const STREAK: u64 = 3;
/// A kind of step whose median is as many times that of the shortest decode is a prefill in pieces.
const LONG: i64 = 4;

/// What is known of a class of steps that no range names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rhythm {
    /// Most steps in a row.
    pub(crate) streak: u64,
    pub(crate) median_ns: i64,
}

/// Phases of the classes of one device: decode repeats itself; what stands alone between is prefill.
pub(crate) fn by_rhythm(classes: &[Rhythm]) -> Vec<Phase> {
    let repeats = |class: &&Rhythm| class.streak >= STREAK;
    let Some(shortest) = classes.iter().filter(repeats).map(|class| class.median_ns).min() else {
        return vec![Phase::Other; classes.len()];
    };
    let phase = |class: &Rhythm| match class.streak >= STREAK && class.median_ns < LONG.saturating_mul(shortest) {
        true => Phase::Decode,
        false => Phase::Prefill,
    };
    classes.iter().map(phase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_the_phase() {
        let said = |path: &str| Said::by(path).map(|said| (said.phase.word(), said.batch));
        assert_eq!(said("step/decode batch=4 tokens=4/layer 3"), Some(("decode", Some(4))));
        assert_eq!(said("Prefill/forward"), Some(("prefill", None)));
        assert_eq!(
            said("execute_context_0(0)_generation_8(8)/x"),
            Some(("decode", Some(8)))
        );
        assert_eq!(
            said("execute_context_1(64)_generation_3(3)"),
            Some(("prefill", Some(4)))
        );
        assert_eq!(said("decode_step"), Some(("decode", None)));
        assert_eq!(said("decoder/layers"), None);
        assert_eq!(said("forward/layer"), None);
        assert_eq!(said("execute_context_x"), None);
    }

    #[test]
    fn decode_repeats_itself() {
        let rhythm = |streak, median_ns| Rhythm { streak, median_ns };
        use Phase::{Decode, Other, Prefill};
        assert_eq!(
            by_rhythm(&[rhythm(1, 30), rhythm(16, 20), rhythm(3, 25), rhythm(9, 100)]),
            [Prefill, Decode, Decode, Prefill]
        );
        assert_eq!(by_rhythm(&[rhythm(1, 30), rhythm(2, 20)]), [Other, Other]);
    }
}
