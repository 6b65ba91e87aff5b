//! How large an image is, as it lies on the engine's disk and as a registry would ship it, and what takes it.
//!
//! The engine writes the image out and it is read as it comes, so memory stays bounded however large the image is.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Read, Write},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::BASE_LAYERS_LABEL;
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::docker::Docker,
};

/// Directories down to this depth are counted apart.
const DEPTH: usize = 3;
/// Directories that are counted apart at most; what comes later counts as `…`.
const MOST_DIRECTORIES: usize = 20_000;
/// Directories that a layer's report names.
const NAMED_DIRECTORIES: usize = 12;
/// A description (`manifest.json`) larger than this is none.
const LARGEST_DESCRIPTION: u64 = 1 << 20;

/// What takes an image's size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ImageReport {
    /// Its reference.
    pub reference: String,
    /// Its id.
    pub id: String,
    /// Size on the engine's disk, in bytes, as the engine says it.
    pub size_bytes: u64,
    /// Size as a registry would ship it, in bytes: its layers in gzip at level 6.
    pub compressed_bytes: u64,
    /// Of that, what lies above the base; all of it when the image doesn't say what its base is.
    pub own_compressed_bytes: u64,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerReport>,
}

/// What takes a layer's size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LayerReport {
    /// Whether it lies above the base.
    pub own: bool,
    /// Its tar's size in bytes.
    pub size_bytes: u64,
    /// Its size in gzip, in bytes.
    pub compressed_bytes: u64,
    /// Its largest directories, compressed, the largest first.
    pub largest: Vec<Portion>,
}

/// A directory's part of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Portion {
    /// The directory, at most three names deep.
    pub path: String,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// What they add to the compressed layer, roughly: gzip looks back 32 KiB, across files.
    pub compressed_bytes: u64,
}

/// Measures an image. Takes seconds: all of it is read and compressed. Cancel-safe.
///
/// # Errors
/// `NotFound` when the engine hasn't got the image.
pub async fn report(docker: &Docker, reference: &str) -> Result<ImageReport> {
    let image = docker.image(reference).await?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("the engine has no image {reference:?}"))
            .hint("build it with `corehold image build`")
    })?;
    let base_layers = image.labels.get(BASE_LAYERS_LABEL).and_then(|count| count.parse().ok()).unwrap_or(0);

    let mut saved = docker.save_image(&image.id)?;
    let (sender, receiver) = mpsc::channel(16);
    let measuring = tokio::task::spawn_blocking(move || measure(Received { receiver, chunk: Bytes::new() }));
    let mut failed = None;
    while let Some(chunk) = saved.next().await {
        match chunk {
            // The reader may have seen enough.
            Ok(chunk) => {
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let measured = measuring.await.map_err(|panic| Error::new(ErrorKind::Io, format!("measuring: {panic}")))?;
    if let Some(error) = failed {
        return Err(error);
    }
    let mut layers = measured.map_err(|source| {
        Error::new(ErrorKind::Engine, format!("reading the image {reference:?}: {source}")).caused_by(source)
    })?;
    for (index, layer) in layers.iter_mut().enumerate() {
        layer.own = index >= base_layers;
    }
    let sum =
        |own_only: bool| layers.iter().filter(|layer| layer.own || !own_only).map(|layer| layer.compressed_bytes).sum();
    Ok(ImageReport {
        reference: reference.to_owned(),
        id: image.id,
        size_bytes: image.size_bytes,
        compressed_bytes: sum(false),
        own_compressed_bytes: sum(true),
        layers,
    })
}

/// Reads what the engine saved: layers as `<id>/layer.tar`, since Docker 25 as `blobs/sha256/<digest>`, in an order of
/// their own; `manifest.json` says which belong to the image, and how they lie on each other.
fn measure(saved: impl Read) -> io::Result<Vec<LayerReport>> {
    #[derive(Deserialize)]
    struct Manifest {
        #[serde(rename = "Layers")]
        layers: Vec<String>,
    }
    let mut measured: HashMap<String, LayerReport> = HashMap::new();
    let mut links: HashMap<String, String> = HashMap::new();
    let mut manifest: Option<Vec<Manifest>> = None;
    let mut archive = tar::Archive::new(saved);
    for entry in archive.entries()? {
        let entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let kind = entry.header().entry_type();
        if let (true, Some(target)) = (kind.is_symlink() || kind.is_hard_link(), entry.link_name()?) {
            // A layer that is there twice: `../<other id>/layer.tar`.
            links.insert(name, target.to_string_lossy().trim_start_matches("../").to_owned());
        } else if name == "manifest.json" {
            manifest = Some(serde_json::from_reader(entry.take(LARGEST_DESCRIPTION))?);
        } else if kind.is_file() && (name.ends_with("/layer.tar") || name.starts_with("blobs/")) {
            let size = entry.size();
            if let Some(layer) = measure_blob(entry, size)? {
                measured.insert(name, layer);
            }
        }
    }
    let damaged = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let manifest = manifest
        .and_then(|manifests| manifests.into_iter().next())
        .ok_or_else(|| damaged("the engine wrote no manifest.json".to_owned()))?;
    manifest
        .layers
        .into_iter()
        .map(|name| {
            let name = links.get(&name).unwrap_or(&name);
            // Not taken out: the same layer may lie in an image twice.
            measured.get(name).cloned().ok_or_else(|| damaged(format!("the engine wrote no layer {name}")))
        })
        .collect()
}

/// A layer among the blobs; `None` for descriptions, which are JSON.
fn measure_blob(mut blob: impl Read, size: u64) -> io::Result<Option<LayerReport>> {
    let mut start = Vec::new();
    (&mut blob).take(4).read_to_end(&mut start)?;
    let whole = start.as_slice().chain(blob);
    match start.as_slice() {
        [b'{' | b'[', ..] => Ok(None),
        // With the containerd image store, layers are saved as the registry shipped them.
        [0x1f, 0x8b, ..] => {
            let mut layer = measure_layer(flate2::read::MultiGzDecoder::new(whole))?;
            layer.compressed_bytes = size;
            Ok(Some(layer))
        }
        [0x28, 0xb5, 0x2f, 0xfd] => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a layer is compressed with zstd, which is not measured yet",
        )),
        _ => measure_layer(whole).map(Some),
    }
}

/// Reads a layer's tar and compresses it on the way, noting how much each entry adds.
fn measure_layer(layer: impl Read) -> io::Result<LayerReport> {
    let mut directories: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let tee = std::cell::RefCell::new(Tee::default());
    let mut archive = tar::Archive::new(TeeReader { inner: layer, tee: &tee });
    let mut entries = archive.entries()?;
    let (mut before, mut last) = (0, None::<(String, u64)>);
    loop {
        let entry = entries.next().transpose()?;
        // What the last entry added is known only now, after its content was read.
        let compressed = tee.borrow().written();
        if let Some((directory, size)) = last.take() {
            let known = directories.len() < MOST_DIRECTORIES || directories.contains_key(&directory);
            let sums = directories.entry(if known { directory } else { "…".to_owned() }).or_default();
            sums.0 += size;
            sums.1 += compressed - before;
        }
        before = compressed;
        let Some(entry) = entry else { break };
        let size = if entry.header().entry_type().is_file() { entry.size() } else { 0 };
        last = Some((directory_of(&entry.path()?.to_string_lossy()), size));
    }
    // The padding after the last entry belongs to the layer too.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    let (size_bytes, compressed_bytes) = tee.into_inner().finish()?;

    let mut largest: Vec<_> = directories
        .into_iter()
        .map(|(path, (size_bytes, compressed_bytes))| Portion { path, size_bytes, compressed_bytes })
        .collect();
    largest.sort_by_key(|portion| std::cmp::Reverse((portion.compressed_bytes, portion.size_bytes)));
    largest.truncate(NAMED_DIRECTORIES);
    Ok(LayerReport { own: false, size_bytes, compressed_bytes, largest })
}

/// The directory that a path is counted under.
fn directory_of(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_end_matches('/');
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    format!("/{}", parent.split('/').take(DEPTH).collect::<Vec<_>>().join("/"))
}

/// Compresses what passes and keeps nothing but its length.
struct Tee {
    read: u64,
    encoder: GzEncoder<Counter>,
}

impl Default for Tee {
    fn default() -> Self {
        Self { read: 0, encoder: GzEncoder::new(Counter(0), Compression::new(6)) }
    }
}

impl Tee {
    fn written(&self) -> u64 {
        self.encoder.get_ref().0
    }

    fn finish(self) -> io::Result<(u64, u64)> {
        Ok((self.read, self.encoder.finish()?.0))
    }
}

struct TeeReader<'a, R> {
    inner: R,
    tee: &'a std::cell::RefCell<Tee>,
}

impl<R: Read> Read for TeeReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let mut tee = self.tee.borrow_mut();
        tee.read += count as u64;
        tee.encoder.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// Counts what is written.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0 += buffer.len() as u64;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What an asynchronous task sends, as a blocking reader.
struct Received {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, &content[..]).unwrap();
        }
        archive.into_inner().unwrap()
    }

    /// Bytes that don't compress.
    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn layers_are_measured_in_the_images_order_whatever_the_archives() {
        let low = tar(&[("usr/lib/a/deep/x", vec![0; 100_000]), ("usr/bin/y", noise(50_000))]);
        let high = tar(&[("tools/agent", noise(1000))]);
        let manifest = br#"[{"Config":"c.json","Layers":["two/layer.tar","one/layer.tar"]}]"#.to_vec();
        let saved =
            tar(&[("one/layer.tar", high.clone()), ("manifest.json", manifest), ("two/layer.tar", low.clone())]);
        let layers = measure(&saved[..]).unwrap();
        assert_eq!(
            layers.iter().map(|layer| layer.size_bytes).collect::<Vec<_>>(),
            [low.len() as u64, high.len() as u64]
        );
        assert_eq!(layers[0].compressed_bytes, gzip(&low).len() as u64);
        let first = &layers[0].largest[0];
        assert_eq!((first.path.as_str(), first.size_bytes), ("/usr/bin", 50_000));
        assert_eq!(layers[0].largest[1].path, "/usr/lib/a");
    }

    #[test]
    fn the_newer_layout_with_compressed_layers_is_read_too() {
        let layer = gzip(&tar(&[("a", noise(5000))]));
        let manifest = br#"[{"Layers":["blobs/sha256/aa"]}]"#.to_vec();
        let saved = tar(&[
            ("blobs/sha256/bb", b"{\"config\":1}".to_vec()),
            ("blobs/sha256/aa", layer.clone()),
            ("manifest.json", manifest),
        ]);
        assert_eq!(measure(&saved[..]).unwrap()[0].compressed_bytes, layer.len() as u64);
    }

    #[test]
    fn what_is_damaged_is_an_error() {
        assert!(measure(&tar(&[("x", vec![])])[..]).unwrap_err().to_string().contains("no manifest.json"));
        let lost = tar(&[("manifest.json", br#"[{"Layers":["gone/layer.tar"]}]"#.to_vec())]);
        assert!(measure(&lost[..]).unwrap_err().to_string().contains("no layer gone/layer.tar"));
        let cut = tar(&[("one/layer.tar", tar(&[("a", noise(5000))]))]);
        assert!(measure(&cut[..3000]).is_err());
    }

    #[test]
    fn paths_are_counted_under_their_directories() {
        assert_eq!(directory_of("./usr/lib/x86_64-linux-gnu/perl/a.pm"), "/usr/lib/x86_64-linux-gnu");
        assert_eq!(directory_of("usr/bin/git"), "/usr/bin");
        assert_eq!(directory_of("init"), "/");
    }
}
