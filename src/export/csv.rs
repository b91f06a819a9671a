//! CSV: one file a table.

use std::fs::File;
use std::io::{BufWriter, Write as _};

use arrow_csv::WriterBuilder;

use super::{ExportError, Source, Target};
use crate::schema::columns::Table;

/// Writes a table with a line of column names. Null is empty.
pub fn csv(source: &mut Source<'_>, table: &Table, target: &Target) -> Result<(), ExportError> {
    let mut file = BufWriter::new(File::create(target.temporary())?);
    let names: Vec<_> = table.columns.iter().map(|column| column.name).collect();
    writeln!(file, "{}", names.join(","))?;
    let mut writer = WriterBuilder::new().with_header(false).build(file);
    source.batches(table, |batch| Ok(writer.write(batch)?))?;
    writer.into_inner().flush()?;
    Ok(())
}
