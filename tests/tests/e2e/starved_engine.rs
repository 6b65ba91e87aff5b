//! An engine that has no disk, no addresses or no processes left, and a machine that has no disk left.

use std::{fs, path::PathBuf};

use corehold_e2e::own_engine::run_apart;

/// A control group that counts processes, removed with this.
struct Group(PathBuf);

impl Group {
    fn new() -> Self {
        let name = format!("corehold-test-{}", std::process::id());
        // Control groups of version 1, or of version 2.
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(PathBuf::from);
        let counts = |root: &&PathBuf| {
            fs::create_dir(root.join(&name)).is_ok() && {
                let counts = root.join(&name).join("pids.max").exists();
                if !counts {
                    let _ = fs::remove_dir(root.join(&name));
                }
                counts
            }
        };
        let root = roots.iter().find(counts).expect(
            "this needs root and control groups that count processes; `-- --skip starved_engine` leaves it out",
        );
        Self(root.join(name))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

#[test]
fn what_it_runs_out_of_is_told_and_when_there_is_room_all_goes_on() {
    let group = Group::new();
    run_apart(env!("CARGO_BIN_EXE_starved_engine"), &[&group.0], "all is well again", "starved_engine");
}
