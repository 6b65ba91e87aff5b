//! The engine's images: listed, pulled from a registry, removed, and pulled where a creation lacks one.

use std::sync::Mutex;

use corehold_e2e::{
    corehold::Corehold,
    images::{Images, Root},
    registry::{Mood, Registry},
};
use corehold_host::{
    CreateEventKind, CreateWorkspace, ErrorKind, Step,
    policy::{self, Policy},
};

/// A registry with an image that no other test has.
async fn registry(corehold: &Corehold) -> Registry {
    Registry::start(Mood::Good, &corehold.scratch.path().display().to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_listed_pulled_and_removed() {
    let mut made = Images::new().await;
    let corehold = Corehold::start().await;
    let images = corehold.host.images();
    let registry = registry(&corehold).await;
    let reference = registry.reference("image:1");
    made.also(&reference);
    let seen = Mutex::new(Vec::new());
    images
        .pull(&reference, |progress| {
            // The other half comes once somebody has seen the first.
            registry.release();
            seen.lock().unwrap().push(progress);
        })
        .await
        .unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.iter().any(|progress| progress.total_bytes == Registry::layer_bytes()), "{seen:?}");
    assert!(seen.is_sorted_by_key(|progress| progress.received_bytes), "{seen:?}");

    let listed = images.list().await.unwrap();
    let pulled = listed.iter().find(|image| image.references.contains(&reference)).expect("it is listed");
    assert!(!pulled.core && pulled.size_bytes > Registry::layer_bytes() / 2, "{pulled:?}");
    let core = listed.iter().find(|image| image.references.iter().any(|name| name == corehold.host.image()));
    assert!(core.expect("it is listed").core);

    let workspace = corehold.host.create(CreateWorkspace::empty().image(&reference)).await.unwrap();
    let error = images.remove(&reference).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.hint_text().unwrap().contains("workspaces"), "{error:?}");
    workspace.remove().await.unwrap();
    images.remove(&reference).await.unwrap();
    assert_eq!(images.remove(&reference).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!images.list().await.unwrap().iter().any(|image| image.references.contains(&reference)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_pulls_what_is_missing_and_says_how_far_it_is() {
    let mut made = Images::new().await;
    let corehold = Corehold::start().await;
    let registry = registry(&corehold).await;
    let reference = registry.reference("image:1");
    made.also(&reference);
    let mut creation = corehold.host.create(CreateWorkspace::empty().image(&reference));
    let mut of_the_pull = Vec::new();
    while let Some(event) = creation.next_event().await {
        if matches!(event.kind, CreateEventKind::Received { received_bytes: 1.., .. }) {
            registry.release();
        }
        if event.step == Step::Image {
            of_the_pull.push(event.kind);
        }
    }
    let workspace = creation.await.unwrap();
    workspace.write_file("here", "it is").await.unwrap();
    assert!(matches!(of_the_pull.first(), Some(CreateEventKind::Started { .. })), "{of_the_pull:?}");
    assert!(matches!(of_the_pull.last(), Some(CreateEventKind::Finished { .. })), "{of_the_pull:?}");
    assert!(of_the_pull.iter().any(|kind| matches!(kind, CreateEventKind::Received { .. })), "{of_the_pull:?}");

    // Once it is there, no registry is asked: this one is gone.
    drop(registry);
    let mut creation = corehold.host.create(CreateWorkspace::empty().image(&reference));
    while let Some(event) = creation.next_event().await {
        assert_ne!(event.step, Step::Image);
    }
    creation.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cant_be_pulled_is_told_and_leaves_nothing() {
    let corehold = Corehold::start().await;
    let registry = registry(&corehold).await;
    let none = registry.reference("none:1");
    let allowed = Policy::new().images(policy::Images::allow(["registry.example/*"]).unwrap());
    let forbidding = corehold.builder().policy(allowed).build().await.unwrap();
    let never = corehold.builder().pull_missing(false).build().await.unwrap();
    for (host, image, kind, hint) in [
        (&corehold.host, none.as_str(), ErrorKind::NotFound, "mistake in its name"),
        // Nobody listens on port 1.
        (&corehold.host, "127.0.0.1:1/image:1", ErrorKind::Engine, "a way to the registry"),
        (&corehold.host, "workspace-nobody-made:1", ErrorKind::NotFound, "build it"),
        (&forbidding, &none, ErrorKind::Forbidden, "policy"),
        (&never, &none, ErrorKind::NotFound, "pull or build it"),
    ] {
        let error = host.create(CreateWorkspace::empty().image(image)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{image}: {error}");
        assert!(error.hint_text().is_some_and(|text| text.contains(hint)), "{image}: {error:?}");
        assert_eq!(host.list().await.unwrap(), [], "{image}");
    }
    let error = forbidding.images().pull(&none, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
    let error = corehold.host.images().pull("workspace-core:latest", |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_has_them_too() {
    let mut made = Images::new().await;
    let corehold = Corehold::start().await;
    let reference = made.make("listed", Root::empty().file("here", b"it is"), &[]).await;
    let output = |arguments: &[&str]| {
        let output = corehold.cli(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let (code, listed, _) = output(&["image", "ls"]);
    assert!(
        code == 0 && listed.lines().any(|line| line.starts_with(&reference) && line.ends_with("put in")),
        "{listed}"
    );
    assert!(
        listed.lines().any(|line| line.starts_with("workspace-core:latest") && line.ends_with("its own")),
        "{listed}"
    );
    let (code, listed, _) = output(&["image", "ls", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let all = listed.as_array().unwrap();
    assert!(
        code == 0 && all.iter().any(|image| image["references"][0] == reference.as_str() && image["core"] == false)
    );

    assert_eq!(output(&["image", "rm", &reference]).0, 0);
    let (code, _, why) = output(&["image", "rm", &reference]);
    assert!(code == 1 && why.contains(&reference), "{why}");
    let registry = registry(&corehold).await;
    registry.release();
    let pulled = registry.reference("image:1");
    made.also(&pulled);
    let (code, told, why) = output(&["image", "pull", "--json", &pulled]);
    assert_eq!(code, 0, "{why}");
    assert!(told.lines().last().unwrap().contains("pulled"), "{told}");
    let (code, _, why) = output(&["image", "pull", &registry.reference("none:1")]);
    assert!(code == 1 && why.contains("none:1"), "{why}");
}
