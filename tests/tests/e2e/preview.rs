//! Previews on a real engine: of a pooled container, with hot reload; and of servers, clients and containers that misbehave.

use std::{collections::BTreeSet, time::Duration};

use corehold_e2e::{
    corehold::{Corehold, POOL_MARK},
    web::{address, get, reload_hot},
};
use corehold_host::{
    Class, CreateEventKind, CreateWorkspace, PoolOptions, Preview, PreviewStatus, Step, Workspace,
    runtime::{ContainerId, Runtime as _},
    tools::{Ports, PortsRequest},
};
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longer than anything takes here; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// On the container's loopback alone: a page on 8080, and on 8081 bytes without end.
const SERVER: &str = r"
require('http').createServer((request, answer) => answer.end('hello')).listen(8080, '127.0.0.1');
const piece = Buffer.alloc(1 << 20);
require('net').createServer(socket => {
  const more = () => { while (socket.writable && socket.write(piece)); };
  socket.on('drain', more).on('error', () => {});
  more();
}).listen(8081, '127.0.0.1');
";

async fn served(corehold: &Corehold) -> Workspace {
    let workspace = corehold.host.create(CreateWorkspace::empty()).await.unwrap();
    workspace.write_file("server.js", SERVER).await.unwrap();
    workspace.command("node server.js").detach().await.unwrap();
    for port in [8080, 8081] {
        workspace.call::<Ports>(&PortsRequest { wait_for: Some(port), ..Default::default() }).await.unwrap();
    }
    workspace
}

async fn connect(preview: &Preview) -> TcpStream {
    TcpStream::connect(address(&preview.url)).await.unwrap()
}

/// Reads until there is no more, or it breaks off.
async fn until_it_is_over(how: &str, stream: &mut TcpStream) {
    let mut piece = vec![0; 1 << 16];
    timeout(PATIENCE, async { while stream.read(&mut piece).await.is_ok_and(|read| read > 0) {} })
        .await
        .unwrap_or_else(|_| panic!("{how}: it does not end"));
}

#[tokio::test(flavor = "multi_thread")]
async fn vite_react_from_a_pool_reloads_hot_through_its_preview() {
    let corehold = Corehold::start().await;
    let template = corehold.host.catalog().find("vite-react").unwrap();
    let mark = corehold.scratch.path().display().to_string();
    let pool = PoolOptions::default().min(1).max(1);
    let class = Class::default().resources(template.resources);
    let host = corehold.builder().label(POOL_MARK, mark).pool(class, pool).build().await.unwrap();
    host.pools_filled().await.unwrap();

    let mut creation = host.create(CreateWorkspace::from_template(&template));
    let mut claimed = false;
    while let Some(event) = creation.next_event().await {
        claimed |= event.step == Step::Claim && matches!(event.kind, CreateEventKind::Finished { .. });
        assert!(event.step != Step::Create, "it was made, not handed over");
    }
    let workspace = creation.await.unwrap();
    let info = workspace.info().await.unwrap();
    assert!(claimed && info.published.is_empty(), "{info:?}");
    let preview = workspace.preview(template.port).await.unwrap();
    assert_eq!(
        (preview.status, workspace.preview_url().await.unwrap()),
        (PreviewStatus::Listening, preview.url.clone())
    );
    reload_hot(&preview.url, &workspace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_at_once_are_all_answered() {
    let corehold = Corehold::start().await;
    let workspace = served(&corehold).await;
    let preview = workspace.preview(8080).await.unwrap();
    // Some who never say a word have their places until they go, and keep nobody else out.
    let silent = join_all((0..50).map(|_| connect(&preview))).await;
    let asking = (0..1_000).map(|_| async {
        let mut stream = connect(&preview).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("its turn comes").unwrap();
        assert!(answer.ends_with("hello"), "{answer}");
    });
    join_all(asking).await;
    drop(silent);
    timeout(PATIENCE, async {
        while workspace.previews().iter().any(|used| used.connections > 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("none is left");
    assert_eq!(get(&preview.url, "/").await, (200, "hello".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_slowly_or_breaks_off_is_in_nobodys_way() {
    let corehold = Corehold::start().await;
    let workspace = served(&corehold).await;
    let (endless, page) = (workspace.preview(8081).await.unwrap(), workspace.preview(8080).await.unwrap());
    // Nobody reads what comes without end: it is held back, not gathered.
    let unread = join_all((0..20).map(|_| connect(&endless))).await;
    for mut stream in join_all((0..20).map(|_| connect(&endless))).await {
        stream.read_exact(&mut [0; 1 << 16]).await.unwrap();
        stream.set_zero_linger().unwrap();
    }
    assert_eq!(get(&page.url, "/").await.0, 200);
    // Who has said all may still be answered.
    let mut half = connect(&page).await;
    half.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    half.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, half.read_to_string(&mut answer)).await.expect("it comes").unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    let own_memory = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim_end_matches("kB").trim().parse::<u64>().unwrap()
    };
    // Gathered as fast as one takes it, the others' would be 20 times as much. Other tests run in this process too.
    let mut reader = connect(&endless).await;
    let mut piece = vec![0; 1 << 20];
    for _ in 0..64 {
        reader.read_exact(&mut piece).await.unwrap();
    }
    assert!(own_memory() < 700 << 10, "{} KiB", own_memory());
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_in_the_middle_ends_its_connections() {
    let corehold = Corehold::start().await;
    // Stopped, as by `docker stop`; removed by somebody else, as by `docker rm -f`; removed through its handle.
    for how in ["stopped", "taken away", "removed"] {
        let workspace = served(&corehold).await;
        let preview = workspace.preview(8081).await.unwrap();
        let mut stream = connect(&preview).await;
        stream.read_exact(&mut [0; 1 << 16]).await.unwrap();
        let container = ContainerId(workspace.info().await.unwrap().container.expect("it has one"));
        match how {
            "stopped" => corehold.docker.stop(&container, Duration::from_secs(5)).await.unwrap(),
            "taken away" => corehold.docker.remove(&container).await.unwrap(),
            _ => workspace.remove().await.unwrap(),
        }
        until_it_is_over(how, &mut stream).await;
        if let Ok(mut late) = TcpStream::connect(address(&preview.url)).await {
            let end = timeout(PATIENCE, late.read(&mut [0])).await.expect("it is told in time");
            assert!(end.is_err(), "{how}: it looked as if it had been answered: {end:?}");
        }
        match how {
            "stopped" => {
                let stopped = workspace.preview(8081).await.unwrap();
                assert_eq!((stopped.status, &stopped.url), (PreviewStatus::NotRunning, &preview.url));
                assert!(stopped.failure.as_ref().is_some_and(|why| why.contains("doesn't run")), "{stopped:?}");
            }
            _ => assert!(workspace.previews().is_empty(), "{how}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_share_a_range_get_ports_of_their_own() {
    let corehold = Corehold::start().await;
    // More than are needed: others on this machine may have some of them.
    let first = 23_000 + (std::process::id() % 200) as u16 * 32;
    let range = first..=first + 31;
    let builder = || corehold.builder().port_range(range.clone());
    let (one, two) = (builder().build().await.unwrap(), builder().build().await.unwrap());
    let making = [&one, &two, &one, &two].map(|host| async {
        let workspace = host.create(CreateWorkspace::empty().publish(8080)).await.unwrap();
        let info = workspace.info().await.unwrap();
        let preview = workspace.preview(8080).await.unwrap();
        [info.published[&8080].port(), address(&preview.url).port()]
    });
    let ports: BTreeSet<u16> = join_all(making).await.into_iter().flatten().collect();
    assert_eq!(ports.len(), 8, "{ports:?}");
    assert!(ports.iter().all(|port| range.contains(port)), "{ports:?}");
}
