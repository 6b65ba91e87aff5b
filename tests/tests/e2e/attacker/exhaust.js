// What somebody inside a workspace can use up. Its argument says what; prints `question: answer`.
const fs = require('fs'), net = require('net'), { spawn, spawnSync } = require('child_process');

const say = (question, answer) => console.log(`${question}: ${answer}`);
const work = {
  processes() {
    const begun = [];
    const more = () => {
      if (begun.length === 1000) return end('DONE');
      const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
      child.on('error', error => end(error.code === 'EAGAIN' ? 'refused' : error.code)).on('spawn', more);
      begun.push(child);
    };
    const end = answer => { say('1,000 processes', answer); begun.forEach(child => child.kill('SIGKILL')); };
    more();
  },
  memory() {
    const all = 'const all = []; for (let i = 0; i < 64; i++) all.push(Buffer.alloc(16 << 20, 1));';
    const { status, signal } = spawnSync('node', ['-e', all]);
    say('1 GiB of memory', signal === 'SIGKILL' ? 'refused' : `DONE (${signal ?? status})`);
  },
  files() {
    // How many each process may have, the engine's own limits say.
    let opened = 0;
    try { while (opened < 100000) { fs.openSync('/dev/null', 'r'); opened++; } } catch (error) { if (error.code !== 'EMFILE') throw error; }
    say('100,000 open files, or as many as there may be', 'DONE');
  },
  // Holds as many as it gets, until it is killed.
  connections() {
    let left = 10000;
    const settled = () => { if (--left === 0) console.log('held'); };
    for (let i = 0; i < 10000; i++) {
      let known = false;
      const once = () => { if (!known) { known = true; settled(); } };
      const socket = net.connect({ host: '127.0.0.1', port: 3001 }, once);
      socket.setTimeout(3000, once);
      socket.on('error', once).on('close', once);
    }
    setInterval(() => {}, 1000);
  },
  output() {
    const line = 'x'.repeat(1 << 20);
    const more = left => process.stdout.write(line, () => { if (left) more(left - 1); });
    more(300);
  },
};
work[process.argv[2]]();
