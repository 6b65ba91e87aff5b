// What somebody inside a workspace can use up. Its argument says what; prints `question: answer`, with what stopped it.
const fs = require('fs'), net = require('net'), { spawn, spawnSync } = require('child_process');

const say = (question, answer) => console.log(`${question}: ${answer}`);
// Of its control group, by the names of versions 2 and 1: a file, or one line of it.
const figure = (files, line = '') => {
  const lines = fs.readFileSync(files.map(file => `/sys/fs/cgroup/${file}`).find(fs.existsSync), 'utf8').split('\n');
  return lines.find(each => each.startsWith(line)).slice(line.length).trim();
};
const refused = () => Number(figure(['pids.events', 'pids/pids.events'], 'max '));
const killed = () => Number(figure(['memory.events', 'memory/memory.oom_control'], 'oom_kill '));

const work = {
  processes() {
    const begun = [], before = refused();
    const end = answer => {
      const limit = refused() > before ? `the limit of ${figure(['pids.max', 'pids/pids.max'])}` : 'NO LIMIT';
      say('1,000 processes', `${answer} by ${limit}`);
      begun.forEach(child => child.kill('SIGKILL'));
    };
    const more = () => {
      if (begun.length === 1000) return end('DONE');
      const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
      child.on('error', error => end(error.code)).on('spawn', more);
      begun.push(child);
    };
    more();
  },
  memory() {
    const before = killed();
    const all = 'const all = []; for (let i = 0; i < 64; i++) all.push(Buffer.alloc(16 << 20, 1));';
    const { status, signal } = spawnSync('node', ['-e', all]);
    const limit = killed() > before ? `the limit of ${figure(['memory.max', 'memory/memory.limit_in_bytes'])} bytes` : 'NO LIMIT';
    say('1 GiB of memory', `${signal ?? `DONE (${status})`} by ${limit}`);
  },
  // Each process has a limit of its own, which the engine or its command gives it. Holds them until it is killed.
  files() {
    const limit = Number(fs.readFileSync('/proc/self/limits', 'utf8').match(/Max open files +(\d+)/)[1]);
    // The folder that is read is one of them.
    let open = fs.readdirSync('/proc/self/fd').length - 1, stopped = 'DONE';
    try { while (open < 100000) { fs.openSync('/dev/null', 'r'); open++; } } catch (error) { stopped = error.code; }
    const all = open === Math.min(limit, 100000) ? `as many as ${process.argv[3] ? `its limit of ${limit}` : 'the engine'} lets it have` : `${open} OF ${limit}`;
    say('100,000 open files', process.argv[3] ? `${stopped} at ${all}` : all);
    setInterval(() => {}, 1000);
  },
  // Takes as many as it gets, until it is killed. Of what it believes to have, much still waits to be taken: so those are counted that the
  // agent has taken (they have an inode), at most so many at a time.
  connections() {
    const wanted = 10000, limit = 1024;
    const taken = () => fs.readFileSync('/proc/net/tcp', 'utf8').split('\n').map(line => line.trim().split(/ +/))
      .filter(([, local, , state, , , , , , inode]) => local?.endsWith(':0BB9') && state === '01' && inode !== '0').length;
    const until = Date.now() + 30000;
    let most = 0, ended = 0;
    for (let i = 0; i < wanted; i++) net.connect({ host: '127.0.0.1', port: 3001 }).on('error', () => {}).on('close', () => ended++);
    const looking = setInterval(() => {
      most = Math.max(most, taken());
      if (ended < 3000 && Date.now() < until) return;
      // The table changes while it is read, and has those that were just sent away.
      const held = most > limit * 0.9 && most < limit * 1.5 ? 'about its limit of 1,024' : `${most} AT A TIME`;
      say('10,000 connections to the agent', `held to ${held}, ${ended < 3000 ? ended : 'thousands'} sent away`);
      clearInterval(looking);
      setInterval(() => {}, 1000);
    }, 20);
  },
  output() {
    const line = 'x'.repeat(1 << 20);
    const more = left => process.stdout.write(line, () => { if (left) more(left - 1); });
    more(300);
  },
};
work[process.argv[2]]();
