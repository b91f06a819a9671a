//! The kernel table's builder: the one that millions of records a second go through.
//!
//! A record is split in what differs each time (times, ids) and its *signature*: all that repeats with the launch
//! (name, stream, grid, …). A signature is interned once; sealing then writes most columns from its number.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::Write;

use arrow_schema::SchemaRef;
use parquet::data_type::{Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::writer::SerializedFileWriter;

use crate::inject::names::Names;
use crate::inject::pages::{DictionaryColumn, NULL};

/// All that repeats with a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Signature {
    pub(crate) name: u32,
    pub(crate) device_id: u32,
    pub(crate) context_id: u32,
    pub(crate) stream_id: u32,
    pub(crate) graph_id: u32,
    pub(crate) grid: [i32; 3],
    pub(crate) block: [i32; 3],
    pub(crate) cluster: [u32; 3],
    pub(crate) registers_per_thread: u32,
    pub(crate) static_shared_bytes: u32,
    pub(crate) dynamic_shared_bytes: u32,
    pub(crate) local_bytes_per_thread: u32,
    pub(crate) priority: Option<i32>,
}

/// A multiply-and-rotate hash over whole words: signatures are ours, nobody attacks them.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct WordHasher(u64);

impl WordHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        // The table takes its bucket from the low bits, which a multiplication mixes least.
        self.0 ^ (self.0 >> 32)
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }
    fn write_u32(&mut self, word: u32) {
        self.add(u64::from(word));
    }
    fn write_i32(&mut self, word: i32) {
        self.add(u64::from(word.cast_unsigned()));
    }
    fn write_usize(&mut self, word: usize) {
        self.add(word as u64);
    }
    fn write_isize(&mut self, word: isize) {
        self.add(word as u64);
    }
}

/// What differs from record to record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Launch {
    pub(crate) start_ns: i64,
    pub(crate) end_ns: i64,
    pub(crate) correlation_id: u32,
    pub(crate) graph_node_id: u64,
    pub(crate) window: u32,
}

/// Collects kernels until a segment is sealed.
#[derive(Debug, Default)]
pub(crate) struct Kernels {
    start_ns: Vec<i64>,
    end_ns: Vec<i64>,
    correlation_id: Vec<i32>,
    graph_node_id: Vec<u64>,
    window: Vec<u32>,
    signature: Vec<u32>,
    signatures: Vec<Signature>,
    by_signature: HashMap<Signature, u32, BuildHasherDefault<WordHasher>>,
}

impl Kernels {
    /// Appends a kernel.
    pub(crate) fn push(&mut self, launch: Launch, signature: Signature) {
        let next = self.signatures.len() as u32;
        let number = *self.by_signature.entry(signature).or_insert_with(|| {
            self.signatures.push(signature);
            next
        });
        self.signature.push(number);
        self.start_ns.push(launch.start_ns);
        self.end_ns.push(launch.end_ns);
        self.correlation_id.push(launch.correlation_id.cast_signed());
        self.graph_node_id.push(launch.graph_node_id);
        self.window.push(launch.window);
    }

    /// Kernels since the last `clear`.
    pub(crate) fn len(&self) -> usize {
        self.signature.len()
    }

    /// Forgets the rows, and the signatures too: a segment's dictionaries hold only what it uses.
    pub(crate) fn clear(&mut self) {
        self.start_ns.clear();
        self.end_ns.clear();
        self.correlation_id.clear();
        self.graph_node_id.clear();
        self.window.clear();
        self.signature.clear();
        self.signatures.clear();
        self.by_signature.clear();
    }

    /// Writes what was collected as one row group of the table `kernels`.
    pub(crate) fn write<W: Write + Send>(
        &self,
        file: &mut SerializedFileWriter<W>,
        schema: &SchemaRef,
        pid: u32,
        names: &Names,
    ) -> Result<()> {
        let descriptors = file.schema_descr().columns().to_vec();
        let mut group = file.next_row_group()?;
        for (field, descriptor) in schema.fields().iter().zip(&descriptors) {
            let dictionary = match field.name().as_str() {
                "start_ns" => {
                    let mut column = group.next_column()?.ok_or_else(missing_column)?;
                    column.typed::<Int64Type>().write_batch(&self.start_ns, None, None)?;
                    column.close()?;
                    continue;
                }
                "end_ns" => {
                    let mut column = group.next_column()?.ok_or_else(missing_column)?;
                    column.typed::<Int64Type>().write_batch(&self.end_ns, None, None)?;
                    column.close()?;
                    continue;
                }
                "correlation_id" => {
                    let mut column = group.next_column()?.ok_or_else(missing_column)?;
                    column
                        .typed::<Int32Type>()
                        .write_batch(&self.correlation_id, None, None)?;
                    column.close()?;
                    continue;
                }
                "graph_node_id" => {
                    let levels: Vec<i16> = self.graph_node_id.iter().map(|node| i16::from(*node != 0)).collect();
                    let nodes: Vec<i64> = self
                        .graph_node_id
                        .iter()
                        .filter(|node| **node != 0)
                        .map(|node| node.cast_signed())
                        .collect();
                    let mut column = group.next_column()?.ok_or_else(missing_column)?;
                    column.typed::<Int64Type>().write_batch(&nodes, Some(&levels), None)?;
                    column.close()?;
                    continue;
                }
                "window" => words(self.window.iter().copied()),
                name => self.signature_column(name, pid, names)?,
            };
            let (bytes, close) = dictionary.write(descriptor)?;
            group.append_column(&bytes, close)?;
        }
        group.close()?;
        Ok(())
    }

    /// A column that the signature decides.
    fn signature_column(&self, name: &str, pid: u32, names: &Names) -> Result<DictionaryColumn> {
        let number = |value: fn(&Signature) -> u32| self.spread(words(self.signatures.iter().map(value)));
        let signed = |value: fn(&Signature) -> i32| {
            self.spread(words(
                self.signatures.iter().map(|signature| value(signature).cast_unsigned()),
            ))
        };
        let text = |value: fn(&crate::schema::names::Name) -> &str| {
            let name_of = |signature: &Signature| names.get(signature.name).map_or("", value);
            self.spread(texts(self.signatures.iter().map(name_of)))
        };
        Ok(match name {
            "pid" => self.spread(words(self.signatures.iter().map(|_| pid))),
            "name" => text(|name| &name.demangled),
            "short_name" => text(|name| &name.short),
            "mangled_name" => text(|name| &name.mangled),
            "device_id" => number(|signature| signature.device_id),
            "context_id" => number(|signature| signature.context_id),
            "stream_id" => number(|signature| signature.stream_id),
            "graph_id" => self.spread(maybe_words(
                self.signatures
                    .iter()
                    .map(|signature| (signature.graph_id != 0).then_some(signature.graph_id)),
            )),
            "grid_x" => signed(|signature| signature.grid[0]),
            "grid_y" => signed(|signature| signature.grid[1]),
            "grid_z" => signed(|signature| signature.grid[2]),
            "block_x" => signed(|signature| signature.block[0]),
            "block_y" => signed(|signature| signature.block[1]),
            "block_z" => signed(|signature| signature.block[2]),
            "cluster_x" => number(|signature| signature.cluster[0]),
            "cluster_y" => number(|signature| signature.cluster[1]),
            "cluster_z" => number(|signature| signature.cluster[2]),
            "registers_per_thread" => number(|signature| signature.registers_per_thread),
            "static_shared_bytes" => number(|signature| signature.static_shared_bytes),
            "dynamic_shared_bytes" => number(|signature| signature.dynamic_shared_bytes),
            "local_bytes_per_thread" => number(|signature| signature.local_bytes_per_thread),
            "priority" => self.spread(maybe_words(
                self.signatures
                    .iter()
                    .map(|signature| signature.priority.map(i32::cast_unsigned)),
            )),
            // Filled by later stages.
            "nvtx_path" | "launch_nvtx_path" | "layer" | "layer_source" | "waves" | "theoretical_occupancy_pct" => {
                DictionaryColumn {
                    values: Vec::new(),
                    count: 0,
                    indices: vec![NULL; self.len()],
                }
            }
            other => return Err(ParquetError::General(format!("no source for the column `{other}`"))),
        })
    }

    /// From a value a signature to a value a row.
    fn spread(&self, column: DictionaryColumn) -> DictionaryColumn {
        let of_signature = column.indices;
        let indices = self
            .signature
            .iter()
            .map(|number| of_signature.get(*number as usize).copied().unwrap_or(NULL))
            .collect();
        DictionaryColumn { indices, ..column }
    }
}

fn missing_column() -> ParquetError {
    ParquetError::General("the file's schema has fewer columns than the table".to_owned())
}

fn words(values: impl Iterator<Item = u32>) -> DictionaryColumn {
    maybe_words(values.map(Some))
}

fn maybe_words(values: impl Iterator<Item = Option<u32>>) -> DictionaryColumn {
    distinct(values, |word, out| out.extend_from_slice(&word.to_le_bytes()))
}

fn texts<'a>(values: impl Iterator<Item = &'a str>) -> DictionaryColumn {
    distinct(values.map(Some), |text, out| {
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    })
}

fn distinct<T: std::hash::Hash + Eq + Copy>(
    values: impl Iterator<Item = Option<T>>,
    encode: impl Fn(T, &mut Vec<u8>),
) -> DictionaryColumn {
    let mut known: HashMap<T, u32, BuildHasherDefault<WordHasher>> = HashMap::default();
    let mut column = DictionaryColumn {
        values: Vec::new(),
        count: 0,
        indices: Vec::new(),
    };
    for value in values {
        let index = match value {
            None => NULL,
            Some(value) => *known.entry(value).or_insert_with(|| {
                encode(value, &mut column.values);
                column.count += 1;
                column.count as u32 - 1
            }),
        };
        column.indices.push(index);
    }
    column
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::segments::Segments;
    use crate::schema::columns::TableBuilder;
    use crate::schema::tables::KernelsBuilder;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int32Type as I32, Int64Type as I64, UInt32Type as U32, UInt64Type as U64};
    use arrow_array::{Array, RecordBatch};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use proptest::prelude::*;

    fn signature(name: u32, number: u32) -> Signature {
        Signature {
            name,
            device_id: number % 3,
            context_id: 1,
            stream_id: 7 + number,
            graph_id: number % 2,
            grid: [number.cast_signed(), 2, 3],
            block: [128, 1, 1],
            cluster: [number, 0, 0],
            registers_per_thread: 32,
            static_shared_bytes: number * 16,
            dynamic_shared_bytes: 0,
            local_bytes_per_thread: 0,
            priority: (!number.is_multiple_of(3)).then_some(-number.cast_signed()),
        }
    }

    /// Writes kernels to a segment and reads them back with Parquet's own reader.
    fn round_trip(launches: &[(Launch, Signature)], names: &Names) -> Vec<RecordBatch> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let table = KernelsBuilder::table();
        let schema = table.arrow_schema();
        let mut segments = Segments::new(folder.path(), table.name, "1-1", schema.clone());
        let mut kernels = Kernels::default();
        for (launch, signature) in launches {
            kernels.push(*launch, *signature);
        }
        segments
            .seal_with(|file| kernels.write(file, &schema, 42, names))
            .expect("the segment is written");
        let file = std::fs::File::open(folder.path().join("kernels/1-1/000001.parquet")).expect("sealed");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet opens it");
        assert_eq!(reader.schema().fields(), schema.fields(), "the schema is the table's");
        reader
            .build()
            .expect("a reader")
            .collect::<Result<_, _>>()
            .expect("every row reads")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_is_pushed_is_read_back(
            runs in proptest::collection::vec((0_u32..40, 1_usize..40, 0_u64..3, 1_i64..5_000), 1..60)
        ) {
            let mut names = Names::default();
            let ids: Vec<_> = (0..7).map(|number| names.intern(format!("kernel_{number}").as_bytes())).collect();
            let mut launches = Vec::new();
            let mut clock = 1_700_000_000_000_000_000;
            for (number, length, node, step) in runs {
                for index in 0..length {
                    clock += step;
                    let launch = Launch {
                        start_ns: clock,
                        end_ns: clock + step,
                        correlation_id: (u32::MAX - 20).wrapping_add(number),
                        graph_node_id: if node == 0 { 0 } else { (node << 63) | (index as u64 + 1) },
                        window: number / 8 + 1,
                    };
                    launches.push((launch, signature(ids[number as usize % 7], number)));
                }
            }
            let mut expected = launches.iter();
            for batch in round_trip(&launches, &names) {
                let column = |name: &str| batch.column_by_name(name).expect("the column is there").clone();
                let name = column("name");
                let name = name.as_dictionary::<I32>().downcast_dict::<arrow_array::StringArray>().expect("text");
                for row in 0..batch.num_rows() {
                    let (launch, signature) = expected.next().expect("no row too many");
                    prop_assert_eq!(column("pid").as_primitive::<U32>().value(row), 42);
                    prop_assert_eq!(column("start_ns").as_primitive::<I64>().value(row), launch.start_ns);
                    prop_assert_eq!(column("end_ns").as_primitive::<I64>().value(row), launch.end_ns);
                    prop_assert_eq!(column("correlation_id").as_primitive::<U32>().value(row), launch.correlation_id);
                    prop_assert_eq!(column("window").as_primitive::<U32>().value(row), launch.window);
                    prop_assert_eq!(column("stream_id").as_primitive::<U32>().value(row), signature.stream_id);
                    prop_assert_eq!(column("grid_x").as_primitive::<I32>().value(row), signature.grid[0]);
                    let priority = column("priority");
                    let priority = priority.as_primitive::<I32>();
                    prop_assert_eq!(priority.is_valid(row).then(|| priority.value(row)), signature.priority);
                    let node = column("graph_node_id");
                    let node = node.as_primitive::<U64>();
                    let node = if node.is_valid(row) { node.value(row) } else { 0 };
                    prop_assert_eq!(node, launch.graph_node_id);
                    let text = arrow_array::ArrayAccessor::value(&name, row);
                    prop_assert_eq!(text, &names.get(signature.name).expect("interned").demangled);
                    prop_assert!(column("layer").is_null(row));
                }
            }
            prop_assert!(expected.next().is_none(), "no row too few");
        }
    }

    #[test]
    fn every_column_of_the_table_has_a_source() {
        let names = Names::default();
        let batches = round_trip(
            &[(
                Launch {
                    start_ns: 1,
                    end_ns: 2,
                    correlation_id: 3,
                    graph_node_id: 0,
                    window: 1,
                },
                signature(0, 1),
            )],
            &names,
        );
        assert_eq!(batches[0].num_rows(), 1);
        assert_eq!(batches[0].num_columns(), KernelsBuilder::table().columns.len());
        assert!(
            batches[0]
                .column_by_name("graph_id")
                .expect("there")
                .as_primitive::<U32>()
                .is_valid(0)
        );
    }

    #[test]
    fn columns_longer_than_a_page_read_back() {
        let names = Names::default();
        let rows = 300_001_u32;
        let launches: Vec<_> = (0..rows)
            .map(|number| {
                let launch = Launch {
                    start_ns: i64::from(number) * 10,
                    end_ns: i64::from(number) * 10 + 5,
                    correlation_id: number,
                    graph_node_id: u64::from(number % 5),
                    window: 1 + number / 131_000,
                };
                // Runs, single values, and more signatures than 16 bits count.
                (launch, signature(0, if number < 150_000 { number / 9 } else { number }))
            })
            .collect();
        let mut row = 0_u32;
        for batch in round_trip(&launches, &names) {
            let streams = batch
                .column_by_name("stream_id")
                .expect("there")
                .as_primitive::<U32>()
                .clone();
            let windows = batch
                .column_by_name("window")
                .expect("there")
                .as_primitive::<U32>()
                .clone();
            let graphs = batch
                .column_by_name("graph_id")
                .expect("there")
                .as_primitive::<U32>()
                .clone();
            for index in 0..batch.num_rows() {
                let (launch, signature) = &launches[row as usize];
                assert_eq!(streams.value(index), signature.stream_id, "row {row}");
                assert_eq!(windows.value(index), launch.window, "row {row}");
                assert_eq!(graphs.is_null(index), signature.graph_id == 0, "row {row}");
                row += 1;
            }
        }
        assert_eq!(row, rows);
    }

    #[test]
    fn a_cleared_builder_starts_over() {
        let mut kernels = Kernels::default();
        kernels.push(
            Launch {
                start_ns: 1,
                end_ns: 2,
                correlation_id: 3,
                graph_node_id: 0,
                window: 1,
            },
            signature(0, 1),
        );
        kernels.clear();
        assert_eq!((kernels.len(), kernels.signatures.len()), (0, 0));
    }
}
