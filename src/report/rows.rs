//! Rows of any columns, as an answer to SQL has them.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::names::{printable, shortened};

/// Spaces between two columns.
const GAP: usize = 2;
/// What a column is not cut below.
const LEAST: usize = 12;

/// Lays rows out under their heads. Where they are wider than `width`, the widest texts are cut.
pub fn rows_table(heads: &[String], rows: &[Vec<String>], width: usize) -> String {
    let widths = widths(heads, rows, width);
    let cell = |(text, &width): (&String, &usize)| shortened(&printable(text), width);
    let line = |row: &[String]| row.iter().zip(&widths).map(cell).collect::<Vec<_>>();
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(line(heads));
    table.add_rows(rows.iter().map(|row| line(row)));
    for column in 0..heads.len() {
        let Some(laid) = table.column_mut(column) else { continue };
        laid.set_padding((0, u16::try_from(GAP).unwrap_or(0)));
        if is_numeric(rows, column) {
            laid.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Numbers stand right.
fn is_numeric(rows: &[Vec<String>], column: usize) -> bool {
    let mut cells = rows
        .iter()
        .map(|row| row[column].as_str())
        .filter(|cell| *cell != "NULL");
    let number = |cell: &str| cell.parse::<f64>().is_ok();
    cells.next().is_some_and(number) && cells.all(number)
}

/// Numbers keep their digits.
fn widths(heads: &[String], rows: &[Vec<String>], width: usize) -> Vec<usize> {
    let natural = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(heads[column].chars().count())
    };
    let mut widths: Vec<usize> = (0..heads.len()).map(natural).collect();
    let texts: Vec<usize> = (0..heads.len()).filter(|&column| !is_numeric(rows, column)).collect();
    loop {
        let total: usize = widths.iter().map(|width| width + GAP).sum();
        match texts.iter().copied().max_by_key(|&column| widths[column]) {
            Some(widest) if total > width && widths[widest] > LEAST => widths[widest] -= 1,
            _ => return widths,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
        texts.map(str::to_owned).to_vec()
    }

    #[test]
    fn numbers_stand_right_and_the_widest_is_cut() {
        let heads = texts(["name", "kernels"]);
        let rows = [
            texts(["a_kernel_with_a_very_long_name", "7"]),
            texts(["short\n", "NULL"]),
        ];
        let expected = "name               kernels\na_kernel_wi…_name        7\nshort?                NULL\n";
        assert_eq!(rows_table(&heads, &rows, 28), expected);
        assert_eq!(rows_table(&heads, &[], 80), "name  kernels\n");
    }
}
