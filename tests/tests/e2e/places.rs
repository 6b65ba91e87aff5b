//! What is mounted into a workspace, and how it is held, over a real engine: folders, volumes, the host's configuration, a root that can't
//! be written, capabilities, the engine's runtimes.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use corehold_e2e::corehold::Corehold;
use corehold_host::{
    Capability, CreateVolume, CreateWorkspace, DiskPolicy, ErrorKind, EventKind, Host, Mount, Workspace,
    WorkspaceState, policy::Policy, runtime::Resources,
};

async fn output(workspace: &Workspace, line: &str) -> String {
    let outcome = workspace.command(line).run().await.unwrap();
    assert!(outcome.success(), "{line}: {outcome:#?}");
    outcome.stdout_text().trim().to_owned()
}

async fn fails(workspace: &Workspace, line: &str) -> String {
    let outcome = workspace.command(line).run().await.unwrap();
    assert!(!outcome.success(), "{line}: {outcome:#?}");
    outcome.stderr_text()
}

async fn allowing(corehold: &Corehold, folder: &Path) -> Host {
    corehold.builder().policy(Policy::new().mount_root(folder)).build().await.unwrap()
}

/// A folder that the user of workspaces may write to.
fn writable(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_there_as_it_was_asked_for_whatever_befalls_the_workspace() {
    let corehold = Corehold::start().await;
    let (read, write) = (corehold.scratch.path().join("read"), corehold.scratch.path().join("write"));
    writable(&read);
    writable(&write);
    fs::write(read.join("file"), "theirs").unwrap();
    let host = allowing(&corehold, corehold.scratch.path()).await;
    let request = CreateWorkspace::empty()
        .id("mounting")
        .mount(Mount::folder(&read).at("/read").read_only(true))
        .mount(Mount::folder(&write).at("/write"));
    let workspace = host.create(request).await.unwrap();
    for round in ["made", "restarted", "woken"] {
        assert_eq!(output(&workspace, "cat /read/file").await, "theirs", "{round}");
        assert!(fails(&workspace, "echo x >/read/file").await.contains("Read-only"), "{round}");
        output(&workspace, &format!("echo {round} >>/write/log")).await;
        match round {
            "made" => workspace.restart(Duration::ZERO).await.unwrap(),
            "restarted" => workspace.sleep(Duration::ZERO).await.unwrap(),
            _ => {}
        }
    }
    assert_eq!(fs::read_to_string(write.join("log")).unwrap(), "made\nrestarted\nwoken\n");
    let copy = workspace.fork(1).await.unwrap().remove(0);
    assert_eq!(output(&copy, "tail -n 1 /write/log").await, "woken");
    assert_eq!(output(&copy, "ls -A /app").await, "", "what is mounted is in no archive");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_leads_elsewhere_is_refused_before_anything_is_made() {
    let corehold = Corehold::start().await;
    let root = corehold.scratch.path().join("allowed");
    writable(&root.join("fine"));
    symlink("/", root.join("slash")).unwrap();
    symlink("/var/run/docker.sock", root.join("engine")).unwrap();
    let host = allowing(&corehold, &root).await;
    for path in ["slash", "slash/etc", "engine", "fine/../.."] {
        let request = CreateWorkspace::empty().mount(Mount::folder(root.join(path)).at("/data"));
        assert_eq!(host.create(request).await.unwrap_err().kind(), ErrorKind::Forbidden, "{path}");
    }
    // An operator who allows all of the machine still gives nobody the engine.
    let all = allowing(&corehold, Path::new("/")).await;
    for path in ["/", "/var", "/var/lib", "/run", "/proc", "/dev/shm", "/etc"] {
        let request = CreateWorkspace::empty().mount(Mount::folder(path).at("/data"));
        assert_eq!(all.create(request).await.unwrap_err().kind(), ErrorKind::Forbidden, "{path}");
    }
    assert!(host.list().await.unwrap().is_empty());
}

/// Somebody who may write beside the folder makes it a link to a secret, again and again, while workspaces are made with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_swapped_for_a_link_while_it_is_mounted_shows_nothing() {
    let corehold = Corehold::start().await;
    let root = corehold.scratch.path().join("allowed");
    let (folder, aside, link) = (root.join("folder"), root.join("aside"), root.join("link"));
    let secrets = corehold.scratch.path().join("secrets");
    writable(&folder);
    writable(&secrets);
    fs::write(secrets.join("secret"), "x").unwrap();
    symlink(&secrets, &link).unwrap();
    let host = allowing(&corehold, &root).await;
    let done = Arc::new(AtomicBool::new(false));
    let attacker = {
        let (done, folder, aside, link) = (done.clone(), folder.clone(), aside.clone(), link.clone());
        std::thread::spawn(move || {
            let mut swaps = 0;
            while !done.load(Ordering::Relaxed) {
                fs::rename(&folder, &aside).unwrap();
                fs::rename(&link, &folder).unwrap();
                std::thread::yield_now();
                fs::rename(&folder, &link).unwrap();
                fs::rename(&aside, &folder).unwrap();
                // About as long there as away, so that each side is met.
                std::thread::sleep(Duration::from_micros(20));
                swaps += 1;
            }
            swaps
        })
    };
    // Made, refused. The attacker is met wherever it is just then: until it was met both ways.
    let mut ends = [0; 2];
    for round in 0..60 {
        if round >= 12 && !ends.contains(&0) {
            break;
        }
        match host.create(CreateWorkspace::empty().mount(Mount::folder(&folder).at("/data"))).await {
            Ok(workspace) => {
                assert_eq!(output(&workspace, "ls /data").await, "", "the secret is seen");
                workspace.remove().await.unwrap();
                ends[0] += 1;
            }
            Err(error) => {
                let kinds =
                    [ErrorKind::Forbidden, ErrorKind::NotFound, ErrorKind::Invalid, ErrorKind::Io, ErrorKind::Engine];
                assert!(kinds.contains(&error.kind()), "{error}");
                ends[1] += 1;
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    let swaps = attacker.join().unwrap();
    assert!(!ends.contains(&0), "{swaps} swaps: {} were made, {} refused", ends[0], ends[1]);
    assert!(host.list().await.unwrap().is_empty(), "nothing is left of what was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_configuration_is_seen_as_it_is_now_and_can_not_be_written() {
    let corehold = Corehold::start().await;
    let folder = corehold.folder("configuration", &[("settings.json", "1")]);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let host = corehold.builder().config_folder(&folder).build().await.unwrap();
    let workspace = host.create(CreateWorkspace::empty()).await.unwrap();
    assert_eq!(output(&workspace, "cat /etc/corehold/settings.json").await, "1");
    fs::write(folder.join("settings.json"), "2").unwrap();
    fs::write(folder.join("more"), "3").unwrap();
    assert_eq!(output(&workspace, "cat /etc/corehold/settings.json /etc/corehold/more").await, "23");
    assert!(fails(&workspace, "echo x >/etc/corehold/new").await.contains("Read-only"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_outlives_workspaces_and_is_not_removed_under_them() {
    let corehold = Corehold::start().await;
    let (host, volumes) = (&corehold.host, corehold.host.volumes());
    volumes.create(CreateVolume::new("shared")).await.unwrap();
    assert_eq!(volumes.create(CreateVolume::new("shared")).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let first = host.create(CreateWorkspace::empty().mount(Mount::volume("shared").at("/shared"))).await.unwrap();
    output(&first, "echo kept >/shared/file").await;
    first.remove().await.unwrap();
    let reader = Mount::volume("shared").at("/other").read_only(true);
    let second = host.create(CreateWorkspace::empty().mount(reader)).await.unwrap();
    assert_eq!(output(&second, "cat /other/file").await, "kept");
    assert!(fails(&second, "rm /other/file").await.contains("Read-only"));
    assert_eq!(volumes.list().await.unwrap()[0].workspaces, [second.id().clone()]);
    assert_eq!(volumes.remove("shared").await.unwrap_err().kind(), ErrorKind::Conflict);
    second.remove().await.unwrap();
    volumes.remove("shared").await.unwrap();
    let error = host.create(CreateWorkspace::empty().mount(Mount::volume("shared").at("/shared"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(volumes.list().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_root_that_can_not_be_written_only_what_a_workspace_needs_can() {
    let corehold = Corehold::start().await;
    let template = corehold.host.catalog().find("node-api").unwrap();
    let request = CreateWorkspace::from_template(&template).id("strict").read_only_root(true);
    let workspace = corehold.host.create(request).await.unwrap();
    for round in ["made", "woken"] {
        assert_eq!(
            output(&workspace, "cd /app && touch x ~/y /tmp/z /var/tmp/w && echo $HOME").await,
            "/home/workspace"
        );
        for place in ["/", "/etc", "/usr/bin", "/opt", "/tools", "/var/lib"] {
            // Nobody but root may write there anyway: what counts is why it fails.
            let said = fails(&workspace, &format!("mkdir {place}/new")).await;
            assert!(said.contains("Read-only"), "{round} {place}: {said}");
        }
        let size = output(&workspace, "df --output=size -B1 /tmp | tail -n 1").await;
        assert_eq!(size, (100 << 20).to_string(), "{round}");
        assert!(fails(&workspace, "head -c 110m /dev/zero >/tmp/large").await.contains("No space left"));
        output(&workspace, "rm /tmp/large; cp /bin/true /tmp && /tmp/true").await;
        if round == "made" {
            workspace.write_file("kept", "kept").await.unwrap();
            workspace.sleep(Duration::ZERO).await.unwrap();
        }
        assert_eq!(workspace.read_file("kept").await.unwrap(), "kept");
    }
    let volumes = |what: &str| {
        let listed =
            Command::new("docker").args(["inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", what]).output();
        String::from_utf8(listed.unwrap().stdout).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let made: Vec<_> = volumes("corehold-strict").into_iter().filter(|name| !name.starts_with("corehold-")).collect();
    assert_eq!(made.len(), 3, "{made:?}");
    workspace.remove().await.unwrap();
    for name in made {
        let left = Command::new("docker").args(["volume", "inspect", &name]).output().unwrap();
        assert!(!left.status.success(), "what it could write is gone with it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_not_there_is_told_and_nothing_weaker_is_used() {
    let corehold = Corehold::start().await;
    let host = corehold.builder().policy(Policy::new().sandbox("io.containerd.runc.v2")).build().await.unwrap();
    let error = host.create(CreateWorkspace::empty().sandbox("runsc")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("runsc") && error.hint_text().unwrap().contains("runc"), "{error}");
    assert!(host.list().await.unwrap().is_empty());
    // Engines of today have a second name for runc.
    for name in ["runc", "io.containerd.runc.v2"] {
        let workspace = host.create(CreateWorkspace::empty().id("boxed").sandbox(name)).await.unwrap();
        let format = ["inspect", "--format", "{{.HostConfig.Runtime}}", "corehold-boxed"];
        let inspected = Command::new("docker").args(format).output().unwrap();
        assert_eq!(String::from_utf8(inspected.stdout).unwrap().trim(), name);
        workspace.remove().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capability_is_roots_and_nobody_elses() {
    let corehold = Corehold::start().await;
    let host = corehold.builder().policy(Policy::new().capability(Capability::Chown)).build().await.unwrap();
    let error = host.create(CreateWorkspace::empty().capability(Capability::Setuid)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    // Bit 0 of the set: `capability.h`.
    let workspace = host.create(CreateWorkspace::empty().capability(Capability::Chown)).await.unwrap();
    let status = output(&workspace, "grep -E 'Cap(Eff|Bnd)' /proc/self/status").await;
    assert_eq!(status, "CapEff:\t0000000000000000\nCapBnd:\t0000000000000001");
    fails(&workspace, "touch file && chown 1001 file").await;
}

/// In the image's folders, in those of a root that can't be written, and by files alone.
#[tokio::test(flavor = "multi_thread")]
async fn who_fills_the_disk_is_paused() {
    let corehold = Corehold::start().await;
    let policy = DiskPolicy::default().every(Duration::from_millis(200)).files(3_000);
    let host = corehold.builder().disk(policy).build().await.unwrap();
    let limits = Resources::default().disk_bytes(30 << 20);
    let fill = "head -c 60m /dev/zero >/app/large; sync; sleep 600";
    let litter = "cd ~ && for i in $(seq 4000); do : >file$i; done; sleep 600";
    for (strict, line) in [(false, fill), (true, fill), (false, litter)] {
        let request = CreateWorkspace::empty().resources(limits).read_only_root(strict);
        let workspace = host.create(request).await.unwrap();
        let mut events = host.events();
        let writing = tokio::spawn({
            let (workspace, line) = (workspace.clone(), line.to_owned());
            async move { workspace.command(line).run().await.map(|_| ()) }
        });
        loop {
            let event = events.next().await.unwrap();
            let ours = event.workspace.as_ref() == Some(workspace.id());
            match event.kind {
                EventKind::DiskExceeded { bytes, files, .. } if ours => {
                    assert!(bytes > 30 << 20 || files > Some(3_000), "{strict} {line}: {bytes} {files:?}");
                }
                EventKind::Transition { to: WorkspaceState::Paused, .. } if ours => break,
                _ => {}
            }
        }
        writing.abort();
        workspace.remove().await.unwrap();
    }
}
