//! A registry of one image on this machine, as far as a pull needs it (OCI distribution specification, "Pull"). Engines
//! take one on 127.0.0.1 without TLS.

use std::{collections::HashMap, sync::Arc};

use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};

/// Bytes of the image's only layer, which don't compress.
const LAYER_BYTES: usize = 3 << 20;

/// How the registry behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As it should, but for the second half of its layer, which it sends once [`Registry::release`] was called.
    Good,
    /// It takes requests and never answers.
    Hangs,
}

/// A registry that serves one image until it is dropped.
pub struct Registry {
    address: String,
    release: Arc<Semaphore>,
    serving: JoinHandle<()>,
}

impl Registry {
    /// Serves an image whose content depends on the seed.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start(mood: Mood, seed: &str) -> Self {
        Self::start_for(mood, seed, "amd64").await
    }

    /// The same with an image for other processors, as Go names them.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start_for(mood: Mood, seed: &str, architecture: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port can be had");
        let address = listener.local_addr().expect("it has an address").to_string();
        let documents = Arc::new(documents(seed, architecture));
        let release = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&release);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (documents, held) = (Arc::clone(&documents), Arc::clone(&held));
                // Each ends with its connection.
                tokio::spawn(async move { serve(stream, mood, &documents, &held).await });
            }
        });
        Self { address, release, serving }
    }

    /// Reference of the image (`image:1`) or of one that isn't there.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Lets the layer's second half go: whoever waits for progress has seen some.
    pub fn release(&self) {
        self.release.add_permits(1);
    }

    /// Bytes of the image's layer.
    #[must_use]
    pub fn layer_bytes() -> u64 {
        LAYER_BYTES as u64
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What is served, by path: content type and bytes.
fn documents(seed: &str, architecture: &str) -> HashMap<String, (&'static str, Vec<u8>)> {
    let mut noise = vec![0; LAYER_BYTES - 1536];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut noise);
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(noise.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "noise", &noise[..]).expect("memory is written");
    let layer = archive.into_inner().expect("memory is written");
    assert_eq!(layer.len(), LAYER_BYTES, "the tar's header and end are counted");

    // An uncompressed layer is allowed, and its digest is that of its content.
    let layer_digest = digest(&layer);
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Cmd":["none"]}},"rootfs":{{"type":"layers","diff_ids":["{layer_digest}"]}}}}"#
    )
    .into_bytes();
    const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}",
            "config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":{},"digest":"{}"}},
            "layers":[{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":{LAYER_BYTES},"digest":"{layer_digest}"}}]}}"#,
        config.len(),
        digest(&config),
    )
    .into_bytes();
    HashMap::from([
        ("/v2/".to_owned(), ("application/json", b"{}".to_vec())),
        (format!("/v2/image/manifests/{}", digest(&manifest)), (MANIFEST, manifest.clone())),
        ("/v2/image/manifests/1".to_owned(), (MANIFEST, manifest)),
        (format!("/v2/image/blobs/{}", digest(&config)), ("application/octet-stream", config)),
        (format!("/v2/image/blobs/{layer_digest}"), ("application/octet-stream", layer)),
    ])
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

async fn serve(
    mut stream: TcpStream,
    mood: Mood,
    documents: &HashMap<String, (&'static str, Vec<u8>)>,
    held: &Semaphore,
) {
    if mood == Mood::Hangs {
        // Until the engine gives up.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        return;
    }
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    let mut line = String::new();
    while let Ok(1..) = stream.read_line(&mut line).await {
        if line.trim().is_empty() {
            break;
        }
        if request.is_empty() {
            request.clone_from(&line);
        }
        line.clear();
    }
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, content_type, body) = match documents.get(path) {
        Some((content_type, body)) => ("200 OK", *content_type, body.as_slice()),
        None => (
            "404 Not Found",
            "application/json",
            &br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#[..],
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nDocker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\n\
         Content-Type: {content_type}\r\nDocker-Content-Digest: {}\r\nContent-Length: {}\r\n\r\n",
        digest(body),
        body.len()
    );
    // The engine may go away at any time.
    let _ = stream.write_all(head.as_bytes()).await;
    if method == "HEAD" {
        return;
    }
    let (first, second) = body.split_at(if body.len() == LAYER_BYTES { LAYER_BYTES / 2 } else { body.len() });
    let _ = stream.write_all(first).await;
    if !second.is_empty() {
        let _ = stream.flush().await;
        // Never closed.
        let Ok(_permit) = held.acquire().await else { return };
        let _ = stream.write_all(second).await;
    }
    let _ = stream.flush().await;
}
