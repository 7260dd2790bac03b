//! The table as reviewable text: the golden matrix, and the diagram in `STATES.md`.

use std::path::{Path, PathBuf};

use nvmeof_recoverer::plan::relocate::transitions;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate lies two levels below the root")
        .to_path_buf()
}

/// Compares with the file, or writes it when `UPDATE_GOLDEN` is set.
fn golden(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        #[expect(clippy::disallowed_methods, reason = "a deliberate change of a golden file")]
        std::fs::write(path, text).expect("golden files can be written");
    }
    let known = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        known == text,
        "{} is not what the table says; if the change is meant, run with UPDATE_GOLDEN=1 and \
         review the difference",
        path.display()
    );
}

#[test]
fn every_cell_of_the_table_is_in_the_golden_matrix() {
    golden(&root().join("tests/scenarios/relocation-matrix.txt"), &transitions::matrix());
}

#[test]
fn the_state_diagram_is_drawn_from_the_table() {
    let text = format!(
        "# The states of a move\n\nGenerated from the transition table \
         (`crates/nvmeof-recoverer/src/plan/relocate/transitions.rs`); do not edit. The table \
         itself, cell by cell, is `tests/scenarios/relocation-matrix.txt`.\n\n{}",
        transitions::diagram()
    );
    golden(&root().join("crates/nvmeof-recoverer/STATES.md"), &text);
}
