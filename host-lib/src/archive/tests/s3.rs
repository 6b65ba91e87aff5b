//! Archives in a bucket of a real server that speaks S3 (moto, of PyPI), and over a connection that is slow, breaks off and ends.
//!
//! Needs Python 3 with pip, which fetches the server once into the target folder. Without them, leave these tests out:
//! `cargo test -- --skip archive::tests::s3`.

/// The same server as the end-to-end tests have.
#[path = "../../../../tests/src/s3.rs"]
#[expect(unreachable_pub, reason = "there it is a module for all tests")]
mod server;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use object_store::aws::AmazonS3Builder;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use self::server::Server;
use super::{super::s3::Bucket, *};

/// A bucket at an address of this machine.
fn bucket(port: u16) -> ArchiveStore {
    let builder = AmazonS3Builder::new()
        .with_endpoint(format!("http://127.0.0.1:{port}"))
        .with_allow_http(true)
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .with_region("us-east-1");
    let bucket: Bucket = "s3://archives/of/tests".parse().unwrap();
    ArchiveStore::given(bucket.open_with(builder).unwrap())
}

#[tokio::test]
async fn a_bucket_keeps_archives_as_a_folder_does() {
    let server = Server::start().await;
    let room = Room::new().await;
    let archives = room.archives_in(bucket(server.port)).await;
    let large = noise("large", 10 << 20);
    room.set_files(&[("a", b"one"), ("large", &large)]);
    let saved = room.tar();
    let first = archives.save(&room.workspace, SaveOptions::default()).await.unwrap();
    assert_eq!(archives.save(&room.workspace, SaveOptions::default()).await.unwrap(), first, "nothing has changed");
    room.set_files(&[("a", b"two"), ("large", &large)]);
    let second = archives.save(&room.workspace, SaveOptions::default()).await.unwrap();
    assert_eq!(archives.list(None).await.unwrap(), [second.clone(), first.clone()]);
    let differences = archives.diff(&first, &second).await.unwrap();
    assert_eq!(differences.iter().map(|difference| difference.path.to_string()).collect::<Vec<_>>(), ["a"]);
    archives.load(&first, &room.workspace).await.unwrap();
    assert!(room.tar() == saved);
    archives.delete(&first.reference()).await.unwrap();
    let pruned = archives.prune().await.unwrap();
    assert!(pruned.objects == 0 && pruned.young > 0 && pruned.kept > 8, "{pruned:?}");
    archives.verify(&second).await.unwrap();
    assert_eq!(archives.get(&first.reference()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// In front of the server: every third connection is told to slow down (503), every third breaks off after a while, in the middle of
/// whatever goes over it then.
struct BadLine {
    port: u16,
    accepted: Arc<AtomicUsize>,
    down: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl BadLine {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (accepted, down) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, is_down) = (accepted.clone(), down.clone());
        let task = tokio::spawn(async move {
            let mut lines = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::Relaxed);
                let is_down = is_down.clone();
                lines.spawn(async move {
                    match number % 3 {
                        _ if is_down.load(Ordering::Relaxed) => drop(client),
                        0 => slow_down(client).await,
                        // A chunk has four megabytes at most; the third kind lets every one through.
                        1 => carry(client, server, 700_000, is_down).await,
                        _ => carry(client, server, 30_000_000, is_down).await,
                    }
                });
            }
        });
        Self { port, accepted, down, task }
    }
}

impl Drop for BadLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn slow_down(mut client: TcpStream) {
    let mut head = [0; 4096];
    let _ = client.read(&mut head).await;
    let answer = "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let _ = client.write_all(answer.as_bytes()).await;
}

/// Carries so many bytes, both ways together, then ends without a word; at once when the line goes down.
async fn carry(mut client: TcpStream, server: u16, most: usize, is_down: Arc<AtomicBool>) {
    let Ok(mut inner) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (mut here, mut there) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    let mut carried = 0;
    while carried < most && !is_down.load(Ordering::Relaxed) {
        let (read, to_server) = tokio::select! {
            read = client.read(&mut here) => (read, true),
            read = inner.read(&mut there) => (read, false),
        };
        let Ok(length @ 1..) = read else { return };
        carried += length;
        let written =
            if to_server { inner.write_all(&here[..length]).await } else { client.write_all(&there[..length]).await };
        if written.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn slow_downs_and_lost_connections_are_borne() {
    let server = Server::start().await;
    let line = BadLine::to(server.port).await;
    let room = Room::new().await;
    let archives = room.archives_in(bucket(line.port)).await;
    room.set_files(&[("large", &noise("large", 6 << 20))]);
    let saved = room.tar();
    let archive = archives.save(&room.workspace, SaveOptions::default()).await.unwrap();
    room.set_files(&[("now", b"here")]);
    archives.load(&archive, &room.workspace).await.unwrap();
    assert!(room.tar() == saved);
    assert!(line.accepted.load(Ordering::Relaxed) > 6, "the line was bad");
    let direct = room.archives_in(bucket(server.port)).await;
    direct.verify(&archive).await.unwrap();
}

#[tokio::test]
async fn a_server_that_ends_in_the_middle_leaves_no_half_archive() {
    let server = Server::start().await;
    let line = BadLine::to(server.port).await;
    let room = Room::new().await;
    room.set_files(&[("large", &noise("large", 12 << 20))]);
    let direct = room.archives_in(bucket(server.port)).await;
    let archives = room.archives_in(bucket(line.port)).await;
    let before = room.tar();
    let mut saving = Box::pin(archives.save(&room.workspace, SaveOptions::default()));
    // Until some of it has gone over the line.
    while line.accepted.load(Ordering::Relaxed) < 5 {
        let soon = tokio::time::timeout(Duration::from_millis(10), &mut saving).await;
        assert!(soon.is_err(), "it was too fast to be stopped: {soon:?}");
    }
    line.down.store(true, Ordering::Relaxed);
    // It would be tried again for a minute; whoever waits may give up before.
    let given_up = tokio::time::timeout(Duration::from_secs(2), saving).await;
    assert!(given_up.is_err() || given_up.is_ok_and(|result| result.is_err()));
    assert!(direct.list(None).await.unwrap().is_empty(), "there is no half of an archive");
    assert!(room.tar() == before);
    let archive = direct.save(&room.workspace, SaveOptions::default()).await.unwrap();
    direct.verify(&archive).await.unwrap();
}
