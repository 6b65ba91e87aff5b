//! The TypeScript compiler's word on `types/bindings`: they compile under `--strict`, accept what serde really writes
//! (`typescript/samples.ts`), and serve a client as they should (`typescript/usage.ts`).
//!
//! Needs Node with npm, which fetches the compiler once into the target folder. Without them, leave these tests out:
//! `cargo test -- --skip typescript_compiler`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

/// The compiler, pinned: another version may find other errors, and that should be a change of its own.
const COMPILER: &str = "typescript@7.0.2";

/// The compiler's script, fetched at the first call.
fn compiler() -> &'static Path {
    static COMPILER_SCRIPT: OnceLock<PathBuf> = OnceLock::new();
    COMPILER_SCRIPT.get_or_init(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = cache.join(COMPILER);
        let script = Path::new("node_modules/typescript/bin/tsc");
        if !folder.join(script).exists() {
            // Beside it and renamed at the end, so that a run that is cut off leaves no half of a compiler behind.
            let partial = cache.join(format!("{COMPILER}.{}", std::process::id()));
            fs::create_dir_all(&partial).unwrap();
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--no-save", "--no-package-lock", "--prefix"]);
            let output = run(npm.arg(&partial).arg(COMPILER));
            assert!(output.status.success(), "npm can't install {COMPILER}:\n{}", text(&output));
            if fs::rename(&partial, &folder).is_err() {
                // Another run was faster.
                fs::remove_dir_all(&partial).unwrap();
            }
        }
        folder.join(script)
    })
}

fn run(command: &mut Command) -> Output {
    let program = command.get_program().to_owned();
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!(
            "{}: {error}; this test needs Node with npm (without: `cargo test -- --skip typescript_compiler`)",
            program.display()
        )
    })
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn compile(project: &Path) -> Output {
    run(Command::new("node").arg(compiler()).arg("--project").arg(project))
}

#[test]
fn typescript_compiler_accepts_the_bindings_and_the_json() {
    let output = compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/typescript"));
    assert!(output.status.success(), "the bindings don't type-check:\n{}", text(&output));
}

/// The test above could pass because nothing is looked at; this one fails then.
#[test]
fn typescript_compiler_refuses_json_that_does_not_fit() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("typescript-misfit");
    fs::create_dir_all(&folder).unwrap();
    let bindings = crate_folder.join("bindings/index.js");
    let base = crate_folder.join("tests/typescript/tsconfig.json");
    fs::write(
        folder.join("misfit.ts"),
        format!(
            "import type {{ FileWritten }} from {bindings:?};\n\
             export const misfit: FileWritten = {{ version: \"v\", size: \"large\", created: true }};\n"
        ),
    )
    .unwrap();
    let project = format!("{{ \"extends\": {base:?}, \"include\": [\"misfit.ts\"] }}");
    fs::write(folder.join("tsconfig.json"), project).unwrap();
    let output = compile(&folder);
    let expected = "Type 'string' is not assignable to type 'number'";
    assert!(!output.status.success() && text(&output).contains(expected), "{}", text(&output));
}
