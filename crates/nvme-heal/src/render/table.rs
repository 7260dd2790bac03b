//! A table as wide as it needs to be, and no wider than the terminal.

use super::{Look, Tone};

/// Between two columns.
const GAP: usize = 2;
/// The last column is never cut below this.
const LEAST: usize = 12;

/// Rows of `N` cells, each with its tone.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    head: [&'static str; N],
    rows: Vec<[(String, Tone); N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [&'static str; N]) -> Self {
        Self { head, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: [(String, Tone); N]) {
        self.rows.push(cells);
    }

    /// The table's lines. Without an edge nothing is cut.
    pub(super) fn render(&self, look: &Look) -> String {
        let mut widths = self.head.map(columns);
        for row in &self.rows {
            for (width, (text, _)) in widths.iter_mut().zip(row) {
                *width = (*width).max(columns(text));
            }
        }
        let before: usize = widths[..N - 1].iter().map(|width| width + GAP).sum();
        if let Some(edge) = look.width {
            widths[N - 1] = widths[N - 1].min(edge.saturating_sub(before).max(LEAST));
        }
        let head = self.head.map(|title| (title.to_owned(), Tone::Faint));
        let mut out = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            line(&mut out, look, &widths, row);
        }
        out
    }
}

fn line(out: &mut String, look: &Look, widths: &[usize], row: &[(String, Tone)]) {
    let last = row.len() - 1;
    for (at, ((text, tone), width)) in row.iter().zip(widths).enumerate() {
        let cut = shortened(text, *width);
        out.push_str(&look.paint(*tone, &cut));
        if at < last {
            let rest = width.saturating_sub(columns(&cut)) + GAP;
            out.extend(std::iter::repeat_n(' ', rest));
        }
    }
    out.push('\n');
}

/// Names are ASCII and the marks take one column each.
fn columns(text: &str) -> usize {
    text.chars().count()
}

fn shortened(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(2)).collect();
    cut.push_str("..");
    cut
}
