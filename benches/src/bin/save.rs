//! Saving a workspace of at least 20,000 files to disk beside `docker cp` and gzip, and saving it again after one file has changed.
//!
//! Usage: `save ROUNDS FOLDER…`: the folders' files become a template. Needs an engine at /var/run/docker.sock, the docker command, and
//! the core image.

use std::{fs, path::Path, process::Command, sync::Arc, time::Instant};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::figures::Samples;
use corehold_host::{
    ArchiveStore, CreateWorkspace, Host, SaveOptions, Template, Workspace,
    runtime::docker::{Docker, DockerAddress},
};

const LEAST: usize = 20_000;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rounds, folders @ ..] = arguments.as_slice() else { anyhow::bail!("usage: save ROUNDS FOLDER…") };
    let rounds: u32 = rounds.parse()?;
    let scratch = tempfile::tempdir()?;
    let template = scratch.path().join("template");
    let mut files = 0;
    for (index, folder) in folders.iter().enumerate() {
        files += copy(Path::new(folder), &template.join(index.to_string()))?;
    }
    ensure!(files >= LEAST, "{files} files; give more folders, for at least {LEAST}");
    let docker = Arc::new(Docker::connect(DockerAddress::Auto).await?);
    let host = keeping_in(&docker, scratch.path(), "archives").await?;
    let workspace = filled(&host, &template).await?;
    fs::remove_dir_all(&template)?;
    let measured = measure(&workspace, &docker, scratch.path(), rounds).await;
    workspace.remove().await?;
    measured
}

async fn keeping_in(docker: &Arc<Docker>, scratch: &Path, store: &str) -> Result<Host> {
    let builder = Host::builder().runtime(docker.clone()).home(scratch.join("home"));
    Ok(builder.archive_store(ArchiveStore::folder(scratch.join(store))).build().await?)
}

async fn measure(workspace: &Workspace, docker: &Arc<Docker>, scratch: &Path, rounds: u32) -> Result<()> {
    let container = workspace.info().await?.container.context("it runs, so it has a container")?;
    let (mut ours, mut verified, mut theirs, mut again) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    let mut sizes = (0, 0);
    let idle = peak_memory()?;
    for round in 0..rounds {
        for (samples, verify) in [(&mut ours, false), (&mut verified, true)] {
            let store = format!("archives-{round}-{verify}");
            let fresh = keeping_in(docker, scratch, &store).await?;
            let began = Instant::now();
            fresh.archives().save(workspace, SaveOptions::default().verify(verify)).await?;
            samples.add(began.elapsed());
            if verify {
                workspace.write_file("changed.txt", format!("in round {round}")).await?;
                let began = Instant::now();
                fresh.archives().save(workspace, SaveOptions::default().verify(false)).await?;
                again.add(began.elapsed());
            }
            sizes.0 = size(&scratch.join(&store))?;
            fs::remove_dir_all(scratch.join(&store))?;
        }
        let file = scratch.join("theirs.tar.gz");
        let line = format!("docker cp {container}:/app - | gzip > {}", file.display());
        let began = Instant::now();
        ensure!(Command::new("sh").args(["-c", &line]).status()?.success(), "{line}");
        theirs.add(began.elapsed());
        sizes.1 = fs::metadata(&file)?.len();
    }
    println!("save, read back:                 {verified}");
    println!("save, not read back:             {ours}");
    println!("docker cp | gzip:                {theirs}");
    println!(
        "ours takes of theirs:            {:.2}, not read back {:.2}",
        verified.ratio_to(&theirs),
        ours.ratio_to(&theirs)
    );
    println!("save after one file has changed: {again}");
    println!("on disk:                         {:.1} MB, theirs {:.1} MB", megabytes(sizes.0), megabytes(sizes.1));
    println!("our memory: {:.1} MB before, {:.1} MB at most", megabytes(idle), megabytes(peak_memory()?));
    Ok(())
}

/// A workspace with the files of a folder.
async fn filled(host: &Host, folder: &Path) -> Result<Workspace> {
    fs::write(folder.join("template.json"), r#"{"name": "files", "setup": []}"#)?;
    Ok(host.create(CreateWorkspace::from_template(&Template::load(folder)?)).await?)
}

/// Copies files, and returns how many; links and what is special are left out.
fn copy(from: &Path, to: &Path) -> Result<usize> {
    fs::create_dir_all(to)?;
    let mut copied = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copied += copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
            copied += 1;
        }
    }
    Ok(copied)
}

/// The bytes of all files beneath a folder.
fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

/// Bytes of this process's memory at their most so far (proc(5), `VmHWM`).
fn peak_memory() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("proc says VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? << 10)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
