//! A real server that speaks S3 (moto, of PyPI), as a process that ends with the test. The tests of the host library include this file.
//!
//! Needs Python 3 with pip, which fetches the server once into the target folder.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The server, pinned: another version may behave otherwise, and that should be a change of its own.
const SERVER: &str = "moto[s3]==5.2.5";
/// What it is served with.
const SERVED_WITH: [&str; 2] = ["flask==3.1.3", "flask-cors==6.0.5"];

/// Listens on a port of the system's choice, prints it, and ends with its standard input: with us, however we end.
const START: &str = "
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
";

/// Where the server's package is, fetched at the first call.
static PACKAGE: LazyLock<PathBuf> = LazyLock::new(|| {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/tools");
    let folder = tools.join(SERVER.replace(['[', ']', '='], "-"));
    if !folder.exists() {
        eprintln!("fetching {SERVER} into {}, once", folder.display());
        // Beside it and renamed at the end, so that a run that is cut off leaves no half of a server behind.
        let partial = tools.join(format!("moto.{}", std::process::id()));
        fs::create_dir_all(&partial).unwrap();
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
        let output = pip.arg(&partial).arg(SERVER).args(SERVED_WITH).output();
        let output = output.unwrap_or_else(|error| panic!("python3: {error}; these tests need Python 3 with pip"));
        assert!(output.status.success(), "pip can't install {SERVER}: {}", String::from_utf8_lossy(&output.stderr));
        if fs::rename(&partial, &folder).is_err() {
            // Another run was faster.
            fs::remove_dir_all(&partial).unwrap();
        }
    }
    folder
});

/// The server.
pub struct Server {
    process: Child,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
}

impl Server {
    /// Starts one with an empty bucket `archives`, for anybody's credentials.
    ///
    /// # Panics
    /// When it can't be fetched or started.
    pub async fn start() -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", START]).env("PYTHONPATH", &*PACKAGE).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut process =
            python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("python3 starts");
        let (process, line) = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
            (process, line)
        })
        .await
        .unwrap();
        let server = Self { process, port: line.trim().parse().expect("it says its port") };
        let mut connection = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        let request = "PUT /archives HTTP/1.1\r\nHost: s3\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
