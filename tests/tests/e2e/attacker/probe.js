// What somebody inside a workspace tries first. Prints `question: answer`, one a line; errors by their names.
// PEER, OTHER and GATEWAY are addresses; OPEN and CLOSED are ports of the host that listens on all addresses, or on its loopback only.
const fs = require('fs'), os = require('os'), net = require('net'), { spawnSync } = require('child_process');

const say = (question, answer) => console.log(`${question}: ${answer}`);
// By which of these the kernel says no differs between engines, kernels and versions of cgroups; what an engine masks reads as empty.
const NO = ['EACCES', 'EPERM', 'ENOENT', 'EROFS'];
const name = error => NO.includes(error.code) ? 'refused' : error.code || error.message;
const attempt = (question, work) => {
  try { say(question, work() ?? 'done'); } catch (error) { say(question, name(error)); }
};
const read = path => attempt(`read ${path}`, () => { const file = fs.openSync(path, 'r'); const count = fs.readSync(file, Buffer.alloc(16)); fs.closeSync(file); return count ? 'READ' : 'refused'; });
const write = path => attempt(`write ${path}`, () => { fs.closeSync(fs.openSync(path, 'r+')); return 'OPENED'; });
const make = path => attempt(`make ${path}`, () => { fs.writeFileSync(path, ''); return 'MADE'; });
const list = path => attempt(`list ${path}`, () => fs.readdirSync(path).sort().join(' ') || 'nothing');
const there = path => attempt(`there ${path}`, () => fs.existsSync(path) ? 'yes' : 'no');
const run = (question, ...argv) => {
  const { status, signal, error } = spawnSync(argv[0], argv.slice(1), { timeout: 10000 });
  say(question, error ? name(error) : signal || (status === 0 ? 'SUCCEEDED' : 'refused'));
};
const kernel = (call, number, args) => {
  const { stdout } = spawnSync('perl', ['-e', `print syscall(${[number, ...args]}) < 0 ? $! + 0 : 0`]);
  const code = Number(stdout);
  const [error] = Object.entries(os.constants.errno).find(([, value]) => value === code) ?? ['DONE'];
  say(`system call ${call}`, NO.includes(error) || error === 'ENOSYS' ? 'refused' : error);
};
const connect = (question, host, port) => new Promise(done => {
  const socket = net.connect({ host, port: Number(port) });
  const end = answer => { say(question, answer); socket.destroy(); done(); };
  // Refused or dropped, by a firewall's taste.
  socket.setTimeout(2000, () => end('not reached'));
  socket.on('connect', () => end('REACHED')).on('error', () => end('not reached'));
});

(async () => {
  for (const path of ['/etc/shadow', '/proc/1/environ', '/proc/1/mem', '/proc/1/maps', '/proc/kcore', '/proc/kmsg', '/dev/mem', '/dev/kmsg',
    '/dev/sda', '/dev/vda', '/proc/sysrq-trigger', '/sys/firmware/efi', '/proc/keys', '/root/.bashrc']) read(path);
  for (const path of ['/etc/passwd', '/usr/bin/env', '/tools/corehold-agent', '/proc/sys/kernel/core_pattern', '/proc/sys/vm/overcommit_memory',
    '/proc/sysrq-trigger', '/sys/fs/cgroup/cgroup.procs', '/sys/fs/cgroup/memory/memory.limit_in_bytes', '/proc/1/oom_score_adj']) write(path);
  for (const path of ['/etc/x', '/usr/bin/x', '/tools/x', '/x', '/root/x', '/dev/x']) make(path);
  for (const path of ['/dev', '/dev/disk', '/proc/1/fd', '/proc/1/root', '/home', '/mnt', '/media']) list(path);
  for (const path of ['/var/run/docker.sock', '/run/podman/podman.sock', '/run/containerd', '/.dockerenv']) there(path);
  // There are some in any Debian; without new privileges they are programs like others.
  run('become root by a copy of a set-uid program', 'sh', '-c', 'cp -p /usr/bin/su /tmp/su && chmod u+s /tmp/su && /tmp/su -c true </dev/null');
  run('su', 'sh', '-c', 'su -c true </dev/null');
  run('mount', 'mount', '-t', 'tmpfs', 'none', '/tmp');
  run('user namespace', 'unshare', '--user', '--map-root-user', 'true');
  run('mount namespace', 'unshare', '--mount', 'true');
  run('net namespace', 'unshare', '--net', 'true');
  run('enter PID 1', 'nsenter', '--target', '1', '--mount', 'true');
  run('chroot', 'chroot', '/', 'true');
  run('device node', 'mknod', '/tmp/disk', 'b', '8', '0');
  run('set the time', 'date', '--set', '2001-01-01');
  run('set the host name', 'hostname', 'evil');
  run('load a module', 'sh', '-c', 'modprobe dummy || insmod /x.ko');
  run('raise its priority', 'nice', '-n', '-5', 'sh', '-c', 'test "$(nice)" -lt 0');
  run('raise its limit of files', 'sh', '-c', 'ulimit -Hn 2000000');
  run('raw socket', 'ping', '-c', '1', '-W', '1', '127.0.0.1');
  run("the engine's processes", 'sh', '-c', 'ls -d /proc/[0-9]* | grep -vq "^/proc/1$" && test "$(cat /proc/[0-9]*/comm | grep -c dockerd)" != 0');
  // By their numbers on x86-64, with arguments that do nothing where it is let through: then the error is another.
  for (const [call, number, ...args] of [['bpf', 321, 99, 0, 0], ['perf_event_open', 298, 0, 0, -1, -1, 0], ['userfaultfd', 323, -1], ['keyctl', 250, 99],
    ['add_key', 248, 0, 0, 0, 0, 0], ['open_by_handle_at', 304, -1, 0, 0], ['process_vm_readv', 310, 1, 0, 0, 0, 0, 99], ['ptrace', 101, 16, 1, 0, 0],
    ['pidfd_getfd', 438, -1, 0, 99], ['kexec_load', 246, 0, 0, 0, 0], ['init_module', 175, 0, 0, 0], ['reboot', 169, 0, 0, 0, 0], ['swapon', 167, 0, 0],
    ['setns', 308, -1, 0], ['pivot_root', 155, 0, 0], ['iopl', 172, 3], ['acct', 163, 0], ['syslog', 103, 3, 0, 0], ['fanotify_init', 300, 0, 0],
    ['move_mount', 429, -1, 0, -1, 0, 0], ['fsopen', 430, 0, 0], ['lookup_dcookie', 212, 0, 0, 0]]) kernel(call, number, args);
  const { PEER, OTHER, GATEWAY, OPEN, CLOSED } = process.env;
  await connect("the neighbour's agent", PEER, 3001);
  await connect("the neighbour's dev server", PEER, 4321);
  await connect("the agent of another owner's network", OTHER, 3001);
  await connect("the engine's API, in clear", GATEWAY, 2375);
  await connect("the engine's API, by TLS", GATEWAY, 2376);
  await connect("a listener of the host on its loopback", GATEWAY, CLOSED);
  await connect("a listener of the host on all addresses", GATEWAY, OPEN);
  await connect('its own agent', '127.0.0.1', 3001);
})();
