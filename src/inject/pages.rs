//! Parquet column chunks from dictionary indices, without hashing a value.
//!
//! Parquet's own writer finds out by hashing which values repeat. The kernel table knows: most of its columns are a
//! function of the launch's signature, so their pages are written from the signature's number. That is the difference
//! between some 1.5 and 5 million kernels a second on one core (docs/measurements).

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// Level 1: the guest's time is the host's; the launcher compacts with more.
pub(crate) const ZSTD_LEVEL: i32 = 1;
/// Rows a data page, so that a reader need not hold a column.
const PAGE_ROWS: usize = 128 * 1024;

/// A dictionary-encoded column chunk: `index` of each row into `values`, or [`NULL`].
pub(crate) struct DictionaryColumn {
    /// Plain-encoded values.
    pub(crate) values: Vec<u8>,
    /// How many.
    pub(crate) count: usize,
    /// A row's value.
    pub(crate) indices: Vec<u32>,
}

/// Index of a null.
pub(crate) const NULL: u32 = u32::MAX;

impl DictionaryColumn {
    /// Writes the chunk to a buffer of its own; `append_column` then takes it over.
    pub(crate) fn write(&self, descriptor: &ColumnDescPtr) -> Result<(Bytes, ColumnCloseResult)> {
        let mut sink = TrackedWrite::new(Vec::new());
        let mut writer = SerializedPageWriter::new(&mut sink);
        let mut uncompressed = 0;
        let mut compressed = 0;
        let mut page = |page: CompressedPage| -> Result<u64> {
            let spec = writer.write_page(page)?;
            uncompressed += spec.uncompressed_size;
            compressed += spec.compressed_size;
            Ok(spec.offset)
        };
        let dictionary = Page::DictionaryPage {
            buf: compress(&self.values)?,
            num_values: to_u32(self.count)?,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let dictionary_offset = page(CompressedPage::new(dictionary, self.values.len()))?;
        let width = bit_width(self.count.saturating_sub(1));
        let nullable = descriptor.max_def_level() > 0;
        let mut data_offset = None;
        let mut nulls = 0_usize;
        for rows in self.indices.chunks(PAGE_ROWS) {
            let mut body = Vec::with_capacity(rows.len());
            let present: Vec<u32>;
            let indices = if nullable {
                let levels: Vec<u32> = rows.iter().map(|index| u32::from(*index != NULL)).collect();
                let mut encoded = Vec::new();
                hybrid(&levels, 1, &mut encoded);
                body.extend_from_slice(&to_u32(encoded.len())?.to_le_bytes());
                body.extend_from_slice(&encoded);
                present = rows.iter().copied().filter(|index| *index != NULL).collect();
                nulls += rows.len() - present.len();
                present.as_slice()
            } else {
                rows
            };
            body.push(width);
            hybrid(indices, width, &mut body);
            let data = Page::DataPage {
                buf: compress(&body)?,
                num_values: to_u32(rows.len())?,
                encoding: Encoding::RLE_DICTIONARY,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            let offset = page(CompressedPage::new(data, body.len()))?;
            data_offset.get_or_insert(offset);
        }
        let bytes = Bytes::from(sink.into_inner()?);
        let rows = self.indices.len();
        let metadata = ColumnChunkMetaData::builder(descriptor.clone())
            .set_compression(Compression::ZSTD(parquet::basic::ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_num_values(i64::try_from(rows).unwrap_or(i64::MAX))
            .set_total_uncompressed_size(i64::try_from(uncompressed).unwrap_or(i64::MAX))
            .set_total_compressed_size(i64::try_from(compressed).unwrap_or(i64::MAX))
            .set_data_page_offset(i64::try_from(data_offset.unwrap_or(dictionary_offset)).unwrap_or(0))
            .set_dictionary_page_offset(i64::try_from(dictionary_offset).ok())
            .set_statistics(null_count(descriptor.physical_type(), nulls))
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows as u64,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        Ok((bytes, close))
    }
}

fn null_count(physical: Type, nulls: usize) -> parquet::file::statistics::Statistics {
    use parquet::file::statistics::Statistics;
    let nulls = Some(nulls as u64);
    match physical {
        Type::BOOLEAN => Statistics::boolean(None, None, None, nulls, false),
        Type::INT32 => Statistics::int32(None, None, None, nulls, false),
        Type::INT64 => Statistics::int64(None, None, None, nulls, false),
        Type::FLOAT => Statistics::float(None, None, None, nulls, false),
        Type::DOUBLE => Statistics::double(None, None, None, nulls, false),
        _ => Statistics::byte_array(None, None, None, nulls, false),
    }
}

fn to_u32(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|error| ParquetError::General(error.to_string()))
}

fn compress(data: &[u8]) -> Result<Bytes> {
    zstd::bulk::compress(data, ZSTD_LEVEL)
        .map(Bytes::from)
        .map_err(|error| ParquetError::General(format!("zstd: {error}")))
}

/// Bits that hold `largest`.
fn bit_width(largest: usize) -> u8 {
    (usize::BITS - largest.leading_zeros()) as u8
}

/// Parquet's RLE / bit-packing hybrid: runs of 8 or more as a run, the rest packed in groups of 8.
fn hybrid(values: &[u32], width: u8, out: &mut Vec<u8>) {
    let mut packed_from = 0;
    let mut at = 0;
    while at < values.len() {
        let run = run_length(&values[at..]);
        // A run may begin only where the packed groups before it are whole.
        let lead = (8 - (at - packed_from) % 8) % 8;
        if run >= lead + 8 {
            let start = at + lead;
            pack(&values[packed_from..start], width, out);
            let length = run - lead;
            varint((length as u64) << 1, out);
            let bytes = usize::from(width.div_ceil(8));
            out.extend_from_slice(&values[at].to_le_bytes()[..bytes]);
            at = start + length;
            packed_from = at;
        } else {
            at += run;
        }
    }
    pack(&values[packed_from..], width, out);
}

fn run_length(values: &[u32]) -> usize {
    let first = values[0];
    values.iter().position(|value| *value != first).unwrap_or(values.len())
}

fn pack(values: &[u32], width: u8, out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(8);
    varint((groups as u64) << 1 | 1, out);
    let mut accumulator = 0_u64;
    let mut bits = 0_u32;
    for value in values
        .iter()
        .copied()
        .chain(std::iter::repeat_n(0, groups * 8 - values.len()))
    {
        accumulator |= u64::from(value) << bits;
        bits += u32::from(width);
        while bits >= 8 {
            out.push(accumulator as u8);
            accumulator >>= 8;
            bits -= 8;
        }
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
