//! Confinement against real directories, by the kernel's resolution and by the walk alike.

use std::{
    fs,
    os::unix::{ffi::OsStringExt as _, fs::symlink},
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;

struct Tree {
    _outer: tempfile::TempDir,
    outside: PathBuf,
    inside: PathBuf,
}

impl Tree {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        let (outside, inside) = (outer.path().join("outside"), outer.path().join("app"));
        fs::create_dir(&outside).unwrap();
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        fs::write(inside.join("a/file"), "inside").unwrap();
        Self { _outer: outer, outside, inside }
    }

    /// The same root twice: as this kernel resolves it, and as one without `openat2` would.
    fn roots(&self) -> [Root; 2] {
        let kernel = Root::open(&self.inside).unwrap();
        assert!(kernel.kernel_resolves, "this kernel has openat2");
        let mut walking = Root::open(&self.inside).unwrap();
        walking.kernel_resolves = false;
        [kernel, walking]
    }
}

fn read(root: &Root, path: &str) -> Result<String, Code> {
    let opened = root.open_file(&path.into()).map_err(|problem| problem.code)?;
    Ok(io::read_to_string(opened.file).unwrap())
}

#[test]
fn what_stays_inside_is_found_however_it_is_named() {
    let tree = Tree::new();
    symlink("a/file", tree.inside.join("relative")).unwrap();
    symlink(tree.inside.join("a/file"), tree.inside.join("absolute")).unwrap();
    symlink(tree.inside.join("a"), tree.inside.join("directory")).unwrap();
    symlink("../absolute", tree.inside.join("a/chain")).unwrap();
    for root in tree.roots() {
        let absolute = tree.inside.join("a/file").into_os_string().into_string().unwrap();
        for path in
            ["a/file", "./a//file", "a/b/../file", "relative", "absolute", "directory/file", "a/chain", &absolute]
        {
            assert_eq!(read(&root, path).as_deref(), Ok("inside"), "{path} by {}", root.guard());
        }
    }
}

#[test]
fn nothing_outside_is_reached_however_it_is_named() {
    let tree = Tree::new();
    symlink("../outside/secret", tree.inside.join("relative")).unwrap();
    symlink(tree.outside.join("secret"), tree.inside.join("absolute")).unwrap();
    symlink(&tree.outside, tree.inside.join("directory")).unwrap();
    symlink("..", tree.inside.join("up")).unwrap();
    symlink(tree.inside.join("../outside/secret"), tree.inside.join("seems-inside")).unwrap();
    symlink("/proc/self/root", tree.inside.join("magic")).unwrap();
    for root in tree.roots() {
        for path in [
            "../outside/secret",
            "a/../../outside/secret",
            "relative",
            "absolute",
            "directory/secret",
            "up/outside/secret",
            "seems-inside",
            "magic/etc/passwd",
            "/etc/passwd",
            "..",
        ] {
            assert_eq!(read(&root, path), Err(Code::PathOutsideRoot), "{path} by {}", root.guard());
        }
    }
}

#[test]
fn what_is_not_a_file_is_said_and_never_waited_for() {
    let tree = Tree::new();
    rustix::fs::mknodat(rustix::fs::CWD, tree.inside.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(tree.inside.join("socket")).unwrap();
    symlink("loop", tree.inside.join("loop")).unwrap();
    symlink("nothing", tree.inside.join("dangling")).unwrap();
    for root in tree.roots() {
        for (path, code) in [
            ("pipe", Code::NotAFile),
            ("socket", Code::NotAFile),
            ("a", Code::NotAFile),
            ("", Code::NotAFile),
            ("a/file/", Code::NotADirectory),
            ("a/file/x", Code::NotADirectory),
            ("loop", Code::InvalidRequest),
            ("dangling", Code::NotFound),
            ("missing", Code::NotFound),
            (&"n".repeat(256), Code::InvalidRequest),
        ] {
            assert_eq!(read(&root, path), Err(code), "{path} by {}", root.guard());
        }
        assert_eq!(root.open_directory(&"a/file".into()).unwrap_err().code, Code::NotADirectory);
        assert!(root.open_directory(&"a/b/".into()).is_ok() && root.open_directory(&"".into()).is_ok());
    }
}

#[test]
fn names_of_any_bytes_are_names() {
    let tree = Tree::new();
    let name = OsString::from_vec(b"caf\xe9".to_vec());
    fs::write(tree.inside.join(&name), "latin").unwrap();
    for root in tree.roots() {
        let opened = root.open_file(&WorkspacePath::from_bytes(b"caf\xe9")).unwrap();
        assert_eq!(opened.size(), 5);
    }
}

#[test]
fn a_place_follows_the_last_link_only_when_asked() {
    let tree = Tree::new();
    symlink("a/new", tree.inside.join("link")).unwrap();
    symlink("../outside/new", tree.inside.join("escape")).unwrap();
    for root in tree.roots() {
        let place = root.place(&"link".into(), FinalLink::Follow).unwrap();
        assert_eq!(place.name, "new");
        assert!(stat_at(place.directory.as_fd(), OsStr::new("file")).is_ok(), "the directory is a/");
        assert_eq!(root.place(&"link".into(), FinalLink::Keep).unwrap().name, "link");
        assert_eq!(root.place(&"escape".into(), FinalLink::Follow).unwrap_err().code, Code::PathOutsideRoot);
        assert_eq!(root.place(&"a/..".into(), FinalLink::Keep).unwrap_err().code, Code::NotAFile);
        assert_eq!(root.place(&"".into(), FinalLink::Keep).unwrap_err().code, Code::NotAFile);
    }
}

#[test]
fn directories_made_on_the_way_are_unmade_unless_kept() {
    let tree = Tree::new();
    symlink("nowhere", tree.inside.join("dangling")).unwrap();
    symlink("../outside", tree.inside.join("out")).unwrap();
    for root in tree.roots() {
        drop(root.make_directory(&"x/y/z".into()).unwrap());
        assert!(!tree.inside.join("x").exists());
        drop(root.make_directory(&"a/b".into()).unwrap());
        assert!(tree.inside.join("a/b").exists(), "what was there stays");
        let made = root.make_directory(&"x/y/../w/".into()).unwrap();
        assert!(tree.inside.join("x/w").is_dir() && tree.inside.join("x/y").is_dir());
        drop(made);
        assert_eq!(root.make_directory(&"a/file/x".into()).unwrap_err().code, Code::NotADirectory);
        assert_eq!(root.make_directory(&"dangling/x".into()).unwrap_err().code, Code::NotFound);
        assert_eq!(root.make_directory(&"out/x".into()).unwrap_err().code, Code::PathOutsideRoot);
        assert!(fs::read_dir(&tree.outside).unwrap().count() == 1, "nothing was made outside");
    }
}

/// Somebody swaps a directory for a link to the outside, again and again, while files are opened through it.
#[test]
fn swapping_a_directory_for_a_link_never_leads_outside() {
    let tree = Tree::new();
    fs::write(tree.outside.join("file"), "outside").unwrap();
    struct StopOnDrop<'a>(&'a AtomicBool);
    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop_also_when_this_fails = StopOnDrop(&stop);
        scope.spawn(|| {
            let (name, link) = (tree.inside.join("a"), tree.inside.join("link"));
            symlink(&tree.outside, &link).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &name, rustix::fs::CWD, &link, exchange).unwrap();
            }
        });
        for root in tree.roots() {
            let (mut reached, mut refused) = (0, 0);
            while reached < 100 || refused < 100 {
                match read(&root, "a/file") {
                    Ok(content) => {
                        assert_eq!(content, "inside");
                        reached += 1;
                    }
                    Err(Code::PathOutsideRoot) => refused += 1,
                    Err(code) => panic!("{code:?} by {}", root.guard()),
                }
            }
        }
    });
}
