//! An engine and an agent in memory, so that every failure can be had when it is wanted.

mod agent;
mod engine;

use std::{fs, path::PathBuf, sync::Arc};

pub(crate) use self::{
    agent::{AgentScript, AgentState, Answer, CommandLog, FakeAgent, Files, Route, TREE, ndjson, problem, reply},
    engine::{EngineCopy, EngineFault, EngineScript, FakeEngine},
};
use crate::{ArchiveStore, Class, Host, HostBuilder, PoolOptions, Template};

/// A file's content in each way in which it is cut off, or has one byte damaged, and which way that is.
pub(crate) fn damaged(whole: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..whole.len()).flat_map(|at| {
        let mut other = whole.to_vec();
        other[at] = 0xff;
        [(format!("cut off at {at}"), whole[..at].to_vec()), (format!("damaged at {at}"), other)]
    })
}

/// A host over a fake engine, with a home and a folder for templates of its own.
pub(crate) struct Fixture {
    pub(crate) host: Host,
    pub(crate) engine: Arc<FakeEngine>,
    folder: tempfile::TempDir,
}

impl Fixture {
    pub(crate) async fn new(engine: EngineScript, agent: AgentScript) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Arc::new(FakeEngine::new(engine, agent));
        let host = Host::builder()
            .runtime(engine.clone())
            .home(folder.path().join("home"))
            .templates(folder.path().join("templates"))
            .build()
            .await
            .unwrap();
        Self { host, engine, folder }
    }

    /// One more host on the same home and engine, as another process would be, to be configured further.
    pub(crate) fn builder(&self) -> HostBuilder {
        let (home, templates) = (self.folder.path().join("home"), self.folder.path().join("templates"));
        Host::builder().runtime(self.engine.clone()).home(home).templates(templates)
    }

    /// One more host on the same home and engine, as another process would be, with a pool.
    pub(crate) async fn pooled(&self, options: PoolOptions) -> Host {
        self.pooled_class(Class::default(), options).await
    }

    /// The same with a pool of a class of its own.
    pub(crate) async fn pooled_class(&self, class: Class, options: PoolOptions) -> Host {
        self.builder().pool(class, options).build().await.unwrap()
    }

    /// One more host on the same home and engine that keeps its archives elsewhere.
    pub(crate) async fn keeping_archives_in(&self, store: ArchiveStore) -> Host {
        self.builder().archive_store(store).build().await.unwrap()
    }

    /// A template whose `template.json` is this.
    pub(crate) fn template(&self, json: &str) -> Template {
        let folder = self.template_folder();
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("template.json"), json).unwrap();
        fs::write(folder.join("index.html"), "hello").unwrap();
        Template::load(folder).unwrap()
    }

    pub(crate) fn template_folder(&self) -> PathBuf {
        self.folder.path().join("templates/web")
    }
}

/// A tar of files.
pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}
