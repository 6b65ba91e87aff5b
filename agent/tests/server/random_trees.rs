//! Confinement as a property: random trees of directories, files and links, which somebody renames, exchanges and links anew while every
//! tool and route that takes a path is asked with random ones. Nothing outside is told or changed, whether the kernel resolves or, where
//! it has no `openat2`, the agent does. A run that fails says its seed; `COREHOLD_TEST_SEED` begins with it.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

use super::{
    asking::{HIDDEN, Random, SECRET, archive, ask, changed_long_ago, directory, snapshot, tools_with_paths},
    support::TestAgent,
};

/// Trees that a run tries, each with an agent of its own.
const TREES: u64 = 8;
/// Calls of each of two workers on each tree.
const CALLS: usize = 110;
/// How often in a row two things change their places.
const FLICKERS: usize = 500;
/// What is made of a tree before anybody is asked.
const MADE: usize = 90;

/// Names inside and outside alike, so that a path that leads out finds something there.
const NAMES: &[&str] = &["d", "e", "k", "l", "file", "m"];
const PARTS: &[&str] = &["d", "d", "e", "e", "k", "l", "l", "file", "m", "..", ".", "new"];
const FOLDERS: &[&str] = &[".", "d", "e", "l", "d/e", "e/d", "l/d", "d/..", "k/../e", "new"];

fn random(seed: u64) -> Random {
    Random::new(seed, PARTS, FOLDERS)
}

/// Directories and files outside, by the same names.
fn outside(folder: &Path) {
    for directory in ["", "d", "e", "l", "d/e", "e/d", "d/l", "noise"] {
        let directory = folder.join(directory);
        fs::create_dir_all(&directory).unwrap();
        for file in ["file", "k", "m", "file0"] {
            fs::write(directory.join(file), SECRET).unwrap();
        }
        fs::write(directory.join(format!("{HIDDEN}-{}", directory.components().count())), SECRET).unwrap();
    }
    changed_long_ago(folder);
}

/// Removes a name and what is beneath it, following nothing.
fn clear(above: BorrowedFd<'_>, name: &OsStr) {
    if rustix::fs::unlinkat(above, name, AtFlags::empty()).is_ok() {
        return;
    }
    let Ok(inside) = directory(above, name) else { return };
    let listed = fs::read_dir(format!("/proc/self/fd/{}", inside.as_raw_fd()));
    listed.into_iter().flatten().flatten().for_each(|entry| clear(inside.as_fd(), &entry.file_name()));
    let _ = rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR);
}

/// Who changes a tree: by descriptors that were opened without following a link, so that it never does anything outside itself.
struct Hand {
    root: OwnedFd,
    random: Random,
    /// Where the root is, and the folder outside.
    places: [PathBuf; 2],
}

impl Hand {
    fn on(root: &Path, outside: &Path, seed: u64) -> Self {
        let places = [root.to_owned(), outside.to_owned()];
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self { root: rustix::fs::open(root, flags, Mode::empty()).unwrap(), random: random(seed), places }
    }

    /// Some directory, and how deep in the tree it was when it was opened.
    fn somewhere(&mut self) -> (OwnedFd, usize) {
        let mut found = (self.root.try_clone().unwrap(), 0);
        for _ in 0..self.random.below(4) {
            match directory(found.0.as_fd(), self.random.of(NAMES)) {
                Ok(next) => found = (next, found.1 + 1),
                Err(_) => break,
            }
        }
        found
    }

    /// Where a link may lead: anywhere inside, to nothing, to itself, to another link, up, out.
    fn target(&mut self, depth: usize) -> String {
        let path = self.random.path();
        let [root, outside] = [0, 1].map(|place| self.places[place].to_str().unwrap());
        let up = "../".repeat(depth + usize::from(self.random.below(4) > 0));
        match self.random.below(12) {
            0 | 1 => path,
            2 => format!("{root}/{path}"),
            3 => format!("{up}{path}"),
            4 => format!("{up}outside"),
            5 => format!("{up}outside/{path}"),
            6 | 7 => outside.to_owned(),
            8 => format!("{outside}/{}", self.random.of(NAMES)),
            9 => format!("/proc/self/root{outside}"),
            10 => format!("{root}/../outside/{path}"),
            _ => self.random.of(&[".", "..", "d/", "../..", "/"]).to_owned(),
        }
    }

    fn link(&mut self) {
        let (above, depth) = self.somewhere();
        let (name, target) = (self.random.of(NAMES), self.target(depth));
        clear(above.as_fd(), name.as_ref());
        let _ = rustix::fs::symlinkat(target, &above, name);
    }

    /// A directory with some files in it, so that a tool that goes through them isn't done at once.
    fn fill(&mut self) {
        let (above, _) = self.somewhere();
        let name = self.random.of(NAMES);
        let _ = rustix::fs::mkdirat(&above, name, Mode::RWXU);
        let Ok(inside) = directory(above.as_fd(), name) else { return };
        for file in ["file", "m", "file0", "file1", "file2", "file3"] {
            self.file(inside.as_fd(), file);
        }
    }

    fn file(&self, above: BorrowedFd<'_>, name: &str) {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::openat(above, name, flags, Mode::from_raw_mode(0o600)) {
            let _ = rustix::io::write(file, b"inside");
        }
    }

    fn rename(&mut self, flags: RenameFlags) -> bool {
        let ((from, _), (to, _)) = (self.somewhere(), self.somewhere());
        let (name, other) = (self.random.of(NAMES), self.random.of(NAMES));
        rustix::fs::renameat_with(from, name, to, other, flags).is_ok()
    }

    /// A directory and a link to the outside that change their places so fast that a look at a name and its use seldom see the same; says
    /// how often they did.
    fn flicker(&mut self) -> usize {
        // Often in the root, by which every path goes.
        let above = if self.random.below(2) == 0 { self.root.try_clone().unwrap() } else { self.somewhere().0 };
        let (name, link) = (self.random.of(NAMES), self.random.of(NAMES));
        // What is no directory gives way to one, and whatever is in the link's place to that.
        let _ = rustix::fs::unlinkat(&above, name, AtFlags::empty());
        let _ = rustix::fs::mkdirat(&above, name, Mode::RWXU);
        clear(above.as_fd(), link.as_ref());
        let outside = self.places[1].join(self.random.of(&["", "d", "e"]));
        let _ = rustix::fs::symlinkat(outside, &above, link);
        let exchange = || rustix::fs::renameat_with(&above, name, &above, link, RenameFlags::EXCHANGE).is_ok();
        (0..FLICKERS).take_while(|_| exchange()).count()
    }

    /// What a tree is at first.
    fn make(&mut self) {
        for _ in 0..MADE {
            if self.random.below(3) == 0 { self.link() } else { self.fill() }
        }
    }

    /// Changes it until told to stop; says how often two things have changed their places.
    fn go_on(mut self, stop: &AtomicBool) -> usize {
        let mut exchanged = 0;
        for round in 0_usize.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match self.random.below(16) {
                0 | 1 => self.link(),
                2 | 3 => self.fill(),
                4 | 5 => _ = self.rename(RenameFlags::empty()),
                6..=9 => exchanged += self.flicker(),
                _ => exchanged += usize::from(self.rename(RenameFlags::EXCHANGE)),
            }
            if round % 64 == 0 {
                // What a watch would see that had left the root.
                let noise = self.places[1].join(format!("noise/{HIDDEN}-noise"));
                fs::write(&noise, SECRET).unwrap();
                fs::remove_file(&noise).unwrap();
            }
        }
        exchanged
    }
}

/// Tells the hand to stop, also when a test fails.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One tree. Counts, for each tool and route, the calls and those that were done.
async fn try_tree(seed: u64, guard: &str, counted: &mut BTreeMap<String, (usize, usize)>) {
    // Shown when it fails.
    eprintln!("COREHOLD_TEST_SEED={seed}, by {guard}");
    let agent = Arc::new(TestAgent::new());
    assert_eq!(agent.agent.root.guard(), guard);
    let (root, out) = (agent.root().to_owned(), agent.outside().join("outside"));
    outside(&out);
    fs::write(root.join("archive.tar"), archive()).unwrap();
    let mut hand = Hand::on(&root, &out, seed);
    hand.make();
    let before = snapshot(agent.outside());
    let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
    let hand = std::thread::spawn({
        let stop = Arc::clone(&stop.0);
        move || hand.go_on(&stop)
    });
    let workers: Vec<_> = (0..2)
        .map(|worker| {
            let agent = Arc::clone(&agent);
            tokio::spawn(async move {
                let mut random = random(seed << 2 | 2 | worker);
                let tools = tools_with_paths(&mut random);
                let mut asked = Vec::new();
                for _ in 0..CALLS {
                    asked.push(ask(&agent, &mut random, &tools).await);
                }
                asked
            })
        })
        .collect();
    for worker in workers {
        for (name, done) in worker.await.unwrap() {
            let (calls, successes) = counted.entry(name).or_default();
            (*calls, *successes) = (*calls + 1, *successes + usize::from(done));
        }
    }
    drop(stop);
    let exchanged = hand.join().unwrap();
    eprintln!("  {exchanged} exchanges");
    assert!(exchanged > 20, "{exchanged} exchanges");
    assert_eq!(snapshot(agent.outside()), before);
}

/// All trees, on threads that are made by this one, which therefore has what this one hasn't.
fn try_trees(guard: &str) {
    let first = std::env::var("COREHOLD_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut counted = BTreeMap::new();
    runtime.block_on(async {
        for seed in first..first + TREES {
            try_tree(seed, guard, &mut counted).await;
        }
    });
    eprintln!("calls, and those that were done: {counted:?}");
    for tool in tools_with_paths(&mut random(0)) {
        assert!(counted.get(&tool).is_some_and(|(_, done)| *done > 0), "{tool} was never done: {counted:?}");
    }
}

#[test]
fn no_tool_leads_out_of_a_random_tree_as_the_kernel_resolves() {
    try_trees("openat2");
}

#[test]
fn no_tool_leads_out_of_a_random_tree_where_the_kernel_cannot_resolve() {
    let without = std::thread::spawn(|| {
        take_openat2_away();
        try_trees("component-walk");
    });
    if let Err(panic) = without.join() {
        std::panic::resume_unwind(panic);
    }
}

/// From here on this thread and those that it starts get `ENOSYS` from `openat2`, as from a kernel that hasn't got it, or a container
/// engine's filter that doesn't know it.
fn take_openat2_away() {
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        // The call's number is the first field of `seccomp_data`.
        step((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0, 0),
        step((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, libc::SYS_openat2 as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program and its steps live until the call returns, and the kernel copies them.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) == 0
    };
    assert!(installed, "{}", std::io::Error::last_os_error());
}
