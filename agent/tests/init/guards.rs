//! What commands can't do to the agent, though they are the same user.

use crate::support::Agent;

#[test]
fn signals_from_inside_do_nothing() {
    let agent = Agent::start();
    // With Landlock they don't even arrive; without, PID 1 doesn't heed them.
    let refused = i64::from(agent.has_guard("landlock-signal"));
    for signal in ["KILL", "STOP", "TERM", "INT", "SEGV", "ABRT", "HUP", "CHLD"] {
        let (code, _, stderr) = agent.run(&format!("kill -{signal} 1"));
        assert_eq!(code, refused, "{signal}: {stderr}");
    }
    agent.run("kill -KILL -1; :");
    agent.still_works();
}

#[test]
fn limits_of_the_agent_can_not_be_set() {
    let agent = Agent::start();
    assert!(agent.has_guard("seccomp-prlimit"));
    for limit in ["--cpu=1:1", "--nofile=3:3", "--as=1:1", "--nproc=1:1"] {
        // Through its pid, and through each of its threads.
        let (code, _, stderr) = agent.run(&format!(
            "for thread in $(ls /proc/1/task); do prlimit --pid $thread {limit} && exit 9; done; exit 1"
        ));
        assert_eq!(code, 1, "{limit}");
        assert!(stderr.contains("Operation not permitted"), "{limit}: {stderr}");
    }
    // The other door into the same kernel function: 32-bit system calls, and a pid with dirt in its upper half.
    let (code, _, stderr) = agent.run(
        "perl -e 'my $limit = pack(\"QQ\", 3, 3); $! = 0; my $r = syscall(302, 0x100000001, 7, $limit, 0); exit($r == -1 && $!{EPERM} ? 0 : 1)'",
    );
    assert!(code == 0 || !cfg!(target_arch = "x86_64"), "{stderr}");
    let (_, own, stderr) = agent.run("prlimit --nofile=100:100 sh -c 'ulimit -n'; ulimit -n 50; ulimit -n; prlimit --pid 1 --nofile >/dev/null && echo read");
    assert_eq!(own, "100\n50\nread\n", "a command's own limits are its own: {stderr}");
    agent.still_works();
}

#[test]
fn neither_a_hypervisor_nor_an_io_uring_is_reached_on_any_engine() {
    let agent = Agent::start();
    assert!(agent.has_guard("seccomp-closed"));
    // `socket` is system call 41 (x86-64) or 198 (aarch64), `io_uring_setup` 425; AF_VSOCK is 40, AF_UNIX 1.
    let socket = if cfg!(target_arch = "x86_64") { 41 } else { 198 };
    for (call, refused) in
        [(format!("{socket}, 40, 1, 0"), true), ("425, 1, 0".to_owned(), true), (format!("{socket}, 1, 1, 0"), false)]
    {
        let (code, _, stderr) = agent.run(&format!("perl -e 'exit(syscall({call}) == -1 && $!{{EPERM}} ? 0 : 1)'"));
        assert_eq!(code == 0, refused, "{call}: {stderr}");
    }
}

#[test]
fn nobody_looks_into_the_agent() {
    let agent = Agent::start();
    for look in [
        "cat /proc/1/environ",
        "cat /proc/1/mem",
        "ls /proc/1/fd",
        "cat /proc/1/maps",
        "ls -l /proc/1/exe",
        "ls /proc/1/task/1/fd",
        "echo 1000 > /proc/1/oom_score_adj",
    ] {
        let (code, stdout, stderr) = agent.run(look);
        assert_ne!(code, 0, "{look}: {stdout}");
        assert!(stderr.to_lowercase().contains("permission denied"), "{look}: {stderr}");
    }
    // PTRACE_ATTACH is 16, PTRACE_SEIZE 0x4206; ptrace is system call 101 (x86-64) or 117 (aarch64).
    let number = if cfg!(target_arch = "x86_64") { 101 } else { 117 };
    let attach = format!("for my $how (16, 0x4206) {{ exit 1 if syscall({number}, $how, 1, 0, 0) == 0 }}");
    assert_eq!(agent.run(&format!("perl -e '{attach}'")).0, 0, "ptrace must be refused");
    assert_eq!(agent.run("env").1.matches("COREHOLD_").count(), 1, "nothing of the agent's but the command's own name");
}

#[test]
fn no_other_door_leads_into_the_agent() {
    let agent = Agent::start();
    // x86-64 and aarch64 have these numbers in common or not.
    let number = |x86_64: u32, aarch64: u32| if cfg!(target_arch = "x86_64") { x86_64 } else { aarch64 };
    let calls = [
        // Eight bytes at an address that is mapped in every program, so that nothing but the permission is lacking.
        ("process_vm_readv", format!("{}, $who, $iov, 1, $iov, 1, 0", number(310, 270))),
        ("process_vm_writev", format!("{}, $who, $iov, 1, $iov, 1, 0", number(311, 271))),
        ("kcmp", format!("{}, $who, $$ + 0, 0, 0, 0", number(312, 272))),
        ("get_robust_list", format!("{}, $who, $iov, $iov", number(274, 100))),
        ("move_pages", format!("{}, $who, 1, $iov, 0, $iov, 0", number(279, 239))),
        ("migrate_pages", format!("{}, $who, 8, $iov, $iov", number(256, 238))),
        ("setpgid", format!("{}, $who, $$ + 0", number(109, 154))),
        ("pidfd_getfd", "438, syscall(434, 1, 0), 0, 0".to_owned()),
        ("process_madvise", "440, syscall(434, 1, 0), $iov, 1, 21, 0".to_owned()),
    ];
    for (name, arguments) in calls {
        let script = format!(
            "my $buffer = \"x\" x 64; my $iov = pack(\"PQ\", $buffer, 8); my $n = 0; \
             opendir(my $tasks, \"/proc/1/task\"); \
             for my $who (map $_ + 0, 1, grep /^[0-9]/, readdir $tasks) {{ \
                 $! = 0; my $got = syscall({arguments}); \
                 die \"{name} of $who: $got $!\" unless $got == -1 && ($!{{EPERM}} || $!{{EACCES}} || \"{name}\" eq \"setpgid\" && ($!{{ESRCH}} || $!{{EINVAL}})); $n++ }} \
             exit($n > 3 ? 0 : 9)"
        );
        let (code, _, stderr) = agent.run(&format!("perl -e '{script}'"));
        assert_eq!(code, 0, "{name}: {stderr}");
    }
    agent.still_works();
}

/// Signals with what their sender made up, and to single threads.
#[test]
fn forged_signals_do_nothing() {
    let agent = Agent::start();
    let number = |x86_64: u32, aarch64: u32| if cfg!(target_arch = "x86_64") { x86_64 } else { aarch64 };
    let (queue, thread_queue, thread) = (number(129, 138), number(297, 240), number(234, 131));
    // struct siginfo: number, error, code (SI_QUEUE is -1, SI_USER 0), padding, sender's pid and uid.
    let script = format!(
        "for my $signal (15, 2, 9, 19) {{ for my $code (-1, 0, -6) {{ \
             my $info = pack(\"iiiiii\", $signal, 0, $code, 0, 0, 0) . (\"\\0\" x 128); \
             syscall({queue}, 1, $signal, $info); \
             opendir(my $tasks, \"/proc/1/task\"); \
             for my $who (grep /^[0-9]/, readdir $tasks) {{ \
                 syscall({thread_queue}, 1, $who + 0, $signal, $info); syscall({thread}, 1, $who + 0, $signal) }} }} }}"
    );
    assert_eq!(agent.run(&format!("perl -e '{script}'")).0, 0);
    agent.still_works();
    assert!(!agent.evidence().contains("told to end"), "{}", agent.evidence());
}

#[test]
fn the_agent_can_not_be_replaced() {
    let agent = Agent::start();
    let binary = agent.binary();
    let before = std::fs::read(&binary).unwrap();
    for attempt in [
        format!(": > {binary}"),
        format!("echo x >> {binary}"),
        format!("rm -f {binary}"),
        format!("mv {binary} {binary}.old"),
        format!("cp -f /bin/true {binary}"),
        format!("ln -sf /bin/true {binary}"),
        format!("chmod 777 {binary}"),
        format!("truncate -s 0 {binary}"),
        format!("mv $(dirname {binary}) /tmp/elsewhere"),
        format!("mount --bind /bin/true {binary}"),
    ] {
        let (code, stdout, _) = agent.run(&attempt);
        assert_ne!(code, 0, "{attempt}: {stdout}");
    }
    assert!(std::fs::read(&binary).unwrap() == before);
    // Nor can anybody take calls in its place, on its port.
    let port = agent.address.port();
    let script = format!(
        "use Socket; for my $address (\"127.0.0.1\", \"0.0.0.0\") {{ \
             socket(my $socket, PF_INET, SOCK_STREAM, 0) or die; \
             setsockopt($socket, SOL_SOCKET, $_, 1) for SO_REUSEADDR, SO_REUSEPORT; \
             die $address if bind($socket, sockaddr_in({port}, inet_aton($address))) && listen($socket, 1) }}"
    );
    let (code, _, stderr) = agent.run(&format!("perl -e '{script}'"));
    assert_eq!(code, 0, "{stderr}");
    agent.still_works();
}

#[test]
fn no_command_is_spared_before_the_agent_when_memory_runs_out() {
    let agent = Agent::start();
    let (_, own, _) = agent.run("cat /proc/1/oom_score_adj");
    let own: i32 = own.trim().parse().unwrap();
    // What it was given it may give up, but it gets no lower than the agent.
    let lower = format!("for score in {} -500 -1000; do echo $score > /proc/$$/oom_score_adj; done", own - 1);
    let (_, left, _) = agent.run(&format!("{lower}; cat /proc/$$/oom_score_adj"));
    assert!(left.trim().parse::<i32>().unwrap() >= own, "{left} {own}");
    let (_, _, stderr) = agent.run("for task in /proc/1/task/*; do echo 1000 > $task/oom_score_adj; done");
    assert_eq!(agent.run("cat /proc/1/task/*/oom_score_adj | sort -u").1, format!("{own}\n"), "{stderr}");
}

/// It would be for good: who has no privileges may not raise what was lowered.
#[test]
fn no_command_lowers_the_agents_priority() {
    let agent = Agent::start();
    assert!(agent.has_guard("seccomp-priority"), "{}", agent.evidence());
    let each = |attempt: &str| format!("for task in $(ls /proc/1/task); do {attempt} && exit 9; done; exit 1");
    let before = agent.run("cd /proc/1/task && cut -d' ' -f18,19,40,41 */stat | sort -u").1;
    for attempt in [
        "renice -n 19 -p $task",
        "chrt --idle -p 0 $task",
        "chrt --batch -p 0 $task",
        "taskset -p 1 $task",
        "ionice -c 3 -p $task",
        "renice -n 19 -u $(id -u)",
        "ionice -c 3 -u $(id -u)",
    ] {
        let (code, _, stderr) = agent.run(&each(attempt));
        assert_eq!(code, 1, "{attempt} succeeded");
        assert!(stderr.contains("Operation not permitted"), "{attempt}: {stderr}");
    }
    // The 32-bit way to the same, and numbers with dirt in their upper halves.
    let script = "exit 9 if syscall(141, 0, 0x100000001, 19) == 0; exit 9 if syscall(141 | 0x40000000, 0, 1, 19) == 0";
    assert!(agent.run(&format!("perl -e '{script}'")).0 == 0 || !cfg!(target_arch = "x86_64"));
    assert_eq!(agent.run("cd /proc/1/task && cut -d' ' -f18,19,40,41 */stat | sort -u").1, before);

    // Among themselves commands may, by whatever number: programs bind their own threads so. Nobody may take back what
    // these tests were started with.
    let own: i32 = agent.run("nice").1.trim().parse().unwrap();
    let [five, seven, nine] = [5, 7, 9].map(|more| (own + more).min(19));
    let (code, _, stderr) = agent.run(&format!(
        "sleep 1000 & renice -n {five} -p $! && chrt --batch -p 0 $! && taskset -p 1 $! && ionice -c 3 -p $! && kill $!"
    ));
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr) =
        agent.run(&format!("renice -n {seven} -p $$ && nice && renice -n {nine} -g 0 && nice && chrt --idle 0 nice"));
    let told: Vec<i32> = stdout.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(code == 0 && told == [seven, nine, nine], "{stdout}{stderr}");
    // Thousands of questions, some of whose askers are killed before they are answered.
    let flood = format!(
        "i=0; while [ $i -lt 40 ]; do perl -e 'my $me = $$ + 0; syscall(203, $me, 0, 0) for 1..100000' & p=$!; kill -9 $p; i=$((i+1)); done; wait; \
         perl -e 'my $me = $$ + 0; for (1..2000) {{ $! = 0; syscall(141, 0, $me, {own}) == 0 or die $! }}'"
    );
    let (code, _, stderr) = agent.run(&flood);
    assert!(code == 0 || !cfg!(target_arch = "x86_64"), "{stderr}");
    agent.still_works();
}
