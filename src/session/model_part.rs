//! Which part of a model a path of NVTX ranges names. docs/schema.md tells the rule to readers.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayRef, DictionaryArray, RecordBatch, StringArray};

/// Parts around the layers, by the last word of a module's name.
const AROUND: [&str; 16] = [
    "embed_tokens",
    "word_embeddings",
    "embeddings",
    "embedding",
    "wte",
    "norm",
    "final_norm",
    "final_layernorm",
    "ln_f",
    "lm_head",
    "logits",
    "logits_processor",
    "compute_logits",
    "sampling",
    "sampler",
    "sample",
];
/// How many of those lie before the layers.
const BEFORE: usize = 5;
/// Beginnings of words that say that layers are not the language model's: their numbers start at 0, too.
const TOWERS: [&str; 3] = ["vis", "audio", "image"];

/// Part of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// A layer, from 0.
    Layer(u16),
    /// What ranges call it.
    Named(String),
}

impl Part {
    /// The outermost range that names a layer says it; where none does, the innermost that names another part.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let ranges = || path.split('/');
        ranges()
            .find_map(layer)
            .or_else(|| ranges().rev().find_map(around).map(|name| Self::Named(name.to_owned())))
    }
}

/// Whether the part of this name lies before the layers: an embedding, or a tower.
pub fn is_before_layers(name: &str) -> bool {
    name.ends_with(|c: char| c.is_ascii_digit())
        || AROUND[..BEFORE].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// `model.layers.12.self_attn`, `transformer.h.3`, `blocks[7]`, `Layer 2`.
fn layer(range: &str) -> Option<Part> {
    let is_digit = |c: char| c.is_ascii_digit();
    let mut end = 0;
    while let Some(start) = range[end..].find(is_digit).map(|ahead| end + ahead) {
        end = range[start..]
            .find(|c| !is_digit(c))
            .map_or(range.len(), |ahead| start + ahead);
        let goes_on = range[end..].starts_with(|c: char| c.is_alphanumeric());
        let before = &range[..start];
        let separator = before.chars().next_back().filter(|c| " ._=[".contains(*c));
        let named = before.strip_suffix(|c: char| Some(c) == separator).unwrap_or(before);
        let word = &named[named.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len()..];
        if goes_on || !counts_layers(word, separator) {
            continue;
        }
        let name = range[..end].rsplit([' ', '\'', '"']).next().unwrap_or_default();
        let is_tower = |word: &str| TOWERS.iter().any(|tower| word.starts_with(tower));
        return match named.to_ascii_lowercase().split('.').any(is_tower) {
            true => Some(Part::Named(name.to_owned())),
            false => range[start..end].parse().ok().map(Part::Layer),
        };
    }
    None
}

/// Whether a number behind this word is a layer's. `block=16` and `h 8` are sizes.
fn counts_layers(word: &str, separator: Option<char>) -> bool {
    match word.to_ascii_lowercase().as_str() {
        "layer" | "layers" => true,
        "block" | "blocks" => separator != Some('='),
        "h" => matches!(separator, Some('.' | '[')),
        _ => false,
    }
}

/// `model.embed_tokens`, `sampling batch=4`.
fn around(range: &str) -> Option<&str> {
    let head = range.split([' ', '(', '[', ':', '=']).next()?;
    let word = head.rsplit('.').next()?;
    AROUND
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known))
        .then_some(word)
}

/// The parts that a batch's paths name, each path looked at once.
#[derive(Debug, Default)]
pub(crate) struct PathParts {
    /// Of each path column, its dictionary and what each entry says.
    columns: Vec<(Option<ArrayRef>, Vec<Option<Part>>)>,
}

/// Columns with paths. The ranges in which a kernel's node was captured say more than those around the launch of its graph.
pub(crate) const PATHS: [&str; 2] = ["nvtx_path", "launch_nvtx_path"];

impl PathParts {
    /// The part of each row of a batch.
    pub(crate) fn of<'a>(&'a mut self, batch: &'a RecordBatch) -> impl Fn(usize) -> Option<&'a Part> {
        self.columns.resize_with(PATHS.len(), Default::default);
        let paths = PATHS.map(|name| {
            batch
                .column_by_name(name)
                .map(|column| column.as_dictionary::<Int32Type>())
        });
        for (paths, (last, parts)) in paths.iter().zip(&mut self.columns) {
            let values = paths.map(DictionaryArray::values);
            let is_known = match (values, &last) {
                (Some(values), Some(last)) => Arc::ptr_eq(values, last),
                (values, last) => values.is_none() && last.is_none(),
            };
            if !is_known {
                let texts = values.and_then(|values| values.as_any().downcast_ref::<StringArray>());
                *parts = texts
                    .into_iter()
                    .flatten()
                    .map(|path| path.and_then(Part::of))
                    .collect();
                *last = values.cloned();
            }
        }
        let columns = &self.columns;
        move |row| {
            let mut said = paths.iter().zip(columns);
            said.find_map(|(paths, (_, parts))| parts.get(paths.as_ref()?.key(row)?)?.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_name_layers_by_modules_and_by_words() {
        let number = |path: &str| match Part::of(path) {
            Some(Part::Layer(number)) => Some(number),
            _ => None,
        };
        for (path, layer) in [
            ("decode batch=4 tokens=4/forward/model.layers.12", 12),
            ("model.layers.12/self_attn", 12),
            ("layers.12.self_attn.attn", 12),
            ("transformer.h.3", 3),
            ("blocks.7", 7),
            ("blocks[7]", 7),
            ("forward/layer 3/norm", 3),
            ("Layer_3", 3),
            ("layer=3", 3),
            ("step/layer3", 3),
            ("{'Module': 'model.layers.5.mlp', 'In': [1, 2]}", 5),
            ("model.layers.3.block_sparse_moe.experts.5", 3),
            ("model.layers.3/layer 0", 3),
            ("12 x layer 4", 4),
        ] {
            assert_eq!(number(path), Some(layer), "{path}");
        }
        for path in [
            "",
            "/",
            "forward",
            "piece 12",
            "layer_norm",
            "block=16",
            "h=128",
            "h 8",
            "multilayer 3",
            "layers.99999999",
            "layer 2x",
            "decode batch=4",
        ] {
            assert_eq!(number(path), None, "{path}");
        }
    }

    #[test]
    fn parts_around_the_layers_have_their_own_names() {
        let named = |path: &str| match Part::of(path) {
            Some(Part::Named(name)) => Some(name),
            _ => None,
        };
        for (path, name) in [
            ("forward/model.embed_tokens", "embed_tokens"),
            ("model.norm", "norm"),
            ("logits/lm_head", "lm_head"),
            ("decode batch=4/sampling batch=4", "sampling"),
            ("sampling/softmax", "sampling"),
            ("visual.blocks.7.attn", "visual.blocks.7"),
            ("encode/vision_tower.layers.2/mlp", "vision_tower.layers.2"),
        ] {
            assert_eq!(named(path).as_deref(), Some(name), "{path}");
        }
        assert_eq!(Part::of("model.layers.2/norm"), Some(Part::Layer(2)), "a layer's own");
        assert_eq!(Part::of("train_step/backward"), None);
    }
}
