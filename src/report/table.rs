//! Tables without borders that fit the terminal: columns that matter least are left out, and one column takes what is
//! left.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::report::names::shortened;

/// Width of a pipe or file, and of a table at most where the terminal does not say more.
const DEFAULT_WIDTH: usize = 120;
/// Spaces between two columns.
const GAP: usize = 2;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Head.
    pub(crate) head: &'static str,
    /// Numbers stand right.
    pub(crate) right: bool,
    /// The column with the smallest goes first where the terminal is narrow; `u8::MAX` stays.
    pub(crate) weight: u8,
}

/// Columns of the terminal that stdout is; 120 where it is none.
pub fn terminal_width() -> usize {
    terminal_size::terminal_size_of(std::io::stdout()).map_or(DEFAULT_WIDTH, |(width, _)| usize::from(width.0))
}

/// Lays a table out. The last column is cut to what the others leave, but not below `least`.
pub(crate) fn fit(columns: &[Column], rows: &[Vec<String>], width: usize, least: usize) -> String {
    let kept = choose(columns, rows, width, least);
    let last = columns.len() - 1;
    let others: usize = kept
        .iter()
        .filter(|&&column| column != last)
        .map(|&column| natural(columns, rows, column) + GAP)
        .sum();
    let room = width.saturating_sub(others).max(least);
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(
        kept.iter()
            .map(|&column| columns[column].head.to_owned())
            .collect::<Vec<_>>(),
    );
    for row in rows {
        let cell = |&column: &usize| {
            if column == last {
                shortened(&row[column], room)
            } else {
                row[column].clone()
            }
        };
        table.add_row(kept.iter().map(cell).collect::<Vec<_>>());
    }
    for (place, &column) in kept.iter().enumerate() {
        let Some(laid) = table.column_mut(place) else { continue };
        laid.set_padding((0, u16::try_from(GAP).unwrap_or(0)));
        if columns[column].right {
            laid.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn natural(columns: &[Column], rows: &[Vec<String>], column: usize) -> usize {
    let cells = rows.iter().map(|row| row[column].chars().count());
    cells.max().unwrap_or(0).max(columns[column].head.chars().count())
}

/// Columns that fit beside `least` of the last.
fn choose(columns: &[Column], rows: &[Vec<String>], width: usize, least: usize) -> Vec<usize> {
    let last = columns.len() - 1;
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    loop {
        let needed: usize = kept
            .iter()
            .map(|&column| {
                if column == last {
                    least
                } else {
                    natural(columns, rows, column) + GAP
                }
            })
            .sum();
        let lightest = kept
            .iter()
            .enumerate()
            .min_by_key(|&(_, &column)| columns[column].weight);
        match lightest {
            Some((place, &column)) if needed > width && columns[column].weight < u8::MAX => kept.remove(place),
            _ => return kept,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column {
            head: "count",
            right: true,
            weight: u8::MAX,
        },
        Column {
            head: "mean",
            right: true,
            weight: 1,
        },
        Column {
            head: "name",
            right: false,
            weight: u8::MAX,
        },
    ];

    fn rows() -> Vec<Vec<String>> {
        [
            ["1,204,118", "8.10 us", "a_kernel_with_a_long_name"],
            ["7", "12.0 ms", "short"],
        ]
        .map(|row| row.map(str::to_owned).to_vec())
        .to_vec()
    }

    #[test]
    fn wide() {
        let expected =
            "    count     mean  name\n1,204,118  8.10 us  a_kernel_with_a_long_name\n        7  12.0 ms  short\n";
        assert_eq!(fit(&COLUMNS, &rows(), 80, 8), expected);
    }

    #[test]
    fn narrow_cuts_the_name_and_then_drops_columns() {
        let text = fit(&COLUMNS, &rows(), 34, 8);
        assert_eq!(text.lines().nth(1).unwrap(), "1,204,118  8.10 us  a_kernel_…name");
        let text = fit(&COLUMNS, &rows(), 24, 8);
        assert_eq!(text.lines().nth(1).unwrap(), "1,204,118  a_kernel…name");
        assert!(
            fit(&COLUMNS, &rows(), 1, 8)
                .lines()
                .all(|line| line.chars().count() <= 19)
        );
    }
}
