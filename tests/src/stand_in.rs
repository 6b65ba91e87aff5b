//! The program that stands in for the agent where a test is about the engine.

use std::{path::PathBuf, process::Command, sync::OnceLock};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/stand_in.rs");

/// The static binary, compiled once for each version of its source.
///
/// # Panics
/// When it doesn't compile.
pub fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(compile).clone()
}

fn compile() -> PathBuf {
    let source = std::fs::read(SOURCE).expect("the source lies in the repository");
    let name = format!("corehold-stand-in-{}", &blake3::hash(&source).to_hex()[..12]);
    let binary = std::env::temp_dir().join(&name);
    if binary.exists() {
        return binary;
    }
    // Under a name of its own, so that another process never sees half of it.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let fresh = folder.path().join(&name);
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition", "2024", "-O", "-C", "strip=symbols", "-C", "target-feature=+crt-static"])
        .args(["--target", "x86_64-unknown-linux-gnu", "-o"])
        .arg(&fresh)
        .arg(SOURCE)
        .output()
        .expect("rustc starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&fresh, &binary).expect("the temporary folder is on the same file system");
    binary
}
