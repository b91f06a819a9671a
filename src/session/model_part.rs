//! Which part of a model a path of NVTX ranges names. docs/schema.md tells the rule to readers.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayRef, DictionaryArray, RecordBatch, StringArray};

use crate::session::layer_names::{LayerName, Stacks, is_draft};

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
    fn of(path: &str, stacks: &Stacks) -> Option<Self> {
        match LayerName::of(path) {
            Some(found) if stacks.numbered() == Some(&found.stack) => Some(Self::Layer(found.number)),
            Some(found) => Some(Self::Named(found.name)),
            None => path
                .split('/')
                .rev()
                .find_map(around)
                .map(|name| Self::Named(name.to_owned())),
        }
    }
}

/// Whether the part of this name lies before the layers: an embedding, an encoder's layer, a tower's.
pub fn is_before_layers(name: &str) -> bool {
    (name.ends_with(|c: char| c.is_ascii_digit()) && !is_draft(name))
        || AROUND[..BEFORE].iter().any(|known| name.eq_ignore_ascii_case(known))
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
#[derive(Debug, Default, Clone)]
pub(crate) struct PathParts {
    stacks: Stacks,
    /// Of each path column, its dictionary and what each entry says.
    columns: Vec<(Option<ArrayRef>, Vec<Option<Part>>)>,
}

/// Columns with paths. The ranges in which a kernel's node was captured say more than those around the launch of its graph.
pub(crate) const PATHS: [&str; 2] = ["nvtx_path", "launch_nvtx_path"];

impl PathParts {
    /// Where these are the stacks of the process's layers.
    pub(crate) fn new(stacks: Stacks) -> Self {
        Self {
            stacks,
            columns: Vec::new(),
        }
    }

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
                    .map(|path| path.and_then(|path| Part::of(path, &self.stacks)))
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
    fn parts_around_the_layers_have_their_own_names() {
        let mut stacks = Stacks::default();
        stacks.add("model.layers.2/norm");
        let named = |path: &str| match Part::of(path, &stacks) {
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
        assert_eq!(
            Part::of("model.layers.2/norm", &stacks),
            Some(Part::Layer(2)),
            "a layer's own"
        );
        assert_eq!(Part::of("train_step/backward", &stacks), None);
    }
}
