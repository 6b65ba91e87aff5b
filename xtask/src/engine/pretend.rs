//! What the tests of this room pretend: an engine, and a configuration that leads to no other.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use crate::config::Config;

/// A folder of this test's own, removed at its end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("corehold-xtask-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A configuration that finds no engine but one in the folder.
pub(crate) fn config(folder: &Folder) -> Config {
    Config {
        docker_host: None,
        docker_context: None,
        docker_config: folder.0.join("none"),
        runtime_folder: Some(folder.0.clone()),
        state: folder.0.join("state"),
        ..Config::of_this_process()
    }
}

/// An engine that gives each caller this answer.
pub(crate) fn engine(socket: &Path, answer: &'static str) {
    engine_that_takes(socket, answer);
}

/// The same, and what it is given.
pub(crate) fn engine_that_takes(socket: &Path, answer: &'static str) -> Receiver<String> {
    let listener = UnixListener::bind(socket).unwrap();
    let (taken, takes) = sync_channel(8);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            let mut reader = BufReader::new(&stream);
            let mut length = 0;
            while reader.read_line(&mut line).unwrap() > 2 {
                length = line.strip_prefix("Content-Length: ").map_or(length, |value| value.trim().parse().unwrap());
                line.clear();
            }
            let mut body = String::new();
            reader.take(length).read_to_string(&mut body).unwrap();
            // Most tests don't ask.
            let _ = taken.try_send(body);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    takes
}
