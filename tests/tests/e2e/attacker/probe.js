// What somebody inside a workspace tries first. Prints `question: answer`, one a line; errors by their names.
// PEER, OTHER, OUTSIDE and GATEWAY are addresses; OPEN and CLOSED are ports of the host that listens on all addresses, or on its loopback only.
// What it asks with must be there: a program that is missing ends it.
const fs = require('fs'), os = require('os'), net = require('net'), { spawn, spawnSync } = require('child_process');

const say = (question, answer) => console.log(`${question}: ${answer}`);
const name = error => error.code === 'ENOENT' ? 'not there' : error.code || error.message;
const attempt = (question, work) => {
  try { say(question, work()); } catch (error) { say(question, name(error)); }
};
// What an engine masks reads as empty, and which of it there is differs between kernels.
const nothing = work => { try { return work() || 'nothing'; } catch (error) { if (error.code === 'ENOENT') return 'nothing'; throw error; } };
const text = path => fs.readFileSync(path, 'utf8').trim();
const read = path => attempt(`read ${path}`, () => nothing(() => {
  const file = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  try { return fs.readSync(file, Buffer.alloc(16)) && 'READ'; } catch (error) { if (error.code === 'EAGAIN') return 'READ'; throw error; } finally { fs.closeSync(file); }
}));
const write = (path, as = path) => attempt(`write ${as}`, () => { fs.closeSync(fs.openSync(path, 'r+')); return 'OPENED'; });
const make = path => attempt(`make ${path}`, () => { fs.writeFileSync(path, ''); return 'MADE'; });
const list = path => attempt(`list ${path}`, () => nothing(() => fs.readdirSync(path).sort().join(' ')));
const there = path => attempt(`there ${path}`, () => fs.existsSync(path) ? 'yes' : 'no');
const perl = (...argv) => {
  const { status, signal, stdout, stderr, error } = spawnSync('perl', argv, { encoding: 'utf8' });
  if (error || status !== 0) throw error || Error(`perl: ${signal || status} ${stderr}`);
  return stdout.split('\n')[0];
};
const errno = code => Object.entries(os.constants.errno).find(([, value]) => value === code)?.[0] ?? code;
// Numbers as they are; `q:` begins numbers of 64 bits in memory; other texts are memory that holds them.
const CALL = 'my @a = map { /^-?\\d+$/ ? $_ + 0 : /^q:(.*)/ ? pack("q*", split ",", $1) : $_ } @ARGV; my $n = shift @a; $| = 1; print syscall($n, @a) < 0 ? $! + 0 : "DONE", "\\n";';
const kernel = (call, ...args) => attempt(`system call ${call}`, () => {
  const answer = perl('-e', CALL, '--', ...args.map(String));
  return answer === 'DONE' ? 'DONE' : errno(Number(answer));
});
const cgroup = (first, second) => [`/sys/fs/cgroup/${first}`, `/sys/fs/cgroup/${second}`].find(fs.existsSync);
// What runs as somebody else says so itself, while it waits for a word. `owners` is the line's name in its status.
const became = (question, program, args, owners) => new Promise(done => {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  let answer = 'ENDED';
  const look = () => { answer = text(`/proc/${child.pid}/status`).match(`${owners}:\t(.*)`)[1].replaceAll('\t', ' '); child.kill('SIGKILL'); };
  child.on('error', error => { throw error; }).on('close', () => { say(question, answer); done(); });
  for (const output of [child.stdout, child.stderr]) output.once('data', () => child.exitCode === null && !child.killed && look());
});
// A port at which nobody listens is reached too. Refused or dropped, by a firewall's taste.
const connect = (question, host, port) => new Promise(done => {
  const socket = net.connect({ host, port: Number(port) });
  const end = answer => { say(question, answer); socket.destroy(); done(); };
  socket.setTimeout(5000, () => end('not reached'));
  socket.on('connect', () => end('REACHED')).on('error', error => end(
    ['ECONNREFUSED', 'ECONNRESET'].includes(error.code) ? 'REACHED' : ['EHOSTUNREACH', 'ETIMEDOUT'].includes(error.code) ? 'not reached' : error.code));
});
const ECHO = `use Socket; socket(my $s, PF_INET, SOCK_DGRAM, 1) or die $!; send($s, pack('C2n3', 8, 0, 0, 1, 1), 0, sockaddr_in(0, inet_aton($ARGV[0]))) or do { print 'not sent'; exit };
  my $r = ''; vec($r, fileno $s, 1) = 1; print select($r, undef, undef, 2) > 0 && defined recv($s, my $b, 99, 0) ? 'ANSWERED' : 'not answered';`;

(async () => {
  say('memory, in bytes', text(cgroup('memory.max', 'memory/memory.limit_in_bytes')));
  say('processes', text(cgroup('pids.max', 'pids/pids.max')));
  const [quota, period] = text(cgroup('cpu.max', 'cpu/cpu.cfs_quota_us')).split(' ');
  say('processors', ['max', '-1'].includes(quota) ? 'all' : quota / (period ?? text('/sys/fs/cgroup/cpu/cpu.cfs_period_us')));
  for (const path of ['/etc/shadow', '/proc/1/environ', '/proc/1/mem', '/proc/1/maps', '/proc/kcore', '/proc/kmsg', '/proc/keys', '/root/.bashrc']) read(path);
  for (const path of ['/etc/passwd', '/usr/bin/env', '/tools/corehold-agent', '/proc/sys/kernel/core_pattern', '/proc/sys/vm/overcommit_memory',
    '/proc/1/oom_score_adj']) write(path);
  // Not every kernel has it.
  attempt('write /proc/sysrq-trigger', () => { try { fs.closeSync(fs.openSync('/proc/sysrq-trigger', 'r+')); return 'OPENED'; } catch { return 'not opened'; } });
  write(cgroup('cgroup.procs', 'memory/cgroup.procs'), "its control group's members");
  write(cgroup('memory.max', 'memory/memory.limit_in_bytes'), "its control group's limit of memory");
  for (const path of ['/etc/x', '/usr/bin/x', '/tools/x', '/x', '/root/x', '/dev/x']) make(path);
  for (const path of ['/dev', '/proc/1/fd', '/proc/1/root', '/sys/firmware', '/home', '/mnt', '/media']) list(path);
  for (const path of ['/var/run/docker.sock', '/run/podman/podman.sock', '/run/containerd', '/.dockerenv']) there(path);
  const processes = fs.readdirSync('/proc').filter(Number).map(id => { try { return text(`/proc/${id}/comm`); } catch { return ''; } });
  say('processes that it sees', [...new Set(processes)].filter(Boolean).sort().join(' '));
  // Programs that would run as somebody else; a copy of one is one's own.
  const { stdout } = spawnSync('find', ['/', '-xdev', '-type', 'f', '-perm', '/6000'], { encoding: 'utf8' });
  say('set-uid and set-gid programs', stdout.trim().split('\n').map(path => path.split('/').pop()).sort().join(' '));
  await became('the user ids of su, which is set-uid root', 'su', ['-c', 'true'], 'Uid');
  await became('the group ids of ssh-agent, which is set-gid', 'ssh-agent', ['-D', '-a', '/tmp/agent.sock'], 'Gid');

  // By their numbers on x86-64, with arguments that do nothing, or nothing that outlives the caller, where they are let through.
  for (const call of [
    ['socket, raw', 41, 2, 3, 1], ['socket, packets', 41, 17, 3, 0], ['socket, to a hypervisor (vsock)', 41, 40, 1, 0], ['socket, ICMP echo', 41, 2, 2, 1],
    ['init_module', 175, 0, 0, ''], ['finit_module', 313, -1, '', 0], ['delete_module', 176, 'none', 0],
    ['setuid 0', 105, 0], ['setgid 0', 106, 0], ['setgroups', 116, 1, 'q:0'],
    ['mount', 165, 'none', '/tmp', 'tmpfs', 0, 0], ['umount', 166, '/none', 0], ['chroot', 161, '/'], ['pivot_root', 155, '.', '.'],
    ['mknod, a disk', 133, '/tmp/disk', 0o60600, 0x800], ['unshare, a user namespace', 272, 0x10000000], ['unshare, a mount namespace', 272, 0x20000],
    ['unshare, a network namespace', 272, 0x40000000], ['unshare, a process namespace', 272, 0x20000000],
    ['clone, a user namespace', 56, 0x10000011, 0, 0, 0, 0], ['clone3', 435, 0, 0], ['setns', 308, -1, 0],
    ['bpf', 321, 99, 0, 0], ['perf_event_open', 298, 0, 0, -1, -1, 0], ['userfaultfd', 323, 1], ['io_uring_setup', 425, 1, 0],
    ['keyctl', 250, 99], ['add_key', 248, 0, 0, 0, 0, 0], ['request_key', 249, 0, 0, 0, 0],
    ['open_by_handle_at', 304, -1, 0, 0], ['fanotify_init', 300, 0, 0], ['move_mount', 429, -1, 0, -1, 0, 0], ['fsopen', 430, 0, 0], ['open_tree', 428, -1, 0, 0],
    // PTRACE_SEIZE, which stops nobody.
    ['ptrace, of PID 1', 101, 0x4206, 1, 0, 0], ['process_vm_readv, of PID 1', 310, 1, 0, 0, 0, 0, 0], ['kcmp, of PID 1', 312, 1, 1, 2, 0, 0], ['pidfd_getfd', 438, -1, 0, 99],
    ['kexec_load', 246, 0, 0, 0, 0], ['kexec_file_load', 320, -1, -1, 0, 0, 0], ['reboot', 169, 0, 0, 0, 0], ['swapon', 167, 0, 0], ['acct', 163, '/none'],
    ['syslog', 103, 3, 0, 0], ['iopl', 172, 3], ['ioperm', 173, 0, 1, 1], ['quotactl', 179, 0, 0, 0, 0],
    ['settimeofday', 164, 'q:-1,-1', 0], ['clock_settime', 227, 0, 'q:-1,-1'], ['sethostname', 170, 'evil', 4], ['setdomainname', 171, 'evil', 4],
    ['setpriority, above others', 141, 0, 0, -5], ['setrlimit, 2,000,000 open files', 160, 7, 'q:2000000,2000000'],
  ]) kernel(...call);

  const { PEER, OTHER, OUTSIDE, GATEWAY, OPEN, CLOSED } = process.env;
  await connect("the neighbour's agent", PEER, 3001);
  await connect("the neighbour's dev server", PEER, 4321);
  await connect("the agent of another owner's network", OTHER, 3001);
  await connect("the engine's API, in clear", GATEWAY, 2375);
  await connect("the engine's API, by TLS", GATEWAY, 2376);
  await connect('a listener of the host on its loopback', GATEWAY, CLOSED);
  await connect('a listener of the host on all addresses', GATEWAY, OPEN);
  say('an echo from the gateway', perl('-e', ECHO, GATEWAY));
  for (const address of ['169.254.169.254', '100.100.100.200', '168.63.129.16', '192.0.0.192', 'fd00:ec2::254']) await connect(`a cloud's metadata at ${address}`, address, 80);
  await connect('somebody outside', OUTSIDE, 443);
  await connect('its own agent', '127.0.0.1', 3001);
})();
