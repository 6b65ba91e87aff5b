//! What is kept between searches: the same answers with it as without, whatever happens to the files in between.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, SystemTime},
};

use corehold_agent::{
    calls::Loan,
    config::Limits,
    root::Root,
    search::{
        Control,
        kept::{Kept, KeptOptions, Lookup, gather},
        plan::{SearchPlan, max_matches},
        run,
    },
};
use corehold_types::{
    Problem,
    tools::{SearchEvent, SearchRequest, SearchResponse},
};
use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence},
};
use tempfile::TempDir;

use crate::{
    support::{paths, pattern},
    trees,
};

/// On the disk: in memory a file's times say less, and nothing is kept.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Keeps what it can of files that were made just now.
fn kept() -> Kept {
    Kept::new(KeptOptions { now: in_an_hour, worth: 1, ..KeptOptions::default() })
}

fn in_an_hour() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3_600)
}

/// What a search finds, in the order of paths, and how many files it didn't have to read.
type Found = Result<(SearchResponse, Vec<SearchEvent>, u64), Problem>;

fn search(folder: &Path, request: &SearchRequest, kept: Option<&Kept>) -> Found {
    let root = Root::open(folder).unwrap();
    let request = SearchRequest { sorted: Some(true), ..request.clone() };
    let plan = SearchPlan::new(&root, &Limits::default(), &request)?;
    let lookup = kept.map(|kept| Lookup::new(kept, plan.needs.as_ref()));
    let control = Control::new(max_matches(&Limits::default(), request.max_matches).unwrap());
    let events = Mutex::new(Vec::new());
    let deliver = |batch| {
        events.lock().unwrap().extend(batch);
        true
    };
    let mut response = run::run(&root, &plan, lookup.as_ref(), &control, &deliver, &|_| Ok(Loan::default()))?;
    response.elapsed_ms = 0;
    Ok((response, events.into_inner().unwrap(), lookup.map_or(0, |lookup| lookup.spared())))
}

/// Remembers what is in the files that a request leads to.
fn remember(folder: &Path, request: &SearchRequest, kept: &Kept) {
    let root = Root::open(folder).unwrap();
    if let Ok(plan) = SearchPlan::new(&root, &Limits::default(), request) {
        gather(kept, &root, &plan);
    }
}

#[track_caller]
fn same_with_and_without(folder: &Path, request: &SearchRequest, kept: &Kept) -> u64 {
    match (search(folder, request, None), search(folder, request, Some(kept))) {
        (Ok((response, events, _)), Ok((later_response, later_events, spared))) => {
            assert_eq!(later_events, events, "{request:?}");
            assert_eq!(later_response, response, "{request:?}");
            spared
        }
        (first, later) => {
            assert_eq!(later.unwrap_err().code, first.unwrap_err().code, "{request:?}");
            0
        }
    }
}

/// Waits until a change now has another time than one before had.
fn let_the_clock_tick(folder: &Path) {
    let probe = folder.join(".probe");
    let time = || {
        fs::write(&probe, "x").unwrap();
        let metadata = fs::metadata(&probe).unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let before = time();
    while time() == before {}
    fs::remove_file(probe).unwrap();
}

proptest! {
    #![proptest_config(Config {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..Config::default()
    })]

    #[test]
    fn answers_are_the_same_with_what_is_kept(
        tree in trees::tree(),
        other_tree in trees::tree(),
        requests in prop::collection::vec(trees::request(), 4),
    ) {
        let folder = folder();
        let kept = kept();
        trees::write(&tree, folder.path());
        for request in &requests {
            remember(folder.path(), request, &kept);
        }
        for request in &requests {
            same_with_and_without(folder.path(), request, &kept);
        }
        let_the_clock_tick(folder.path());
        for entry in fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).step_by(2) {
            let is_directory = entry.symlink_metadata().unwrap().is_dir();
            if is_directory { fs::remove_dir_all(entry) } else { fs::remove_file(entry) }.unwrap();
        }
        trees::write(&other_tree, folder.path());
        for request in &requests {
            same_with_and_without(folder.path(), request, &kept);
        }
    }
}

#[test]
fn files_that_lack_something_are_not_read_again() {
    let folder = folder();
    for number in 0..20 {
        fs::write(folder.path().join(format!("f{number}")), format!("fn number_{number}() {{}}\n")).unwrap();
    }
    let kept = kept();
    let request = pattern("number_7");
    assert_eq!(same_with_and_without(folder.path(), &request, &kept), 0, "nothing is known yet");
    remember(folder.path(), &request, &kept);
    assert_eq!(kept.files(), 20);
    assert_eq!(same_with_and_without(folder.path(), &request, &kept), 19);
    assert_eq!(same_with_and_without(folder.path(), &pattern("absent"), &kept), 20);
    assert_eq!(same_with_and_without(folder.path(), &pattern(r"\w+"), &kept), 0, "it may be in any");
    let inverted = SearchRequest { invert: Some(true), ..pattern("number_7") };
    assert_eq!(same_with_and_without(folder.path(), &inverted, &kept), 0);
    let encoded = SearchRequest { encoding: Some("latin1".to_owned()), ..pattern("number_7") };
    assert_eq!(same_with_and_without(folder.path(), &encoded, &kept), 0, "what is searched is not what was read");
}

/// How many files and directories a search knew nothing of.
fn unknown(folder: &Path, request: &SearchRequest, kept: &Kept) -> u64 {
    let root = Root::open(folder).unwrap();
    let plan = SearchPlan::new(&root, &Limits::default(), request).unwrap();
    let lookup = Lookup::new(kept, plan.needs.as_ref());
    run::run(&root, &plan, Some(&lookup), &Control::new(u64::MAX), &|_| true, &|_| Ok(Loan::default())).unwrap();
    lookup.unknown()
}

#[test]
fn directories_are_listed_again_when_something_in_them_has_changed() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    for directory in ["same/deep", "more", "fewer", "renamed", "swapped", "turned/file", "ignored"] {
        fs::create_dir_all(path(directory)).unwrap();
        fs::write(path(directory).join("f"), "needle\n").unwrap();
    }
    fs::write(path("fewer/g"), "needle\n").unwrap();
    let kept = kept();
    // Of a pattern that may be in any file, only directories can be known.
    let request = pattern("needle|.");
    assert_eq!(unknown(folder.path(), &request, &kept), 10);
    remember(folder.path(), &request, &kept);
    assert_eq!((kept.directories(), unknown(folder.path(), &request, &kept)), (10, 0));
    same_with_and_without(folder.path(), &request, &kept);

    let_the_clock_tick(folder.path());
    fs::write(path("more/g"), "needle\n").unwrap();
    fs::remove_file(path("fewer/g")).unwrap();
    fs::rename(path("renamed/f"), path("renamed/g")).unwrap();
    fs::rename(path("swapped"), path("aside")).unwrap();
    fs::rename(path("same"), path("swapped")).unwrap();
    fs::rename(path("aside"), path("same")).unwrap();
    fs::remove_dir_all(path("turned/file")).unwrap();
    fs::write(path("turned/file"), "needle\n").unwrap();
    fs::write(path("ignored/.gitignore"), "f\n").unwrap();
    same_with_and_without(folder.path(), &request, &kept);
    let (_, events, _) = search(folder.path(), &request, Some(&kept)).unwrap();
    let expected = ["fewer/f", "more/f", "more/g", "renamed/g", "same/f", "swapped/deep/f", "turned/file"];
    assert_eq!(paths(&events), expected);
    // All but `swapped/deep`: the root too, and what was renamed.
    assert_eq!(unknown(folder.path(), &request, &kept), 8);
}

#[test]
fn nothing_is_found_as_it_was() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let names = ["written", "touched", "replaced", "renamed", "copied", "cut", "longer", "linked", "left"];
    for name in names {
        fs::write(path(name), "nothing of interest here\n").unwrap();
    }
    let kept = kept();
    let request = pattern("needle");
    remember(folder.path(), &request, &kept);
    assert_eq!(same_with_and_without(folder.path(), &request, &kept), 9);

    let_the_clock_tick(folder.path());
    let with_needle = "needle of interest here.\n";
    let times = |name: &str| {
        let metadata = fs::metadata(path(name)).unwrap();
        fs::FileTimes::new().set_modified(metadata.modified().unwrap()).set_accessed(metadata.accessed().unwrap())
    };
    fs::write(path("written"), with_needle).unwrap();
    // As long as before, and with its old time of change: what `touch -r` and some synchronizers do.
    let before = times("touched");
    fs::write(path("touched"), with_needle).unwrap();
    fs::File::options().write(true).open(path("touched")).unwrap().set_times(before).unwrap();
    fs::write(path("new"), with_needle).unwrap();
    let before = times("replaced");
    fs::File::open(path("new")).unwrap().set_times(before).unwrap();
    fs::rename(path("new"), path("replaced")).unwrap();
    fs::remove_file(path("renamed")).unwrap();
    fs::rename(path("copied"), path("renamed")).unwrap();
    fs::write(path("copied"), with_needle).unwrap();
    fs::File::options().write(true).open(path("cut")).unwrap().set_len(3).unwrap();
    fs::write(path("longer"), format!("nothing of interest here\n{with_needle}")).unwrap();
    fs::remove_file(path("linked")).unwrap();
    std::os::unix::fs::symlink("written", path("linked")).unwrap();

    same_with_and_without(folder.path(), &request, &kept);
    let (_, events, spared) = search(folder.path(), &request, Some(&kept)).unwrap();
    assert_eq!(paths(&events), ["copied", "longer", "replaced", "touched", "written"]);
    assert_eq!(spared, 1, "the one that was left alone");
}

#[test]
fn nothing_is_kept_of_files_that_were_just_changed() {
    let folder = folder();
    fs::write(folder.path().join("f"), "nothing of interest here\n").unwrap();
    let kept = Kept::new(KeptOptions::default());
    remember(folder.path(), &pattern("needle"), &kept);
    assert_eq!((kept.files(), kept.directories()), (0, 0));
}

#[test]
fn what_is_kept_is_bounded() {
    let folder = folder();
    for number in 0..200 {
        fs::write(folder.path().join(format!("f{number}")), "nothing of interest here\n").unwrap();
    }
    let kept = Kept::new(KeptOptions { most_bytes: 4_096, now: in_an_hour, ..KeptOptions::default() });
    remember(folder.path(), &pattern("needle"), &kept);
    assert!(kept.bytes() <= 4_096 + 4_096, "{}", kept.bytes());
    assert!(kept.files() + kept.directories() > 5);
    same_with_and_without(folder.path(), &pattern("needle"), &kept);
}

#[test]
fn it_is_gathered_when_it_is_worth_it_and_given_up_after_a_rest() {
    let folder = folder();
    fs::write(folder.path().join("f"), "nothing of interest here\n").unwrap();
    let options = KeptOptions { now: in_an_hour, worth: 10, rest: Duration::from_millis(1), ..KeptOptions::default() };
    let kept = Arc::new(Kept::new(options));
    let (sender, receiver) = mpsc::sync_channel(2);
    let job = |word: &'static str| {
        let sender = sender.clone();
        let folder = folder.path().to_owned();
        move |kept: &Kept| {
            remember(&folder, &pattern("needle"), kept);
            sender.send((word, kept.files())).unwrap();
        }
    };
    kept.after_search(9, job("too few"));
    kept.after_search(10, job("enough"));
    assert_eq!(receiver.recv().unwrap(), ("enough", 1));
    // The thread lets go of it when it ends, having forgotten everything.
    while Arc::strong_count(&kept) > 1 {
        std::thread::yield_now();
    }
    assert_eq!((kept.files(), kept.directories(), kept.bytes()), (0, 0, 0));
}
