//! What is decided on which machine.

use super::*;

fn machine(is_root: bool, programs: &[&'static str]) -> Machine {
    Machine { is_root, programs: programs.iter().copied().collect(), ..Machine::default() }
}

const FRESH_DEBIAN: &[&str] = &["apt-get", "node", "npm", "rustup", "setsid"];

fn nothing_found() -> Found {
    let address = Address("unix:///var/run/docker.sock".to_owned());
    Found::None { refused: false, tried: vec![(address, "No such file or directory".to_owned())] }
}

fn daemon() -> Daemon {
    Daemon {
        command: vec!["setsid".to_owned(), "dockerd".to_owned()],
        log: "/state/dockerd.log".into(),
        address: Address("unix:///var/run/docker.sock".to_owned()),
    }
}

fn installed(plan: &Plan) -> Vec<&str> {
    let packages = merged(plan).into_iter().find_map(|action| match action {
        Action::Install(packages) => Some(packages),
        _ => None,
    });
    packages.into_iter().flatten().map(|(package, _)| package).collect()
}

#[test]
fn a_fresh_debian_gets_an_engine() {
    let machine = machine(true, FRESH_DEBIAN);
    let plan = plan(&machine, Needs::ENGINE, Some(&nothing_found()), false);
    assert_eq!(installed(&plan), ["docker.io", "iptables", "debootstrap"]);
    assert_eq!(plan.needed.last(), Some(&Action::StartDaemon));
    assert_eq!(obstacle(&machine, &plan, true), None);
}

#[test]
fn systemd_starts_its_own_services() {
    let machine = Machine { has_systemd: true, ..machine(true, FRESH_DEBIAN) };
    let plan = plan(&machine, Needs::ENGINE, Some(&nothing_found()), false);
    assert_eq!(plan.needed.last(), Some(&Action::StartService));
}

#[test]
fn an_engine_that_answers_is_left_as_it_is() {
    let found = Found::Answering(Address("unix:///elsewhere.sock".to_owned()));
    for (has_base, wanted) in [(true, &[][..]), (false, &["debootstrap"])] {
        let plan = plan(&machine(true, FRESH_DEBIAN), Needs::ENGINE, Some(&found), has_base);
        assert!(plan.needed.is_empty(), "{plan:?}");
        assert_eq!(installed(&plan), wanted);
    }
}

#[test]
fn an_installed_engine_is_only_started() {
    let machine =
        machine(true, &["dockerd", "iptables", "setsid", "debootstrap", "npm", "node", "pip3", "python3", "vi", "top"]);
    let plan = plan(&machine, Needs::EVERYTHING, Some(&nothing_found()), false);
    assert_eq!(merged(&plan), [Action::StartDaemon]);
}

#[test]
fn unit_tests_need_no_engine() {
    let needs = Needs { engine: false, ..Needs::EVERYTHING };
    let machine = Machine { missing_components: vec!["clippy"], ..machine(true, &["apt-get", "rustup"]) };
    let plan = plan(&machine, needs, None, false);
    assert_eq!(installed(&plan), ["nodejs", "npm", "python3", "python3-pip", "vim-tiny", "procps"]);
    assert_eq!(plan.needed.last(), Some(&Action::AddComponents(vec!["clippy"])));
}

#[test]
fn podman_is_unpacked_beside_an_engine_and_run_by_root_alone() {
    let found = Found::Answering(Address("unix:///elsewhere.sock".to_owned()));
    let needs = Needs { podman: true, ..Needs::ENGINE };
    let root = machine(true, &["apt-get", "ip", "iptables"]);
    let fetched = plan(&root, needs, Some(&found), true);
    assert_eq!(fetched.needed, [Action::UnpackPodman], "nothing is installed in the system");
    assert!(obstacle(&root, &fetched, false).unwrap().contains("--no-install"));
    assert_eq!(plan(&machine(true, &["ip", "iptables", "podman"]), needs, Some(&found), true), Plan::default());

    let user = machine(false, &["apt-get", "ip", "iptables", "podman"]);
    let refused = plan(&user, needs, Some(&found), true);
    assert_eq!(obstacle(&user, &refused, true), Some("only root may install and start these"));
    let lines: Vec<_> = refused.needed.iter().flat_map(missing).collect();
    assert_eq!(lines, ["root, to run Podman beside this machine's engine"]);
}

#[test]
fn the_newest_engine_is_built_with_go() {
    let found = Found::Answering(Address("unix:///elsewhere.sock".to_owned()));
    let needs = Needs { newest_docker: true, ..Needs::ENGINE };
    let plan = plan(&machine(true, &["apt-get", "ip", "iptables"]), needs, Some(&found), true);
    assert_eq!(installed(&plan), ["golang", "libseccomp-dev"]);
}

#[test]
fn what_fuzzes_is_installed_into_the_target_folder_by_anybody() {
    let user = machine(false, &["c++"]);
    let fuzzing = plan(&user, Needs::FUZZING, None, false);
    assert_eq!(fuzzing.needed, [Action::InstallCargoFuzz]);
    assert_eq!(obstacle(&user, &fuzzing, true), None);
    assert!(obstacle(&user, &fuzzing, false).unwrap().contains("--no-install"));
    assert_eq!(plan(&machine(false, &["c++", "cargo-fuzz"]), Needs::FUZZING, None, false), Plan::default());
    let fresh = machine(true, FRESH_DEBIAN);
    assert_eq!(installed(&plan(&fresh, Needs::FUZZING, None, false)), ["g++"]);

    let asking = plan(&machine(true, &["python3", "ensurepip"]), Needs::SCHEMATHESIS, None, false);
    assert_eq!(asking.needed, [Action::InstallSchemathesis]);
    assert_eq!(installed(&plan(&fresh, Needs::SCHEMATHESIS, None, false)), ["python3", "python3-venv"]);
    // The agent has to run as somebody else.
    let user = machine(false, &["python3", "ensurepip", "schemathesis"]);
    let refused = plan(&user, Needs::SCHEMATHESIS, None, false);
    assert_eq!(refused.needed, [Action::RunAgentApart]);
    assert_eq!(obstacle(&user, &refused, true), Some("only root may install and start these"));
}

#[test]
fn what_may_not_be_done_is_said_with_its_commands() {
    let fresh = plan(&machine(false, FRESH_DEBIAN), Needs::ENGINE, Some(&nothing_found()), false);
    let user = machine(false, FRESH_DEBIAN);
    assert_eq!(obstacle(&user, &fresh, true), Some("only root may install and start these"));
    let lines: Vec<_> = merged(&fresh).iter().flat_map(|action| remedy(action, &user, &daemon())).collect();
    assert_eq!(
        lines[..3],
        [
            "sudo apt-get update",
            "sudo apt-get install -y --no-install-recommends docker.io iptables debootstrap",
            "sudo sh -c 'mkdir -p /state && setsid dockerd --storage-driver=overlay2 >/state/dockerd.log 2>&1 &'",
        ]
    );

    let root = machine(true, FRESH_DEBIAN);
    assert!(obstacle(&root, &fresh, false).unwrap().contains("--no-install"));

    let fedora = machine(true, &["setsid"]);
    let fresh = plan(&fedora, Needs::ENGINE, Some(&nothing_found()), true);
    assert!(obstacle(&fedora, &fresh, true).unwrap().contains("not Debian"));
    let lines: Vec<_> = merged(&fresh).iter().flat_map(|action| remedy(action, &fedora, &daemon())).collect();
    assert!(lines[0].contains("docker.io iptables") && lines[1].contains("https://"), "{lines:?}");
}

#[test]
fn what_only_helps_stands_in_nobodys_way() {
    let found = Found::Answering(Address("unix:///elsewhere.sock".to_owned()));
    let machine = machine(false, FRESH_DEBIAN);
    let plan = plan(&machine, Needs::ENGINE, Some(&found), false);
    assert_eq!(plan.for_base.len(), 1);
    for install in [true, false] {
        assert_eq!(obstacle(&machine, &plan, install), None);
    }
}

#[test]
fn attempts_are_repeated_only_when_they_fail() {
    let mut attempts = 0;
    let result = again(|| {
        attempts += 1;
        Ok(())
    });
    assert!(result.is_ok() && attempts == 1);
}
