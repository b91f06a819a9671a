//! Layers in the names of NVTX ranges, and which of a model's stacks of layers they are of: an encoder's, a tower's and a draft
//! model's count from 0 as the model's own do.

use std::collections::BTreeMap;

/// Beginnings of words that say that layers are a tower's: beside a language model those of images or sound.
const TOWERS: [&str; 4] = ["vision", "visual", "audio", "image"];
/// Words that say that they are a draft model's.
const DRAFTS: [&str; 8] = [
    "draft",
    "drafter",
    "propose",
    "proposer",
    "assistant",
    "eagle",
    "medusa",
    "mtp",
];
/// In front of the word, they say how many layers there are.
const COUNTS: [&str; 6] = ["n", "nr", "num", "number", "total", "max"];

/// What a stack of layers is to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Model,
    Encoder,
    /// A tower or a draft model.
    Beside,
}

/// Layers that are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stack {
    role: Role,
    /// What the list of modules is called beside `layers` or `blocks`: `single_transformer_`.
    list: String,
}

/// A layer that a range names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerName {
    pub(crate) stack: Stack,
    pub(crate) number: u16,
    /// With the stack's: `vision_tower.layers.3`, `encoder/layer 3`.
    pub(crate) name: String,
}

impl LayerName {
    /// That of the outermost range that names one.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let mut outer = None;
        for range in path.split('/') {
            let found = numbers(range).find_map(|number| Self::at(range, number, outer));
            if found.is_some() {
                return found;
            }
            outer = role(range, true).or(outer);
        }
        None
    }

    fn at(range: &str, number: std::ops::Range<usize>, outer: Option<(Role, &str)>) -> Option<Self> {
        let before = &range[..number.start];
        let separator = before.chars().next_back().filter(|c| " ._=[".contains(*c));
        let named = before.strip_suffix(|c: char| Some(c) == separator).unwrap_or(before);
        let list_at = named.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (prefix, word) = (identifier(&named[..list_at]), &named[list_at..]);
        if goes_on(&range[number.end..]) || !counts_layers(prefix, word, separator) {
            return None;
        }
        // Only lists of modules are stacks: `attn_layer_3` and `mlp_layer_3` are of one layer.
        let list = if matches!(separator, Some('.' | '[')) {
            prefix
        } else {
            ""
        };
        let name = |at: usize| &range[token(range, at)..number.end];
        let (role, name) = match (role(named, false), outer) {
            (Some((role, said)), _) => (role, name(offset(named, said)).to_owned()),
            (None, Some((role, said))) => (role, format!("{said}/{}", name(list_at))),
            (None, None) => (Role::Model, name(list_at).to_owned()),
        };
        Some(Self {
            stack: Stack {
                role,
                list: list.to_owned(),
            },
            number: range[number].parse().ok()?,
            name,
        })
    }
}

/// Which stack the numbers of a process's layers are of: the model's own, of several the one with most layers; an encoder's
/// where there is no other. All others keep their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stacks(BTreeMap<Stack, u16>);

impl Stacks {
    /// Adds what a path names.
    pub(crate) fn add(&mut self, path: &str) {
        if let Some(found) = LayerName::of(path).filter(|found| found.stack.role != Role::Beside) {
            let highest = self.0.entry(found.stack).or_default();
            *highest = found.number.max(*highest);
        }
    }

    /// The one whose layers are numbers.
    pub(crate) fn numbered(&self) -> Option<&Stack> {
        let rank = |(stack, highest): &(&Stack, &u16)| (stack.role, std::cmp::Reverse(**highest));
        self.0.iter().min_by_key(rank).map(|(stack, _)| stack)
    }
}

/// Whether a layer that keeps its name is of a draft model: it runs behind the model's own.
pub(crate) fn is_draft(name: &str) -> bool {
    words(name).any(says_draft)
}

/// The same as a pattern of DuckDB's.
pub(crate) fn draft_pattern() -> String {
    format!("(^|[^[:alnum:]])(?i:{})([^a-z]|$)", DRAFTS.join("|"))
}

/// Whether a word is one of these, perhaps with more in it: `EagleProposer` and `eagle3`, but not `proposed`.
fn says_draft(word: &str) -> bool {
    DRAFTS.iter().any(|draft| {
        let goes_on = word.get(draft.len()..).filter(|_| begins_with(word, &[draft]));
        goes_on.is_some_and(|behind| !behind.starts_with(|c: char| c.is_ascii_lowercase()))
    })
}

/// Where numbers are in a text.
fn numbers(text: &str) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let is_digit = |c: char| c.is_ascii_digit();
    let mut end = 0;
    std::iter::from_fn(move || {
        let start = end + text[end..].find(is_digit)?;
        end = text[start..]
            .find(|c| !is_digit(c))
            .map_or(text.len(), |ahead| start + ahead);
        Some(start..end)
    })
}

/// Whether what is behind a number makes another thing of it: `2x`, `0-15`, `0:16`, `0..15`.
fn goes_on(behind: &str) -> bool {
    let digits = ["-", ":", ".."].iter().find_map(|to| behind.strip_prefix(to));
    behind.starts_with(char::is_alphanumeric) || digits.is_some_and(|end| end.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether a number behind this word is a layer's. `block=16`, `num_layers=32` and `h 8` are sizes.
fn counts_layers(prefix: &str, word: &str, separator: Option<char>) -> bool {
    if words(prefix).any(|word| COUNTS.iter().any(|count| word.eq_ignore_ascii_case(count))) {
        return false;
    }
    match word.to_ascii_lowercase().as_str() {
        "layer" => separator != Some('=') || prefix.is_empty(),
        "layers" | "block" | "blocks" => separator != Some('='),
        "h" => prefix.is_empty() && matches!(separator, Some('.' | '[')),
        _ => false,
    }
}

/// What a text says of the layers in it, and the word that says it. Of a range around them that is a phrase, as
/// `image generation`, only a draft is believed.
fn role(text: &str, is_around: bool) -> Option<(Role, &str)> {
    let is_phrase = is_around && text.contains(' ');
    let is_beside = |word: &&str| says_draft(word) || !is_phrase && begins_with(word, &TOWERS);
    let coder = |word| match () {
        () if is_phrase => None,
        () if begins_with(word, &["encoder"]) => Some((Role::Encoder, word)),
        () if begins_with(word, &["decoder"]) => Some((Role::Model, word)),
        () => None,
    };
    let beside = words(text).find(is_beside).map(|word| (Role::Beside, word));
    beside.or_else(|| words(text).filter_map(coder).last())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
}

fn begins_with(word: &str, beginnings: &[&str]) -> bool {
    let is_it = |beginning: &str| {
        word.get(..beginning.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(beginning))
    };
    beginnings.iter().any(|beginning| is_it(beginning))
}

/// The end of a text that belongs to one identifier.
fn identifier(text: &str) -> &str {
    &text[text.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_').len()..]
}

/// Where the word that a place lies in begins.
fn token(text: &str, at: usize) -> usize {
    text[..at].rfind([' ', '\'', '"']).map_or(0, |space| space + 1)
}

/// Where a part of a text begins in it.
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the layers of paths are called in a process that has all these.
    fn called(paths: &[&str]) -> Vec<String> {
        let mut stacks = Stacks::default();
        paths.iter().for_each(|path| stacks.add(path));
        let call = |path: &&str| match LayerName::of(path) {
            Some(found) if Some(&found.stack) == stacks.numbered() => found.number.to_string(),
            Some(found) => found.name,
            None => "-".to_owned(),
        };
        paths.iter().map(call).collect()
    }

    #[test]
    fn the_only_stack_has_the_numbers() {
        for (path, layer) in [
            // Hugging Face: Llama, GPT-2, BERT, T5's encoder, ViT.
            ("model.layers.12.self_attn", "12"),
            ("transformer.h.7.attn", "7"),
            ("bert.encoder.layer.3.attention", "3"),
            ("encoder.block.2.layer.1.DenseReluDense", "2"),
            ("blocks.7", "7"),
            ("language_model.model.layers.3", "3"),
            // Megatron, and vLLM's layerwise ranges.
            ("module.decoder.layers.5.mlp", "5"),
            ("{'Module': 'model.layers.5.mlp', 'In': [1, 2]}", "5"),
            ("decode batch=4/forward/model.layers.12/mlp/layer 0", "12"),
            ("model.layers.3.block_sparse_moe.experts.5", "3"),
            ("single_transformer_blocks.7", "7"),
            // By hand.
            ("forward/layer 3/norm", "3"),
            ("Layer_3", "3"),
            ("layer=3", "3"),
            ("step/layer3", "3"),
            ("blocks[7]", "7"),
            ("12 x layer 4", "4"),
            ("attn_layer_3", "3"),
            ("layer 12-attention", "12"),
        ] {
            assert_eq!(called(&[path]), [layer], "{path}");
        }
    }

    #[test]
    fn sizes_and_counts_are_no_layers() {
        for path in [
            "",
            "/",
            "piece 12",
            "layer_norm",
            "block=16",
            "h=128",
            "h 8",
            "multilayer 3",
            "layers.99999999",
            "layer 2x",
            "decode batch=4",
            "num_layers=32",
            "load num_layers 32",
            "n_layer=12",
            "n_layer 12",
            "layers=32",
            "start_layer=8",
            "layers 0-15",
            "layers[0:16]",
            "layers 0..15",
            "width.h.x",
        ] {
            assert_eq!(called(&[path]), ["-"], "{path}");
        }
    }

    #[test]
    fn beside_the_model_stacks_keep_their_names() {
        for (beside, model, name, number) in [
            ("encoder.block.0", "decoder.block.1.layer.0", "encoder.block.0", "1"),
            (
                "model.encoder.layers.3",
                "model.decoder.layers.3",
                "model.encoder.layers.3",
                "3",
            ),
            ("encoder/layer 3", "decoder/layer 2", "encoder/layer 3", "2"),
            ("encoder layer 3", "decoder layer 2", "encoder layer 3", "2"),
            ("draft_model.layers.3", "model.layers.3", "draft_model.layers.3", "3"),
            (
                "gpu_model_runner: draft/model.layers.0",
                "model.layers.0",
                "draft/model.layers.0",
                "0",
            ),
            ("mtp.layers.0", "model.layers.0", "mtp.layers.0", "0"),
            ("visual.blocks.4.attn", "model.layers.4", "visual.blocks.4", "4"),
            (
                "{'Module': 'visual.blocks.4.attn'}",
                "{'Module': 'model.layers.4'}",
                "visual.blocks.4",
                "4",
            ),
            (
                "vision_model.encoder.layers.2/mlp",
                "text_model.encoder.layers.3",
                "vision_model.encoder.layers.2",
                "3",
            ),
            (
                "transformer_blocks.18",
                "single_transformer_blocks.37",
                "transformer_blocks.18",
                "37",
            ),
        ] {
            assert_eq!(called(&[beside, model]), [name, number]);
            assert_eq!(called(&[model, beside]), [number, name]);
        }
        let one = [
            "model.layers.3",
            "layer 4",
            "layers.5.attn",
            "mlp_layer_6",
            "image generation/layer 7",
        ];
        assert_eq!(called(&one), ["3", "4", "5", "6", "7"], "names of the same stack");
    }

    #[test]
    fn towers_and_drafts_are_never_numbers() {
        assert_eq!(called(&["visual.blocks.4"]), ["visual.blocks.4"]);
        assert_eq!(called(&["draft/layer 4"]), ["draft/layer 4"]);
        assert!(is_draft("draft/layer 4") && !is_draft("visual.blocks.4"));
        for draft in [
            "EagleProposer/layer 4",
            "eagle3.layers.4",
            "MTPLayer.layers.4",
            "the drafter/layer 4",
        ] {
            assert!(called(&[draft])[0] != "4" && is_draft(draft), "{draft}");
        }
        for other in ["proposed change/layer 4", "drafts/layer 4", "assistants.layers.4"] {
            assert!(called(&[other])[0] == "4" && !is_draft(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn the_pattern_says_what_the_function_does(
            name in "([ /._]?(draft|Draft|EAGLE|eagle3|mtp|MTPLayer|drafts|proposer|Proposed|medusa|layer|[a-zA-Z]{1,3}|[0-9])){1,5}",
        ) {
            let pattern = regex::Regex::new(&draft_pattern()).unwrap();
            prop_assert_eq!(pattern.is_match(&name), is_draft(&name), "{}", name);
        }


        #[test]
        fn any_text_can_be_a_name(path in "([a-zA-Zäß 日_.='{/\\[-]|layers?|blocks?|encoder|draft|[0-9]){0,12}") {
            let digits = |name: &str| name.ends_with(|c: char| c.is_ascii_digit());
            if let Some(found) = LayerName::of(&path) {
                prop_assert!(digits(&found.name), "{found:?}");
                prop_assert!(path.contains(&found.number.to_string()));
            }
        }
    }
}
