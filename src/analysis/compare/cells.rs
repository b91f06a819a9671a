//! Steps in order, each with the time of every row in it. Of a long session neighbours are taken together, so that memory
//! and the bootstrap's time do not grow with its length.

use crate::analysis::steps::Item;

/// Cells of a series at most: many more than a bootstrap has blocks.
const MOST: usize = 1024;

/// What a row has in a cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RowSum {
    pub(crate) row: u32,
    pub(crate) ns: i64,
    pub(crate) launches: u64,
}

/// One step, or several in a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Cell {
    pub(crate) start_ns: i64,
    pub(crate) steps: u64,
    /// Steps from the start of the first kernel to the end of the last, ns.
    pub(crate) length_ns: i64,
    /// Time in all kernels, ns.
    pub(crate) kernels_ns: i64,
    /// By row, each once.
    pub(crate) rows: Vec<RowSum>,
}

impl Cell {
    /// Of one step. `row_of` numbers the row of a kernel.
    pub(crate) fn of(step: &[Item], mut row_of: impl FnMut(&Item) -> u32) -> Self {
        let start_ns = step.first().map_or(0, |item| item.start_ns);
        let end_ns = step.iter().map(|item| item.end_ns).max().unwrap_or(start_ns);
        let sums = step.iter().map(|item| RowSum {
            row: row_of(item),
            ns: item.end_ns.saturating_sub(item.start_ns),
            launches: 1,
        });
        let mut rows: Vec<RowSum> = sums.collect();
        let kernels_ns = rows.iter().fold(0, |sum: i64, row| sum.saturating_add(row.ns));
        sum_up(&mut rows);
        Self {
            start_ns,
            steps: 1,
            length_ns: end_ns.saturating_sub(start_ns),
            kernels_ns,
            rows,
        }
    }

    fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.length_ns = self.length_ns.saturating_add(other.length_ns);
        self.kernels_ns = self.kernels_ns.saturating_add(other.kernels_ns);
        self.rows.extend(other.rows);
        sum_up(&mut self.rows);
    }
}

/// Each row once.
fn sum_up(rows: &mut Vec<RowSum>) {
    rows.sort_unstable_by_key(|sum| sum.row);
    rows.dedup_by(|next, kept| {
        let is_same = next.row == kept.row;
        if is_same {
            kept.ns = kept.ns.saturating_add(next.ns);
            kept.launches += next.launches;
        }
        is_same
    });
}

/// Steps of one kind on one device, in order.
#[derive(Debug)]
pub(crate) struct Series {
    cells: Vec<Cell>,
    steps_a_cell: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            cells: Vec::new(),
            steps_a_cell: 1,
        }
    }
}

impl Series {
    pub(crate) fn push(&mut self, cell: Cell) {
        match self.cells.last_mut() {
            Some(last) if last.steps < self.steps_a_cell => last.add(cell),
            _ => self.cells.push(cell),
        }
        if self.cells.len() > MOST {
            let mut cells = std::mem::take(&mut self.cells).into_iter();
            self.steps_a_cell *= 2;
            while let Some(mut cell) = cells.next() {
                if let Some(next) = cells.next() {
                    cell.add(next);
                }
                self.cells.push(cell);
            }
        }
    }

    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_series_keeps_its_sums() {
        let mut series = Series::default();
        for step in 0..5_000_i64 {
            series.push(Cell {
                start_ns: step * 10,
                steps: 1,
                length_ns: 7,
                kernels_ns: step,
                rows: vec![RowSum {
                    row: u32::try_from(step % 3).unwrap(),
                    ns: step,
                    launches: 2,
                }],
            });
        }
        let cells = series.cells();
        assert!(cells.len() <= MOST && cells.len() > MOST / 2, "{}", cells.len());
        assert!(cells.is_sorted_by_key(|cell| cell.start_ns));
        assert!(cells[..cells.len() - 1].iter().all(|cell| cell.steps == 8));
        let total = |of: fn(&Cell) -> i64| cells.iter().map(of).sum::<i64>();
        assert_eq!(total(|cell| cell.length_ns), 7 * 5_000);
        assert_eq!(total(|cell| cell.kernels_ns), 4_999 * 2_500);
        assert_eq!(total(|cell| cell.rows.iter().map(|row| row.ns).sum()), 4_999 * 2_500);
        assert_eq!(
            total(|cell| cell.rows.iter().map(|row| row.launches as i64).sum()),
            10_000
        );
        assert!(cells.iter().all(|cell| cell.rows.is_sorted_by_key(|row| row.row)));
    }
}
