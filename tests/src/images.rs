//! Images that a test makes of files, and of Debian's packages; they go with it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use corehold_host::runtime::docker::{Docker, DockerAddress};
use futures_util::{StreamExt as _, stream};

use crate::engine::{RUN_LABEL, TEST_LABEL};

/// The root file system of an image in the making.
pub struct Root(tar::Builder<Vec<u8>>);

impl Root {
    /// With nothing in it.
    #[must_use]
    pub fn empty() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Adds a program or another file that everybody may run.
    ///
    /// # Panics
    /// Never: memory is written.
    #[must_use]
    pub fn file(mut self, path: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        self.0.append_data(&mut header, path, content).expect("memory is written");
        self
    }

    /// Adds a symbolic link.
    ///
    /// # Panics
    /// Never: memory is written.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        self.0.append_link(&mut header, path, target).expect("memory is written");
        self
    }
}

/// The images of one test.
pub struct Images {
    docker: Docker,
    run: String,
    made: Vec<String>,
}

impl Images {
    /// None yet. To be made before what makes containers of them, so that it goes after that.
    ///
    /// # Panics
    /// Without an engine.
    pub async fn new() -> Self {
        let docker = Docker::connect(DockerAddress::Auto).await.expect("these tests need a container engine");
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { docker, run: format!("{}-images-{number}", std::process::id()), made: Vec::new() }
    }

    /// Makes one, with instructions as in a Dockerfile (`USER 12345`). Returns its reference.
    ///
    /// # Panics
    /// When the engine doesn't take it.
    pub async fn make(&mut self, name: &str, root: Root, instructions: &[&str]) -> String {
        let repository = format!("corehold-test/{name}");
        let mut changes = vec![format!("LABEL {TEST_LABEL}=true {RUN_LABEL}={}", self.run)];
        changes.extend(instructions.iter().map(|line| (*line).to_owned()));
        let tar = Bytes::from(root.0.into_inner().expect("memory is written"));
        self.docker
            .import_image(&repository, &self.run, changes, stream::iter([Ok(tar)]).boxed())
            .await
            .expect("the engine takes an image");
        let reference = format!("{repository}:{}", self.run);
        self.made.push(reference.clone());
        reference
    }

    /// Removes an image that came otherwise, at the end.
    pub fn also(&mut self, reference: &str) {
        self.made.push(reference.to_owned());
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        let (docker, made) = (self.docker.clone(), std::mem::take(&mut self.made));
        // A runtime of its own: the test's may be blocked right here, or gone.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(async {
                for image in made {
                    // Some were removed by the test itself, which is no error.
                    if let Err(error) = docker.remove_image(&image).await {
                        eprintln!("the image {image} of a test is left behind: {error}");
                    }
                }
            });
        });
        if removing.join().is_err() {
            eprintln!("the images of the test run {} could not be removed", self.run);
        }
    }
}

/// Files of one of Debian's packages, unpacked and not installed.
///
/// # Panics
/// Without `apt-get`, `dpkg-deb` or a way to Debian's mirror.
#[must_use]
pub fn debian_package(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("corehold-test-package-{name}"));
    if folder.is_dir() {
        return folder;
    }
    let work = tempfile::tempdir().expect("a temporary folder can be made");
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(work.path()).output();
        let output = output.unwrap_or_else(|error| panic!("these tests need {program}: {error}"));
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    if !run("apt-get", &["download", name]).0 {
        // The lists of packages may be too old, or not there.
        let (updated, why) = run("apt-get", &["update"]);
        assert!(updated, "{why}");
        let (fetched, why) = run("apt-get", &["download", name]);
        assert!(fetched, "{why}");
    }
    let package = std::fs::read_dir(work.path()).expect("it is there").next().expect("the package is there");
    let package = package.expect("its name can be read").path();
    let unpacked = work.path().join("unpacked");
    let (done, why) = run("dpkg-deb", &["-x", &package.display().to_string(), &unpacked.display().to_string()]);
    assert!(done, "{why}");
    // Whoever was faster has unpacked the same.
    if let Err(error) = std::fs::rename(&unpacked, &folder) {
        assert!(folder.is_dir(), "{error}");
    }
    folder
}

/// A static busybox, linked with glibc: a shell and what goes with it in one file.
#[must_use]
pub fn busybox() -> Root {
    let program = read(&debian_package("busybox-static").join("bin/busybox"));
    let root = Root::empty().file("bin/busybox", &program);
    ["sh", "cat", "id", "ls", "sleep", "touch", "stat", "env", "pwd"]
        .iter()
        .fold(root, |root, name| root.link(&format!("bin/{name}"), "busybox"))
}

/// Musl and one program that is linked with it dynamically, `/greet`: as in Alpine, but with no shell.
///
/// # Panics
/// Without a C compiler.
#[must_use]
pub fn musl() -> Root {
    const PROGRAM: &str = "#include <stdio.h>\nint main(void) { puts(\"musl greets\"); return 0; }\n";
    let (library, headers) = (debian_package("musl"), debian_package("musl-dev"));
    let work = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(work.path().join("greet.c"), PROGRAM).expect("the source is written");
    let development = headers.join("usr/lib/x86_64-linux-musl");
    let libc = library.join("lib/x86_64-linux-musl/libc.so");
    let output = Command::new("cc")
        .args(["-O", "-nostdinc", "-nostdlib", "-no-pie", "-fno-stack-protector", "-isystem"])
        .arg(headers.join("usr/include/x86_64-linux-musl"))
        .args(["-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1", "-o", "greet"])
        .args([development.join("crt1.o"), development.join("crti.o")])
        .arg("greet.c")
        // By its name and not by its path, since it has no `SONAME`.
        .arg("-L")
        .arg(library.join("lib/x86_64-linux-musl"))
        .args(["-l:libc.so".into(), development.join("crtn.o")])
        .current_dir(work.path())
        .output()
        .expect("these tests need a C compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Root::empty()
        .file("lib/x86_64-linux-musl/libc.so", &read(&libc))
        .link("lib/ld-musl-x86_64.so.1", "x86_64-linux-musl/libc.so")
        .link("lib/libc.so", "x86_64-linux-musl/libc.so")
        .file("greet", &read(&work.path().join("greet")))
}

/// A file that must be there.
///
/// # Panics
/// When it isn't.
#[must_use]
pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
