//! A table in order of start, streamed. Segments overlap in time little, so this holds the rows of few segments at
//! once: a row is given out when no part that is still to come can hold an earlier one.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array as _, ArrayRef, Int32Array, RecordBatch, UInt32Array};
use arrow_schema::{ArrowError, DataType, FieldRef, SchemaRef};
use arrow_select::concat::concat;
use arrow_select::take::take;

use crate::schema::manifest::Problem;
use crate::session::interner::Interner;
use crate::session::scan::{Part, Parts, problem};

/// Streams parts in order of `start_ns`, rows with equal starts in the order in which they were written. Where the
/// wanted columns have no `start_ns`, the parts follow each other as they are.
#[derive(Debug)]
pub struct SortedScan {
    wanted: SchemaRef,
    start: Option<usize>,
    interners: Vec<Interner>,
    parts: VecDeque<Part>,
    /// Rows that are next; text columns as keys of the common dictionary.
    ready: VecDeque<Vec<ArrayRef>>,
    /// Rows behind those, sorted.
    carry: Option<Vec<ArrayRef>>,
    problems: Vec<Problem>,
}

impl SortedScan {
    /// Streams these parts.
    pub fn new(parts: Parts, wanted: SchemaRef) -> Self {
        let start = wanted.column_with_name("start_ns").map(|(index, _)| index);
        let Parts { mut parts, problems } = parts;
        if start.is_some() {
            // A part that does not say its range may hold anything: first.
            parts.sort_by_key(|part| part.start_range().map_or(i64::MIN, |(min, _)| min));
        }
        let interners = wanted.fields().iter().map(|_| Interner::default()).collect();
        Self {
            wanted,
            start,
            interners,
            parts: parts.into(),
            ready: VecDeque::new(),
            carry: None,
            problems,
        }
    }

    /// Files that could not be read, wholly or from some row on.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Ends the scan and gives what could not be read.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    fn advance(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        while self.ready.is_empty()
            && let Some(part) = self.parts.pop_front()
        {
            let mut batches: Vec<_> = self.carry.take().into_iter().collect();
            self.read(&part, &mut batches)?;
            if self.are_in_order(&batches) {
                self.ready.extend(batches);
            } else if let Some(rows) = join(batches)? {
                let rows = self.sort(rows)?;
                let ready;
                (ready, self.carry) = self.split(rows);
                self.ready.extend(ready);
            }
        }
        let next = self.ready.pop_front().or_else(|| self.carry.take());
        next.map(|rows| self.resolve(rows)).transpose()
    }

    /// What can be read of a part: an error part way through leaves the rows before it.
    fn read(&mut self, part: &Part, batches: &mut Vec<Vec<ArrayRef>>) -> Result<(), ArrowError> {
        let reader = match part.read(&self.wanted) {
            Ok(reader) => reader,
            Err(error) => {
                self.problems.push(problem(part.path(), &error));
                return Ok(());
            }
        };
        for batch in reader {
            match batch {
                Ok(batch) => batches.push(self.intern(&batch)?),
                Err(error) => {
                    self.problems.push(problem(part.path(), &error));
                    break;
                }
            }
        }
        Ok(())
    }

    fn intern(&mut self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, ArrowError> {
        let intern = |(column, interner): (&ArrayRef, &mut Interner)| match column.data_type() {
            DataType::Dictionary(..) => Ok(Arc::new(interner.intern(column)?) as ArrayRef),
            _ => Ok(Arc::clone(column)),
        };
        batch.columns().iter().zip(&mut self.interners).map(intern).collect()
    }

    fn resolve(&mut self, rows: Vec<ArrayRef>) -> Result<RecordBatch, ArrowError> {
        let fields = self.wanted.fields().iter();
        let resolve = |((column, field), interner): ((ArrayRef, &FieldRef), &mut Interner)| match field.data_type() {
            DataType::Dictionary(..) => interner.resolve(column.as_primitive().clone() as Int32Array),
            _ => Ok(column),
        };
        let columns: Result<_, _> = rows
            .into_iter()
            .zip(fields)
            .zip(&mut self.interners)
            .map(resolve)
            .collect();
        RecordBatch::try_new(Arc::clone(&self.wanted), columns?)
    }

    /// Whether nothing that is still to come belongs before any of these rows, as in a compacted table.
    fn are_in_order(&self, batches: &[Vec<ArrayRef>]) -> bool {
        let Some(start) = self.start else { return true };
        let starts = batches
            .iter()
            .map(|batch| batch[start].as_primitive::<Int64Type>().values());
        let mut last = i64::MIN;
        let mut follows = |starts: &[i64]| {
            let follows = starts.first().is_none_or(|&first| last <= first) && starts.is_sorted();
            last = starts.last().copied().unwrap_or(last);
            follows
        };
        starts.into_iter().all(|starts| follows(starts)) && self.horizon().is_none_or(|horizon| last < horizon)
    }

    /// Rows that are still to come do not start before; `None` where there are none.
    fn horizon(&self) -> Option<i64> {
        let next = self.parts.front()?;
        Some(next.start_range().map_or(i64::MIN, |(min, _)| min))
    }

    fn sort(&self, rows: Vec<ArrayRef>) -> Result<Vec<ArrayRef>, ArrowError> {
        let Some(start) = self.start else { return Ok(rows) };
        let starts = rows[start].as_primitive::<Int64Type>().values();
        if starts.is_sorted() {
            return Ok(rows);
        }
        let count =
            u32::try_from(starts.len()).map_err(|_| ArrowError::ComputeError("too many rows at once".into()))?;
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_by_key(|&row| starts[row as usize]);
        let order = UInt32Array::from(order);
        rows.iter().map(|column| take(column, &order, None)).collect()
    }

    /// Rows before everything that is still to come, and the rest.
    fn split(&self, rows: Vec<ArrayRef>) -> (Option<Vec<ArrayRef>>, Option<Vec<ArrayRef>>) {
        let (Some(start), Some(horizon)) = (self.start, self.horizon()) else {
            return (Some(rows), None);
        };
        let starts = rows[start].as_primitive::<Int64Type>().values();
        let ready = starts.partition_point(|&start| start < horizon);
        let total = starts.len();
        let slice = |from: usize, length: usize| {
            (length > 0).then(|| rows.iter().map(|column| column.slice(from, length)).collect())
        };
        (slice(0, ready), slice(ready, total - ready))
    }
}

fn join(mut batches: Vec<Vec<ArrayRef>>) -> Result<Option<Vec<ArrayRef>>, ArrowError> {
    if batches.len() < 2 {
        return Ok(batches.pop());
    }
    let columns = batches[0].len();
    let join_column = |index: usize| {
        let parts: Vec<_> = batches.iter().map(|batch| batch[index].as_ref()).collect();
        concat(&parts)
    };
    (0..columns).map(join_column).collect::<Result<_, _>>().map(Some)
}

impl Iterator for SortedScan {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
