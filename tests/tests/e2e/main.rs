//! End-to-end tests against a real engine: one binary, one module a subject.

// What was saved of a workspace comes back as it was, there and elsewhere.
mod archives;
// Workspaces that sleep in archives: what wakes is what fell asleep, or the error that says why not.
mod asleep;
// Sleeping and waking with the archives in a bucket.
mod bucket;
// What somebody inside can see and do.
mod attacker;
// The command line as a person or a script uses it.
mod command_line;
// Each runtime through the suite that all of them pass.
mod conformance;
// Docker beyond the suite: races, faults, finding the engine.
mod docker;
// What the core container holds a command to: user, capabilities, PID 1.
mod container;
// A template becomes a workspace, through the host library: previews, hot reload, two at once.
mod create;
// What goes wrong in a creation is told, and nothing is left behind.
mod create_failures;
// What is mounted into a workspace, and how it is held, over a real engine.
mod places;
// An engine that isn't reached but by its API: on another machine, in another network namespace.
mod elsewhere;
// Every call to the engine fails in every way: nothing is orphaned, doubled or waited for in vain.
mod engine_faults;
// An engine that is started anew, with workspaces and a pool in it.
mod engine_restart;
// An engine that runs out of disk, addresses and processes, and a machine that runs out of disk.
mod starved_engine;
// The library's examples.
mod examples;
// Images that know nothing of Corehold: the agent is put into them.
mod foreign;
// Ports inside, reached through the agent.
mod forward;
// Workspaces that are paused, woken and restarted by themselves.
mod idle;
// The core image: built, cached, measured, and what is in it.
mod image;
// The engine's images: listed, pulled, removed.
mod images;
// Killing Corehold at any step leaves nothing that `ls` and `down --all` don't find.
mod killed;
// The commands of the life cycle: stopped, paused, asleep and back.
mod life;
// What all may have together, over processes of which one is killed.
mod totals;
// What a workspace may use, by default and changed while it runs.
mod limits;
// What workspaces reach of the engine's machine and of each other.
mod networks;
// Networks in which something is reached although all rules stand, and more networks than an engine has by itself.
mod probed;
// What a host tells: events, use, lines, who did what, numbers.
mod observe;
// One workspace for an owner, whichever host process asks for it.
mod owners;
// Workspaces that are handed over from a pool.
mod pool;
mod preview;
// What a set-up left is there in the next workspace, without the set-up.
mod setup_cache;
// `corehold exec` with standard input and on a terminal.
mod terminal;
// Previews wake what is behind them, wherever that is then.
mod waking;
// What is found after a host was killed while it changed a workspace, and after somebody removed a container.
mod truth;
