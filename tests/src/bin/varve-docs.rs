//! Writes the reference pages that are made from the code's own tables. `cargo xtask docs` runs this.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (path, text) in varve_tests::reference_pages() {
        if fs::read_to_string(root.join(path)).is_ok_and(|there| there == text) {
            println!("{path}: as it was");
        } else {
            fs::write(root.join(path), text).with_context(|| format!("writing {path}"))?;
            println!("{path}: written");
        }
    }
    Ok(())
}
