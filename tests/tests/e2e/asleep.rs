//! Workspaces that sleep in archives, on a real engine: what wakes is what fell asleep; what can't wake sleeps on, with the error that
//! says why.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use corehold_e2e::{
    command_line::docker,
    corehold::Corehold,
    tree::{fill, run, tell},
    watching::{until, until_state},
    web::get,
};
use corehold_host::{
    CreateWorkspace, ErrorKind, EventKind, Expiry, IdlePolicy, SaveOptions, TransitionCause, Workspace, WorkspaceState,
};

/// More than a look at the agent takes on a busy machine.
const SHORT: Duration = Duration::from_secs(1);

/// Whether it is asleep, and no container of it is left. Who comes while it is put to sleep waits for that.
async fn is_asleep(corehold: &Corehold, workspace: &Workspace) -> bool {
    if workspace.state().await.unwrap() != WorkspaceState::Asleep {
        return false;
    }
    workspace.sleep(SHORT).await.unwrap();
    let listed = corehold.host.list().await.unwrap();
    let info = listed.iter().find(|info| info.id == *workspace.id()).expect("it is listed");
    info.state == WorkspaceState::Asleep && info.container.is_none()
}

/// The files of a folder and all beneath it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_workspace_sleeps_and_the_next_call_or_page_finds_all_of_it() {
    let corehold = Corehold::start().await;
    let host = &corehold.host;
    let mut events = host.events();
    let template = host.catalog().find("node-api").unwrap();
    // Times of its own for each: how long filling it takes on a busy machine is no business of this test.
    let request = CreateWorkspace::from_template(&template).env("GIVEN", "by the request");
    let workspace = host.create(request).await.unwrap();
    let before = fill(&workspace).await;
    let preview = workspace.preview(template.port).await.unwrap();

    workspace.set_idle(IdlePolicy::default().archive_after(SHORT)).await.unwrap();
    assert_eq!(until_state(&mut events, WorkspaceState::Asleep).await, TransitionCause::Expired);
    assert!(is_asleep(&corehold, &workspace).await);
    // The call that wakes it is answered, and what it tells is what was there.
    assert_eq!(tell(&workspace).await, before);
    assert_eq!(until_state(&mut events, WorkspaceState::Ready).await, TransitionCause::Called);
    assert_eq!(run(&workspace, "echo $GIVEN").await, "by the request\n");

    assert_eq!(until_state(&mut events, WorkspaceState::Asleep).await, TransitionCause::Expired);
    assert_eq!(get(&preview.url, "/health").await.0, 200, "the first request is answered by the dev server");
    assert_eq!(workspace.preview(template.port).await.unwrap().url, preview.url);
    workspace.remove().await.unwrap();
    assert!(host.archives().list(Some(workspace.id())).await.unwrap().is_empty(), "its archive goes with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lived_long_enough_sleeps_or_goes_as_the_policy_says() {
    let corehold = Corehold::start().await;
    let host = &corehold.host;
    let mut events = host.events();
    let policy = IdlePolicy::default().max_lifetime(SHORT);
    let workspace = host.create(CreateWorkspace::empty()).await.unwrap();
    workspace.write_file("kept", "as it was").await.unwrap();
    // Whatever it is at.
    workspace.command("sleep 300").detach().await.unwrap();
    workspace.set_idle(policy.clone()).await.unwrap();
    until_state(&mut events, WorkspaceState::Asleep).await;
    assert!(is_asleep(&corehold, &workspace).await);
    workspace.set_idle(IdlePolicy::default()).await.unwrap();
    assert_eq!(workspace.read_file("kept").await.unwrap(), "as it was");

    workspace.set_idle(policy.expiry(Expiry::Remove)).await.unwrap();
    until(&mut events, |kind| *kind == EventKind::Removed).await;
    assert_eq!(workspace.read_file("kept").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(host.list().await.unwrap(), []);
    assert!(host.archives().list(None).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_who_sleep_have_in_common_is_stored_once() {
    let corehold = Corehold::start().await;
    let host = &corehold.host;
    let mut events = host.events();
    let one = host.create(CreateWorkspace::empty()).await.unwrap();
    let before = fill(&one).await;
    let other = one.fork(1).await.unwrap().remove(0);
    other.write_file("z-own", "of the other").await.unwrap();
    let mut written = Vec::new();
    for workspace in [&one, &other] {
        workspace.sleep(SHORT).await.unwrap();
        match until(&mut events, |kind| matches!(kind, EventKind::Saved { .. })).await {
            EventKind::Saved { written_bytes, .. } => written.push(written_bytes),
            kind => unreachable!("{kind:?}"),
        }
    }
    // Three megabytes of it can't be compressed. The copies were made through an archive, so the first has its chunks already.
    let stored: u64 = files(&host.home().join("archives")).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(written.iter().all(|bytes| *bytes < 1 << 20) && stored < 4_500_000, "{written:?} of {stored}");
    // What one no longer needs, the other does.
    one.remove().await.unwrap();
    host.archives().prune().await.unwrap();
    assert!(tell(&other).await.contains(before.lines().next().unwrap()));
    assert_eq!(other.read_file("z-own").await.unwrap(), "of the other");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sleeps_wakes_in_the_image_that_there_is_then_or_waits_for_one() {
    let corehold = Corehold::start().await;
    let host = &corehold.host;
    // A name that no registry is asked for.
    let image = format!(
        "workspace-test-{}:now",
        host.home().file_name().unwrap().to_str().unwrap().trim_matches('.').to_lowercase()
    );
    docker(&["tag", corehold_host::config::DEFAULT_IMAGE, &image]);
    let workspace = host.create(CreateWorkspace::empty().image(&image)).await.unwrap();
    let before = fill(&workspace).await;
    workspace.sleep(SHORT).await.unwrap();

    docker(&["rmi", &image]);
    let error = workspace.wake().await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains(&image), "{error}");
    assert!(error.hint_text().is_some() && is_asleep(&corehold, &workspace).await);

    // The next version of it.
    let made = docker(&["create", corehold_host::config::DEFAULT_IMAGE]);
    docker(&["commit", "--change", "ENV VERSION=next", &made, &image]);
    docker(&["rm", &made]);
    let woken = workspace.wake().await;
    let told = match &woken {
        Ok(()) => Some((run(&workspace, "echo $VERSION").await, tell(&workspace).await)),
        Err(_) => None,
    };
    workspace.remove().await.unwrap();
    docker(&["rmi", &image]);
    woken.unwrap();
    assert_eq!(told, Some(("next\n".to_owned(), before)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cant_be_read_back_sleeps_on_and_nothing_is_lost() {
    let corehold = Corehold::start().await;
    let host = &corehold.host;
    let workspace = host.create(CreateWorkspace::empty()).await.unwrap();
    let before = fill(&workspace).await;
    workspace.sleep(SHORT).await.unwrap();
    for room in ["chunks", "indexes"] {
        let kept: Vec<_> = files(&host.home().join("archives").join(room))
            .into_iter()
            .map(|path| (fs::read(&path).unwrap(), path))
            .collect();
        for damage in [|bytes: &[u8]| bytes[..bytes.len() / 2].to_vec(), |bytes: &[u8]| vec![7; bytes.len()]] {
            for (bytes, path) in &kept {
                fs::write(path, damage(bytes)).unwrap();
            }
            // Asked for, or by the way.
            for error in [workspace.wake().await.unwrap_err(), workspace.read_file("tool").await.unwrap_err()] {
                assert!(error.kind() == ErrorKind::Damaged && error.hint_text().is_some(), "{room}: {error}");
            }
            assert!(is_asleep(&corehold, &workspace).await);
        }
        for (bytes, path) in &kept {
            fs::write(path, bytes).unwrap();
        }
    }
    assert_eq!(tell(&workspace).await, before, "its archive was mended, and it has all that it had");
    let archives = host.archives();
    assert!(archives.diff(&archives.list(None).await.unwrap()[0], &workspace).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_somebody_saved_is_theirs_whoever_sleeps_and_wakes() {
    let corehold = Corehold::start().await;
    let host = &corehold.host;
    let workspace = host.create(CreateWorkspace::empty()).await.unwrap();
    workspace.write_file("version", "one").await.unwrap();
    let saved = host.archives().save(&workspace, SaveOptions::default()).await.unwrap();
    workspace.sleep(SHORT).await.unwrap();
    workspace.write_file("version", "two").await.unwrap();
    workspace.sleep(SHORT).await.unwrap();
    let bed = host.archives().list(None).await.unwrap().into_iter().find(|archive| archive.sleeper.is_some()).unwrap();
    assert_eq!(host.archives().delete(&bed.reference()).await.unwrap_err().kind(), ErrorKind::Conflict);
    // It wakes for that.
    host.archives().load(&saved, &workspace).await.unwrap();
    assert_eq!(workspace.read_file("version").await.unwrap(), "one");
    workspace.remove().await.unwrap();
    assert_eq!(host.archives().list(None).await.unwrap(), [saved]);
}
