//! The disk fills and the agent dies, before every single change of the disk in turn: always all old or all new.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
};

use corehold_types::tools::EditResponse;

use super::*;
use crate::edit::faults::{Fault, Stopped, inject, meanwhile};

/// A workspace with everything that a transaction can meet.
pub(super) fn prepare(folder: &Path) {
    let world = World::at(folder);
    for path in
        ["crlf", "script", "gone", "moved", "swap-a", "swap-b", "again", "over", "under", "deep/kept", "untouched"]
    {
        world.put(path, format!("{path}\r\nsecond\r\nthird").as_bytes());
    }
    let path = |name: &str| folder.join(name);
    std::fs::set_permissions(path("script"), PermissionsExt::from_mode(0o751)).unwrap();
    std::fs::set_permissions(path("crlf"), PermissionsExt::from_mode(0o640)).unwrap();
    for name in ["crlf", "moved", "gone"] {
        rustix::fs::setxattr(path(name), "user.test", name.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
    }
    std::fs::hard_link(path("script"), path("script-link")).unwrap();
    std::os::unix::fs::symlink("deep/kept", path("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", path("dangling")).unwrap();
}

pub(super) fn request(durable: bool) -> EditRequest {
    let files = vec![
        file("crlf", vec![replace("crlf\nsecond", "CRLF\nsecond\nmore")]),
        file("script", vec![insert(1, "#!/bin/sh"), replace("third", "3")]),
        file("gone", vec![delete()]),
        file("dangling", vec![delete()]),
        file("moved", vec![rename("new/place/moved", false)]),
        file("swap-a", vec![rename("swap-b", false)]),
        file("swap-b", vec![replace("second", "2nd"), rename("swap-a", false)]),
        file("again", vec![rename("elsewhere", false)]),
        EditOperation::Create { content: "new".into(), overwrite: None, mode: Some(0o755) }.for_path("again"),
        file("over", vec![rename("under", true)]),
        file("link", vec![replace("third", "last")]),
        file("new/made", vec![create("made", false)]),
    ];
    EditRequest { files, durable: Some(durable), ..EditRequest::default() }
}

trait ForPath {
    fn for_path(self, path: &str) -> FileEdit;
}

impl ForPath for EditOperation {
    fn for_path(self, path: &str) -> FileEdit {
        file(path, vec![self])
    }
}

type Tree = BTreeMap<PathBuf, (Seen, Same)>;

/// What the workspace is without and with the edit.
fn expected() -> (BTreeMap<PathBuf, Seen>, BTreeMap<PathBuf, Seen>) {
    let world = World::new();
    prepare(&world.folder);
    let old = without_identity(&look(&world.folder));
    world.transact(&request(false)).unwrap();
    let new = without_identity(&look(&world.folder));
    assert!(old.len() > 12 && new.contains_key(Path::new("new/place/moved")) && !new.contains_key(Path::new("gone")));
    assert_eq!(new[Path::new("crlf")].bytes, b"CRLF\r\nsecond\r\nmore\r\nthird");
    assert_eq!(
        (new[Path::new("crlf")].mode & 0o777, new[Path::new("crlf")].extended.as_slice()),
        (0o640, &b"crlf"[..])
    );
    (old, new)
}

pub(super) struct Check {
    pub(super) old: BTreeMap<PathBuf, Seen>,
    pub(super) new: BTreeMap<PathBuf, Seen>,
}

impl Check {
    pub(super) fn new() -> Self {
        let (old, new) = expected();
        Self { old, new }
    }

    /// Whether it is all new; panics when it is neither.
    fn is_new(&self, before: &Tree, folder: &Path, what: &str) -> bool {
        let now = look(folder);
        let plain = without_identity(&now);
        if plain == self.old {
            assert_eq!(*before, now, "{what}: the old files are other files or have other times");
            return false;
        }
        let differs = |wanted: &BTreeMap<PathBuf, Seen>| {
            plain
                .iter()
                .filter(|(path, seen)| wanted.get(*path) != Some(*seen))
                .map(|(path, _)| path)
                .collect::<Vec<_>>()
        };
        assert!(
            plain == self.new,
            "{what}: neither old (but for {:?}) nor new (but for {:?})",
            differs(&self.old),
            differs(&self.new)
        );
        for path in ["untouched", "under", "new/place/moved", "elsewhere"] {
            let old = match path {
                "under" => "over",
                "new/place/moved" => "moved",
                "elsewhere" => "again",
                path => path,
            };
            assert_eq!(
                now[Path::new(path)].1,
                before[Path::new(old)].1,
                "{what}: {path} is another file or has another time"
            );
        }
        true
    }
}

const VARIANTS: [(bool, bool); 4] = [(true, false), (false, true), (true, true), (false, false)];

#[test]
fn a_full_disk_at_any_step_leaves_all_old() {
    let check = Check::new();
    for (durable, exchanges) in VARIANTS {
        for fault in [Fault::FullOnce, Fault::FullFrom] {
            let mut failed = 0;
            for step in 0.. {
                let world = World::new();
                prepare(&world.folder);
                let before = look(&world.folder);
                inject(fault(step), exchanges);
                let result: Result<EditResponse, Problem> = world.transact(&request(durable));
                let steps = inject(Fault::None, exchanges);
                // What could not be cleaned up at once is, before the next transaction.
                world.edits.settle(&world.root).unwrap();
                let what = format!("{:?}, durable {durable}, exchanges {exchanges}", fault(step));
                let is_new = check.is_new(&before, &world.folder, &what);
                assert_eq!(is_new, result.is_ok(), "{what}: {result:?}");
                match result {
                    Err(problem) => {
                        assert_eq!(problem.code, Code::DiskFull, "{what}: {problem}");
                        failed += 1;
                    }
                    Ok(_) if steps <= step => break,
                    Ok(_) => {}
                }
            }
            assert!(failed > 20, "only {failed} steps failed");
        }
    }
    inject(Fault::None, true);
}

/// Nothing can be undone then, until the disk is well again.
#[test]
fn a_disk_that_breaks_at_any_step_leaves_all_old_or_all_new_once_it_is_well() {
    let check = Check::new();
    let mut unfinished = 0;
    for step in 0.. {
        let world = World::new();
        prepare(&world.folder);
        let before = look(&world.folder);
        inject(Fault::BrokenFrom(step), true);
        let result = world.transact(&request(false));
        let steps = inject(Fault::None, true);
        unfinished += u32::from(world.edits.unfinished.load(Ordering::Acquire));
        world.edits.settle(&world.root).unwrap();
        let is_new = check.is_new(&before, &world.folder, &format!("broken from {step}"));
        assert_eq!(is_new, result.is_ok(), "broken from {step}: {result:?}");
        if steps <= step {
            break;
        }
    }
    assert!(unfinished > 10, "only {unfinished} transactions were left half-way");
}

/// The work stops dead at any step, and so does its recovery, and the recovery of that.
#[test]
fn recoveries_that_are_cut_off_themselves_come_to_the_same_end() {
    let check = Check::new();
    let stops = |work: &mut dyn FnMut()| match catch_unwind(AssertUnwindSafe(work)) {
        Ok(()) => false,
        Err(stopped) if stopped.is::<Stopped>() => true,
        Err(failed) => std::panic::resume_unwind(failed),
    };
    let mut both = [0, 0];
    for (durable, exchanges) in [(false, true), (false, false)] {
        for step in 0.. {
            let mut done = false;
            for again in 0.. {
                let world = World::new();
                prepare(&world.folder);
                let before = look(&world.folder);
                inject(Fault::Stop(step), exchanges);
                done = !stops(&mut || drop(world.transact(&request(durable)).unwrap()));
                // Another agent finds it, twice.
                inject(Fault::Stop(again), exchanges);
                let recovered = !stops(&mut || {
                    recover(&Edits::default(), &world.root).unwrap();
                });
                inject(Fault::None, exchanges);
                recover(&Edits::default(), &world.root).unwrap();
                let is_new =
                    check.is_new(&before, &world.folder, &format!("step {step}, then {again}, exchanges {exchanges}"));
                both[usize::from(is_new)] += 1;
                if recovered {
                    break;
                }
            }
            if done {
                break;
            }
        }
    }
    assert!(both[0] > 100 && both[1] > 20, "old and new: {both:?}");
    inject(Fault::None, true);
}

const FOLDER: &str = "COREHOLD_TEST_FAULT_FOLDER";
const STEP: &str = "COREHOLD_TEST_FAULT_STEP";
const EXCHANGES: &str = "COREHOLD_TEST_FAULT_EXCHANGES";

/// The victim of the next test: it edits, and is killed while it does. Without a folder it checks that nobody is killed
/// without being asked to.
#[test]
fn victim() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        let world = World::with(&[("a", "b")]);
        world.edit(vec![file("a", vec![replace("b", "c")])]).unwrap();
        return;
    };
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let exchanges = number(EXCHANGES) == 1;
    let world = World::at(Path::new(&folder));
    inject(Fault::Kill(number(STEP)), exchanges);
    world.transact(&request(!exchanges)).unwrap();
}

/// Edits in a process of its own, which is killed before this step, if it comes so far.
pub(super) fn edit_until_killed(folder: &Path, step: u64, exchanges: bool) -> std::process::Output {
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "edit::tests::faults::victim", "--test-threads=1"]);
    victim.env(FOLDER, folder).env(STEP, step.to_string()).env(EXCHANGES, u8::from(exchanges).to_string());
    victim.output().unwrap()
}

#[test]
fn kill_9_at_any_step_leaves_all_old_or_all_new() {
    use std::os::unix::process::ExitStatusExt as _;
    let check = Check::new();
    for exchanges in [true, false] {
        let mut both = [0, 0];
        for step in 0.. {
            let world = World::new();
            prepare(&world.folder);
            let before = look(&world.folder);
            let output = edit_until_killed(&world.folder, step, exchanges);
            recover(&world.edits, &world.root).unwrap();
            let is_new = check.is_new(&before, &world.folder, &format!("killed at step {step}, exchanges {exchanges}"));
            if output.status.success() {
                assert!(is_new && step > 50, "no step {step}");
                break;
            }
            let out = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.signal(), Some(9), "step {step}: {out}");
            both[usize::from(is_new)] += 1;
        }
        assert!(both[0] > 20 && both[1] > 2, "old and new: {both:?}");
    }
}

/// Somebody else writes a file that is being edited, in any moment: neither their work nor the edit is lost.
#[test]
fn what_others_write_meanwhile_is_never_lost() {
    for in_place in [true, false] {
        for exchanges in [true, false] {
            let mut raced = 0;
            let mut lost = 0;
            for step in 0.. {
                let world = World::with(&[("a", "old\n"), ("b", "old\n")]);
                let path = world.folder.join("a");
                meanwhile(move || {
                    let text = std::fs::read_to_string(&path).unwrap();
                    if in_place {
                        std::fs::write(&path, format!("{text}theirs\n")).unwrap();
                    } else {
                        std::fs::write(path.with_extension("tmp"), format!("{text}theirs\n")).unwrap();
                        std::fs::rename(path.with_extension("tmp"), &path).unwrap();
                    }
                });
                inject(Fault::Else(step), exchanges);
                let first_line = |path: &str| file(path, vec![insert(1, "ours")]);
                world.edit(vec![first_line("b"), first_line("a")]).unwrap();
                let steps = inject(Fault::None, exchanges);
                let reached = steps > step;
                let wanted = if reached { "ours\nold\ntheirs\n" } else { "ours\nold\n" };
                // Without the kernel's exchange there is one moment, between two calls, in which a rename by others goes unseen.
                if world.text("a") == "ours\nold\n" && !in_place && !exchanges && reached {
                    lost += 1;
                } else {
                    assert_eq!(world.text("a"), wanted, "step {step}, in place {in_place}, exchanges {exchanges}");
                }
                assert_eq!(world.text("b"), "ours\nold\n");
                assert_eq!(look(&world.folder).len(), 2, "step {step}: litter");
                if !reached {
                    break;
                }
                raced += 1;
            }
            assert!(raced > 10 && lost <= 1, "raced {raced} times, lost {lost}");
        }
    }
    inject(Fault::None, true);
}

#[test]
fn journals_that_make_no_sense_harm_nothing() {
    let world = World::with(&[("a", "a"), ("b", "b")]);
    let folder = world.folder.join(crate::root::JOURNALS);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("aaaaaaaaaaaaaaaa"), "").unwrap();
    std::fs::write(folder.join("bbbbbbbbbbbbbbbb"), vec![0xff; 100_000]).unwrap();
    let recovered = recover(&world.edits, &world.root).unwrap();
    assert_eq!((recovered.damaged, recovered.undone), (2, 0));
    assert_eq!(look(&world.folder).len(), 2);
    // Somebody put a link where journals go.
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), &folder).unwrap();
    assert!(recover(&world.edits, &world.root).is_err());
    assert!(world.edit(vec![file("a", vec![replace("a", "b")])]).is_err());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}
