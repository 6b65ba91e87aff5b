//! Named volumes are counted like workspaces are.

use super::*;
use crate::{CreateVolume, labels, runtime::VolumeSpec, state::CountedVolume, volume::engine_name};

fn two_each() -> Policy {
    Policy::new()
        .plan(Plan::new("basic").totals(Totals::unlimited().volumes(2)))
        .each_team(Totals::unlimited().volumes(3))
}

#[tokio::test]
async fn of_all_who_make_volumes_at_once_as_many_get_one_as_there_is_room_for() {
    let fixture = fixture().await;
    let policy = Policy::new().host(Totals::unlimited().volumes(7));
    let hosts = [ruled(&fixture, policy.clone()).await, ruled(&fixture, policy.clone()).await];
    let create = |number: usize| {
        let volumes = hosts[number % 2].volumes();
        async move { volumes.create(CreateVolume::new(format!("v{number}"))).await }
    };
    let (made, refused): (Vec<_>, Vec<_>) =
        futures_util::future::join_all((0..30).map(create)).await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (7, 23));
    for refused in refused {
        let quota = quota(refused);
        assert_eq!((quota.account, quota.measure, quota.limit, quota.used), (Account::Host, Measure::Volumes, 7, 7));
    }
    let listed = hosts[0].volumes().list().await.unwrap();
    assert_eq!(listed.len(), 7, "for what was refused nothing was made");
    assert_eq!(hosts[1].usage(&Account::Host).await.unwrap().used.volumes, Some(7));
    hosts[1].volumes().remove(&listed[0].name).await.unwrap();
    hosts[0].volumes().create(CreateVolume::new("room-again")).await.unwrap();
}

#[tokio::test]
async fn whose_a_volume_is_says_of_whose_it_is_one() {
    let fixture = fixture().await;
    let volumes = ruled(&fixture, two_each()).await.volumes();
    let of = |name: &str, owner: &str| CreateVolume::new(name).owner(owner).team("acme");
    volumes.create(of("a1", "ada")).await.unwrap();
    volumes.create(of("a2", "ada")).await.unwrap();
    let quota = quota(volumes.create(of("a3", "ada")).await);
    assert_eq!(quota.to_string(), r#"the owner "ada" has 2 of at most 2 volumes (plan basic)"#);
    let taken = volumes.create(of("a1", "ada")).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists, "that there is one comes before that there is no room");
    volumes.create(of("b1", "bob")).await.unwrap();
    let full = super::quota(volumes.create(of("b2", "bob")).await);
    assert_eq!((full.account, full.used), (Account::Team("acme".to_owned()), 3));
    volumes.create(CreateVolume::new("b2").owner("bob")).await.unwrap();
    volumes.create(CreateVolume::new("nobodys")).await.unwrap();
}

/// What the engine has counts, also what the store has never heard of; and what it hasn't, doesn't.
#[tokio::test]
async fn the_engines_word_counts_for_volumes_that_others_made_or_removed() {
    let fixture = fixture().await;
    let host = ruled(&fixture, two_each()).await;
    let fingerprint = &host.inner.fingerprint;
    let mut all = labels::of_home(fingerprint);
    all.extend([(labels::VOLUME.to_owned(), "old".to_owned()), (labels::OWNER.to_owned(), "ada".to_owned())]);
    let spec = VolumeSpec { name: engine_name(fingerprint, "old"), labels: all, image: String::new() };
    host.inner.runtime.create_volume(&spec).await.unwrap();
    // One that a killed host was about to make, and one that a living one makes just now.
    let of_ada = |name: &str| CountedVolume { name: name.to_owned(), owner: Some("ada".to_owned()), team: None };
    let added =
        |name: &str, maker: &str| host.inner.store.add_volume(Default::default(), of_ada(name), maker.to_owned());
    added("cut-off", "killed").await.unwrap().unwrap();
    let theirs = added("just-now", fixture.host.inner.process.name()).await.unwrap().unwrap();

    let create = async |name: &str| host.volumes().create(CreateVolume::new(name).owner("ada")).await;
    assert_eq!(quota(create("new").await).used, 2, "what is being made counts");
    host.inner.store.volume_made(theirs).await.unwrap();
    create("new").await.unwrap();
    assert_eq!(host.usage(&owner("ada")).await.unwrap().used.volumes, Some(2));
    host.inner.runtime.remove_volume(&spec.name).await.unwrap();
    host.volumes().list().await.unwrap();
    assert_eq!(host.usage(&owner("ada")).await.unwrap().used.volumes, Some(1));
    create("cut-off").await.unwrap();
}

#[test]
fn totals_of_before_say_nothing_of_volumes() {
    let totals: Totals = serde_json::from_str(r#"{"workspaces": 3}"#).unwrap();
    assert_eq!(totals, Totals::unlimited().workspaces(3));
    assert_eq!(serde_json::to_string(&totals).unwrap(), r#"{"workspaces":3}"#);
}
