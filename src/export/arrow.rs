//! Arrow's file format (Feather 2): one file a table.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType};

use super::{ExportError, Source, Target};
use crate::schema::columns::Table;
use crate::session::wanted_schema;

/// Writes a table. The format has one dictionary a text column, written first, so the rows are read twice.
pub fn arrow(source: &mut Source<'_>, table: &Table, target: &Target) -> Result<(), ExportError> {
    let mut texts: Vec<Texts> = table.columns.iter().map(|_| Texts::default()).collect();
    source.batches(table, |batch| {
        for (column, texts) in batch.columns().iter().zip(&mut texts) {
            texts.collect(column);
        }
        Ok(())
    })?;
    let dictionaries: Vec<_> = texts.iter().map(Texts::dictionary).collect();
    // All nullable: an older file may lack a column.
    let names: Vec<_> = table.columns.iter().map(|column| column.name).collect();
    let schema = wanted_schema(table.name, &names);
    let mut writer = FileWriter::try_new_buffered(File::create(target.temporary())?, &schema)?;
    source.rows.remove(table.name);
    source.batches(table, |batch| {
        let columns = batch.columns().iter().zip(&texts).zip(&dictionaries);
        let columns = columns.map(|((column, texts), dictionary)| texts.renumber(column, dictionary));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)?;
        Ok(writer.write(&batch)?)
    })?;
    writer.finish()?;
    Ok(())
}

/// The distinct texts of a column.
#[derive(Debug, Default)]
struct Texts {
    keys: HashMap<String, i32>,
    ordered: Vec<String>,
}

impl Texts {
    fn collect(&mut self, column: &ArrayRef) {
        let Some(column) = text_column(column) else { return };
        for text in column.values().as_string::<i32>().iter().flatten() {
            if !self.keys.contains_key(text) {
                self.keys
                    .insert(text.to_owned(), i32::try_from(self.ordered.len()).unwrap_or(i32::MAX));
                self.ordered.push(text.to_owned());
            }
        }
    }

    fn dictionary(&self) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(&self.ordered))
    }

    /// The column over the common dictionary; any other column as it is.
    fn renumber(&self, column: &ArrayRef, dictionary: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let Some(texts) = text_column(column) else {
            return Ok(Arc::clone(column));
        };
        let values = texts.values().as_string::<i32>();
        let map: Vec<Option<i32>> = values.iter().map(|text| self.keys.get(text?).copied()).collect();
        let keys: Int32Array = texts
            .keys()
            .iter()
            .map(|key| map.get(usize::try_from(key?).ok()?).copied().flatten())
            .collect();
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(
            keys,
            Arc::clone(dictionary),
        )?))
    }
}

fn text_column(column: &ArrayRef) -> Option<&DictionaryArray<Int32Type>> {
    matches!(column.data_type(), DataType::Dictionary(..)).then(|| column.as_dictionary())
}
