//! A table with aligned columns.

use super::paint;

pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        Self {
            rows: vec![header.iter().map(|&cell| cell.to_owned()).collect()],
        }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // An empty cell would look like a missing one to whoever cuts columns.
        let cells = cells.into_iter().map(|cell| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                cell
            }
        });
        self.rows.push(cells.collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub(super) fn render(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                // The last column is not padded: a long text would wrap for nothing.
                let padding = if column + 1 == columns {
                    0
                } else {
                    widths[column] + 2 - cell.chars().count()
                };
                let cell = if number == 0 {
                    cell.clone()
                } else {
                    paint::by_meaning(cell)
                };
                line.push_str(&cell);
                line.push_str(&" ".repeat(padding));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_no_cell_is_empty() {
        let mut table = Table::new(&["POD", "STATE", "WHY"]);
        table.row(["a".into(), String::new(), "x y".into()]);
        table.row(["a-long-one".into(), "up".into(), String::new()]);
        assert_eq!(
            table.render(),
            "POD         STATE  WHY\na           -      x y\na-long-one  up     -\n"
        );
    }
}
