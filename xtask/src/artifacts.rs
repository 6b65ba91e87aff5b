//! What is built: the agent, the command line, the core image, the generated files.

use std::{
    env::{self, consts::ARCH},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{config::Config, engine::Address, progress, test::tally};

/// Package and arguments of the tests that compare committed files with what they are generated from.
const GENERATING_TESTS: &[&[&str]] = &[
    // types/bindings, types/schema, types/mcp, types/openapi, types/tests/typescript/samples.ts
    &["corehold-types", "--test", "bindings"],
    // docs/limits.md
    &["corehold-agent", "--test", "limits"],
    // host-lib/schema
    &["corehold-host", "--test", "published"],
];

/// Builds things, each into its place in the target folder.
pub(crate) struct Artifacts<'a> {
    config: &'a Config,
}

impl<'a> Artifacts<'a> {
    pub(crate) fn new(config: &'a Config) -> Self {
        Self { config }
    }

    /// A cargo that works on this repository, wherever it is called from.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.config.cargo);
        command.args(arguments).current_dir(&self.config.repository);
        command
    }

    /// The agent's folder and target. It has a target folder of its own: other flags would throw away what is built.
    fn agent_target(&self) -> (PathBuf, String) {
        (self.config.target.join("agent"), format!("{ARCH}-unknown-linux-gnu"))
    }

    /// Where the agent's binary is, once it is built.
    pub(crate) fn agent(&self) -> PathBuf {
        let (folder, target) = self.agent_target();
        folder.join(target).join("agent/corehold-agent")
    }

    /// Where the command line's binary is, once it is built. A debug build: it compiles in a fraction of the time, shares
    /// its dependencies with the tests, and the work that takes time is the engine's and the agent's.
    pub(crate) fn cli(&self) -> PathBuf {
        self.config.target.join("debug/corehold")
    }

    pub(crate) fn build_agent(&self) -> Result<PathBuf> {
        progress::step("Build the agent (static, optimized; some minutes the first time)", || {
            let (folder, target) = self.agent_target();
            let mut cargo =
                self.cargo(&["build", "--profile", "agent", "--package", "corehold-agent", "--target", &target]);
            cargo.env("CARGO_TARGET_DIR", folder).env("RUSTFLAGS", static_flags(&c_library()));
            cargo.env(format!("CFLAGS_{}", target.replace('-', "_")), ZSTD_WITHOUT);
            progress::run(&mut cargo)?;
            let agent = self.agent();
            check_static(&agent)?;
            // A program that is linked wrongly may be killed before its first line.
            progress::run(Command::new(&agent).arg("--version"))?;
            Ok(agent)
        })
    }

    pub(crate) fn build_cli(&self) -> Result<()> {
        progress::step("Build the command line", || {
            let mut cargo = self.cargo(&["build", "--package", "corehold"]);
            progress::run(cargo.env("CARGO_TARGET_DIR", &self.config.target))
        })
    }

    /// Builds the core image, unless it is there already from the same sources.
    pub(crate) fn build_image(&self, engine: &Address) -> Result<()> {
        progress::step("Build the core image", || progress::run(self.corehold(engine).args(["image", "build"])))
    }

    /// Runs `corehold up` in the user's terminal and folder; its exit code is ours.
    pub(crate) fn up(&self, engine: &Address, arguments: &[OsString]) -> Result<ExitCode> {
        let mut corehold = self.corehold(engine);
        corehold.arg("up").args(arguments);
        eprintln!("==> {}", progress::line(&corehold));
        let status = corehold.status().with_context(|| format!("can't run {}", self.cli().display()))?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
    }

    /// The command line with what it needs to find.
    fn corehold(&self, engine: &Address) -> Command {
        let mut command = Command::new(self.cli());
        self.tell_places(&mut command, engine);
        command
    }

    /// Tells a program where things are that it could otherwise only guess.
    pub(crate) fn tell_places(&self, command: &mut Command, engine: &Address) {
        // The base is made by programs that only root's path has.
        if let Ok(path) = env::join_paths(&self.config.path) {
            command.env("PATH", path);
        }
        command.env("DOCKER_HOST", &engine.0);
        command.env("COREHOLD_AGENT", self.agent());
        command.env("COREHOLD_CLI", self.cli());
        command.env("COREHOLD_TEMPLATES", &self.config.templates);
    }

    /// Runs the tests that compare generated files, so that they write them.
    pub(crate) fn generate(&self) -> Result<()> {
        progress::step(
            "Write TypeScript bindings, samples, JSON Schemas, the OpenAPI document, the list of tools for models and the page of limits",
            || {
                for tests in GENERATING_TESTS {
                    let mut cargo = self.cargo(&["test", "--quiet", "--package"]);
                    let (tally, succeeded) = tally::count(cargo.args(*tests).env("COREHOLD_UPDATE", "1"))?;
                    ensure!(succeeded, "the generated files can't be written");
                    // A test that was renamed would leave its file as it is, and nobody would know.
                    ensure!(tally.passed > 0, "`{}` runs no test", progress::line(&cargo));
                }
                Ok(())
            },
        )
    }
}

/// Checks that a program runs in a container that holds nothing else: no interpreter, no shared library.
fn check_static(program: &Path) -> Result<()> {
    let content = fs::read(program).with_context(|| format!("can't read {}", program.display()))?;
    let interpreter = has_interpreter(&content).with_context(|| program.display().to_string())?;
    ensure!(!interpreter, "{} is linked dynamically, so it would not start in every container", program.display());
    Ok(())
}

/// The C library of this machine, which the agent is linked with, as `getconf` names it; empty if it isn't glibc.
fn c_library() -> String {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// What the agent has no use for of zstd: it compresses by the quick levels, which take other ways. 0.25 MB.
const ZSTD_WITHOUT: &str = "-DZSTD_EXCLUDE_GREEDY_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_LAZY_BLOCK_COMPRESSOR \
    -DZSTD_EXCLUDE_LAZY2_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_BTLAZY2_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_BTOPT_BLOCK_COMPRESSOR \
    -DZSTD_EXCLUDE_BTULTRA_BLOCK_COMPRESSOR";

/// How a static program is compiled and linked. Its relocations are packed where the C library that it starts with can unpack
/// them, which glibc can from 2.36 on: the agent is 0.45 MB smaller. Elsewhere than on x86-64, linkers don't all know how.
fn static_flags(c_library: &str) -> String {
    let version = c_library.strip_prefix("glibc 2.").and_then(|minor| minor.parse::<u32>().ok());
    let packs = ARCH == "x86_64" && version.is_some_and(|minor| minor >= 36);
    let packing = if packs { " -C link-arg=-Wl,-z,pack-relative-relocs" } else { "" };
    format!("-C target-feature=+crt-static{packing}")
}

/// Whether an ELF program asks for a dynamic linker: whether it has a program header of type `PT_INTERP` (elf(5)).
fn has_interpreter(content: &[u8]) -> Result<bool> {
    const PT_INTERP: u32 = 3;
    let bytes = |offset: usize, length: usize| content.get(offset..offset + length).context("the ELF file is cut off");
    let number = |offset: usize, length: usize| -> Result<usize> {
        Ok(bytes(offset, length)?.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    // 64 bits, little-endian: what every machine that we build for has.
    if bytes(0, 6)? != b"\x7fELF\x02\x01" {
        bail!("not a 64-bit little-endian ELF file");
    }
    let (headers, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    for index in 0..count {
        if number(headers + index * size, 4)? == PT_INTERP as usize {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_refused() {
        // This test itself asks for the dynamic linker.
        let this = std::env::current_exe().unwrap();
        assert!(check_static(&this).unwrap_err().to_string().contains("linked dynamically"));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn relocations_are_packed_where_they_can_be_unpacked() {
        for (c_library, packs) in [("glibc 2.36", true), ("glibc 2.41", true), ("glibc 2.35", false), ("", false)] {
            assert_eq!(static_flags(c_library).contains("pack-relative-relocs"), packs, "{c_library}");
        }
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(has_interpreter(b"#!/bin/sh\n").is_err());
        assert!(has_interpreter(b"\x7fELF").is_err());
        assert!(has_interpreter(b"\x7fELF\x02\x01").is_err());
    }

    #[test]
    fn a_program_without_headers_of_a_linker_is_static() {
        let mut content = vec![0; 64 + 56];
        content[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (content[0x20], content[0x36], content[0x38]) = (64, 56, 1);
        content[64] = 1;
        assert!(!has_interpreter(&content).unwrap());
        content[64] = 3;
        assert!(has_interpreter(&content).unwrap());
    }
}
