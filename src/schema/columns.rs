//! Column kinds, and the builder that a table's definition expands to.
//!
//! A table is declared once, with [`crate::schema::tables`]'s macro; from that declaration come the row type, the
//! Arrow schema, the builder, and docs/schema.md.

use std::sync::Arc;

use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{Array as _, ArrayRef, BooleanArray, PrimitiveArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

/// One column of a table: what the writer writes and the reader expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name in snake_case, with the unit as suffix where there is one.
    pub name: &'static str,
    /// Arrow type.
    pub data_type: DataType,
    /// Whether null is a value: "this CUPTI can't tell", or "not of this kind of record".
    pub nullable: bool,
    /// What it says, for docs/schema.md.
    pub doc: &'static str,
}

/// Units, by the suffix of the column's name; the longest that fits counts.
const UNITS: [(&str, &str); 6] = [
    ("_bytes_per_s", "bytes/s"),
    ("_bytes_per_thread", "bytes/thread"),
    ("_ns", "ns"),
    ("_khz", "kHz"),
    ("_pct", "%"),
    ("bytes", "bytes"),
];

impl Column {
    /// The type in words: Arrow's own name, and `text` for dictionary-encoded text.
    pub fn type_name(&self) -> String {
        match &self.data_type {
            DataType::Dictionary(..) => "text".to_owned(),
            DataType::Boolean => "bool".to_owned(),
            other => other.to_string().to_lowercase(),
        }
    }

    /// The unit, where the name says one.
    pub fn unit(&self) -> Option<&'static str> {
        let fits = UNITS.iter().filter(|(suffix, _)| self.name.ends_with(suffix));
        fits.max_by_key(|(suffix, _)| suffix.len()).map(|&(_, unit)| unit)
    }
}

/// One table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Name: the folder in the session, and the name in SQL.
    pub name: &'static str,
    /// What a row is.
    pub doc: &'static str,
    /// Columns in the order in which they are written.
    pub columns: Vec<Column>,
}

impl Table {
    /// The Arrow schema of the table's files.
    pub fn arrow_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(
            self.columns
                .iter()
                .map(|column| Field::new(column.name, column.data_type.clone(), column.nullable))
                .collect::<Vec<_>>(),
        ))
    }
}

/// A column kind: the Rust value that a row holds, and the buffer that collects it.
pub trait Kind {
    /// A value in a row.
    type Value<'a>;
    /// Values collected for one segment.
    type Buffer: Default;
    /// Whether the column takes nulls.
    const NULLABLE: bool;
    /// Arrow type of the column.
    fn data_type() -> DataType;
    /// Appends a value.
    fn push(buffer: &mut Self::Buffer, value: Self::Value<'_>);
    /// Takes what was collected, leaving the buffer empty.
    fn finish(buffer: &mut Self::Buffer) -> ArrayRef;
    /// The value of a row. Null reads as zero or no text where the kind takes no nulls: an older file lacks the column.
    ///
    /// # Panics
    /// On a column of another type.
    fn get(column: &ArrayRef, row: usize) -> Self::Value<'_>;
}

/// A number that is always there.
#[derive(Debug)]
pub struct Number<T>(std::marker::PhantomData<T>);

/// A number that may be null.
#[derive(Debug)]
pub struct MaybeNumber<T>(std::marker::PhantomData<T>);

impl<T: ArrowPrimitiveType> Kind for Number<T> {
    type Value<'a> = T::Native;
    type Buffer = Vec<T::Native>;
    const NULLABLE: bool = false;
    fn data_type() -> DataType {
        T::DATA_TYPE
    }
    fn push(buffer: &mut Self::Buffer, value: Self::Value<'_>) {
        buffer.push(value);
    }
    fn finish(buffer: &mut Self::Buffer) -> ArrayRef {
        Arc::new(PrimitiveArray::<T>::from_iter_values(std::mem::take(buffer)))
    }
    fn get(column: &ArrayRef, row: usize) -> T::Native {
        column.as_primitive::<T>().value(row)
    }
}

impl<T: ArrowPrimitiveType> Kind for MaybeNumber<T> {
    type Value<'a> = Option<T::Native>;
    type Buffer = Vec<Option<T::Native>>;
    const NULLABLE: bool = true;
    fn data_type() -> DataType {
        T::DATA_TYPE
    }
    fn push(buffer: &mut Self::Buffer, value: Self::Value<'_>) {
        buffer.push(value);
    }
    fn finish(buffer: &mut Self::Buffer) -> ArrayRef {
        Arc::new(PrimitiveArray::<T>::from_iter(std::mem::take(buffer)))
    }
    fn get(column: &ArrayRef, row: usize) -> Option<T::Native> {
        column.is_valid(row).then(|| column.as_primitive::<T>().value(row))
    }
}

/// Text from a small set: dictionary-encoded.
#[derive(Debug)]
pub struct Text;

/// Text that may be null.
#[derive(Debug)]
pub struct MaybeText;

/// Collects dictionary-encoded text.
#[derive(Default)]
pub struct TextBuffer(Option<StringDictionaryBuilder<Int32Type>>);

impl std::fmt::Debug for TextBuffer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TextBuffer").finish_non_exhaustive()
    }
}

impl TextBuffer {
    fn builder(&mut self) -> &mut StringDictionaryBuilder<Int32Type> {
        self.0.get_or_insert_with(StringDictionaryBuilder::new)
    }
}

fn text_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

impl Kind for Text {
    type Value<'a> = &'a str;
    type Buffer = TextBuffer;
    const NULLABLE: bool = false;
    fn data_type() -> DataType {
        text_type()
    }
    fn push(buffer: &mut Self::Buffer, value: Self::Value<'_>) {
        buffer.builder().append_value(value);
    }
    fn finish(buffer: &mut Self::Buffer) -> ArrayRef {
        Arc::new(buffer.builder().finish())
    }
    fn get(column: &ArrayRef, row: usize) -> &str {
        MaybeText::get(column, row).unwrap_or_default()
    }
}

impl Kind for MaybeText {
    type Value<'a> = Option<&'a str>;
    type Buffer = TextBuffer;
    const NULLABLE: bool = true;
    fn data_type() -> DataType {
        text_type()
    }
    fn push(buffer: &mut Self::Buffer, value: Self::Value<'_>) {
        buffer.builder().append_option(value);
    }
    fn finish(buffer: &mut Self::Buffer) -> ArrayRef {
        Arc::new(buffer.builder().finish())
    }
    fn get(column: &ArrayRef, row: usize) -> Option<&str> {
        let texts = column.as_dictionary::<Int32Type>();
        Some(texts.values().as_string::<i32>().value(texts.key(row)?))
    }
}

/// Yes or no, or unknown.
#[derive(Debug)]
pub struct MaybeFlag;

impl Kind for MaybeFlag {
    type Value<'a> = Option<bool>;
    type Buffer = Vec<Option<bool>>;
    const NULLABLE: bool = true;
    fn data_type() -> DataType {
        DataType::Boolean
    }
    fn push(buffer: &mut Self::Buffer, value: Self::Value<'_>) {
        buffer.push(value);
    }
    fn finish(buffer: &mut Self::Buffer) -> ArrayRef {
        Arc::new(BooleanArray::from(std::mem::take(buffer)))
    }
    fn get(column: &ArrayRef, row: usize) -> Option<bool> {
        column.is_valid(row).then(|| column.as_boolean().value(row))
    }
}

/// Shorthands for the declarations in `tables`.
pub mod kinds {
    use super::*;
    /// int64
    pub type I64 = Number<Int64Type>;
    /// int64 or null
    pub type MaybeI64 = MaybeNumber<Int64Type>;
    /// uint64
    pub type U64 = Number<UInt64Type>;
    /// uint64 or null
    pub type MaybeU64 = MaybeNumber<UInt64Type>;
    /// uint32
    pub type U32 = Number<UInt32Type>;
    /// uint32 or null
    pub type MaybeU32 = MaybeNumber<UInt32Type>;
    /// int32
    pub type I32 = Number<Int32Type>;
    /// int32 or null
    pub type MaybeI32 = MaybeNumber<Int32Type>;
    /// float64 or null
    pub type MaybeF64 = MaybeNumber<Float64Type>;
    pub use super::{MaybeFlag, MaybeText, Text};
}

/// Collects the rows of one table until a segment is sealed.
pub trait TableBuilder: Default {
    /// The row type, with borrowed text.
    type Row<'a>;
    /// The table's definition.
    fn table() -> Table;
    /// Appends a row.
    fn push(&mut self, row: Self::Row<'_>);
    /// Rows collected since the last `finish`.
    fn len(&self) -> usize;
    /// True when nothing was collected.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Takes the rows as Arrow columns in the order of the definition.
    fn finish(&mut self) -> Vec<ArrayRef>;
    /// A row of a batch that has the columns of the definition, in its order.
    fn row(batch: &RecordBatch, row: usize) -> Self::Row<'_>;
}
