//! Typed views of a batch's columns. A column that an old file lacks reads as zeros, and as no text.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, DictionaryArray, RecordBatch, StringArray};

pub(crate) fn i64s(batch: &RecordBatch, column: usize) -> &[i64] {
    batch.column(column).as_primitive::<Int64Type>().values()
}

pub(crate) fn i32s(batch: &RecordBatch, column: usize) -> &[i32] {
    batch.column(column).as_primitive::<Int32Type>().values()
}

pub(crate) fn u32s(batch: &RecordBatch, column: usize) -> &[u32] {
    batch.column(column).as_primitive::<UInt32Type>().values()
}

pub(crate) fn u64s(batch: &RecordBatch, column: usize) -> &[u64] {
    batch.column(column).as_primitive::<UInt64Type>().values()
}

pub(crate) fn texts(batch: &RecordBatch, column: usize) -> &DictionaryArray<Int32Type> {
    batch.column(column).as_dictionary::<Int32Type>()
}

/// Turns a dictionary's entries into numbers of ours, once a dictionary: the batches of a row group share theirs.
#[derive(Debug, Default)]
pub(crate) struct EntryMap {
    last: Option<ArrayRef>,
    map: Vec<u32>,
}

impl EntryMap {
    /// Number of each entry of the array's dictionary; `number` is asked for entries in use only when the dictionary
    /// is new.
    pub(crate) fn of(&mut self, array: &DictionaryArray<Int32Type>, mut number: impl FnMut(&str) -> u32) -> &[u32] {
        let values = array.values();
        if !self
            .last
            .as_ref()
            .is_some_and(|last| std::sync::Arc::ptr_eq(last, values))
        {
            let texts = values.as_any().downcast_ref::<StringArray>();
            self.map = texts
                .into_iter()
                .flatten()
                .map(|text| number(text.unwrap_or_default()))
                .collect();
            self.last = Some(std::sync::Arc::clone(values));
        }
        &self.map
    }
}
