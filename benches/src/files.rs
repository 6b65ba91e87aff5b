//! Folders of files to measure with.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

/// Makes a template of this many files of some `bytes` each, ten to a folder: text that compresses as source code does, and no two alike.
/// Returns path and content of the last one.
///
/// # Errors
/// When they can't be written.
pub fn template(folder: &Path, files: usize, bytes: usize) -> Result<(String, Vec<u8>)> {
    let mut last = (String::new(), Vec::new());
    for number in 0..files {
        let name = format!("src/part-{}/file-{number}.txt", number / 10);
        let path = folder.join(&name);
        fs::create_dir_all(path.parent().context("it is in a folder")?)?;
        let lines = (0..bytes / 25).map(|line| format!("line {:>18}\n", line * 7919 * (number + 1) % 1_000_003));
        last = (name, lines.collect::<String>().into_bytes());
        fs::write(&path, &last.1)?;
    }
    fs::write(folder.join("template.json"), r#"{"name": "files", "setup": []}"#)?;
    Ok(last)
}
