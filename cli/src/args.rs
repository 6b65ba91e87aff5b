//! What the user may say: flags, their help, and nothing of what is done with them.

mod health;
mod life;
mod place;
mod value;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use corehold_host::{Egress, ProjectType};

use self::value::{parse_ports, parse_variable};
pub(crate) use self::{
    health::Health,
    life::{Chosen, Graced, Idle, Policy, Supervise},
    place::{Asked, Limits, Place, Volume},
    value::PortPair,
};

/// Exit codes, shown by `corehold --help`.
const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    it failed; the message says what and what to do next
  2    the command line was wrong
  125  exec: Corehold itself failed (otherwise exec exits with the command's own code,
       128 + n when signal n ended it)

Environment:
  DOCKER_HOST          the engine to use, else docker's context, else CONTAINER_HOST; without them the usual
                       sockets are tried (`corehold doctor` explains)
  COREHOLD_CONTAINERS_MAY_MEET   as --containers-may-meet, when it is `true`
  COREHOLD_HOME        where keys and caches are kept (default: $XDG_DATA_HOME/corehold or ~/.local/share/corehold)
  COREHOLD_TEMPLATES   folders with templates, separated by ':' (default: ./templates)
  COREHOLD_ARCHIVES    where archives are kept: a folder, or s3://bucket/prefix (default: in COREHOLD_HOME)
  COREHOLD_IMAGE       the core image (default: workspace-core:latest)
  COREHOLD_PROJECT_IMAGES  images of types of projects: python=python:3.13-slim,go=golang:1.25
  COREHOLD_AGENT       the agent's static binary, for `image build` (default: corehold-agent beside this program)
  COREHOLD_LOG         what to log to standard error, such as `debug` or `corehold_host=trace` (default: warn)";

/// Isolated workspaces: a container, filled with a folder, run through an agent inside.
#[derive(Debug, Parser)]
#[command(name = "corehold", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Print JSON for a script: one object, or one a line where events stream
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The engine's address, such as unix:///var/run/docker.sock
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) host: Option<String>,
    /// Take an engine too that keeps workspaces from each other by nothing but their tokens: where all are yours
    #[arg(
        long,
        global = true,
        env = "COREHOLD_CONTAINERS_MAY_MEET",
        hide_env = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub(crate) containers_may_meet: bool,
    /// Folder with templates; may be given more than once
    #[arg(
        long = "templates",
        global = true,
        env = "COREHOLD_TEMPLATES",
        value_name = "FOLDER",
        value_delimiter = ':',
        hide_env = true
    )]
    pub(crate) templates: Vec<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a workspace from a template, a folder or an archive, and return when its preview answers
    Up(Box<Up>),
    /// List workspaces and what each is doing: ready, stopped, paused, asleep …
    #[command(visible_alias = "list")]
    Ls,
    /// Say what keeps a workspace awake, what becomes of it next by itself, and whether it is well
    Why(Why),
    /// Show or change when workspaces are paused, put to sleep or removed by themselves
    Policy(Policy),
    /// Show whether workspaces are well; show or change how they are checked, and when they are restarted
    Health(Health),
    /// Have workspaces run again that were stopped, paused or put to sleep
    Start(Chosen),
    /// End all that runs in workspaces; their files stay
    Stop(Graced),
    /// Stop workspaces and start them again
    Restart(Graced),
    /// Freeze workspaces where they are: no CPU is used, memory is kept
    Pause(Chosen),
    /// Let paused workspaces go on
    Resume(Chosen),
    /// Save workspaces' files and remove their containers; the next call brings them back
    Sleep(Graced),
    /// Bring back workspaces that sleep or are paused; those that were stopped on purpose stay so
    Wake(Chosen),
    /// Stay, and pause, archive, wake and restart workspaces as their policies say, until Ctrl-C or TERM
    Supervise(Supervise),
    /// Show what a workspace may use, or change it while it runs
    Limits(Limits),
    /// Run a command in a workspace; its exit code is the exit code
    Exec(Exec),
    /// Reach ports inside, its own loopback included, on ports of this machine, until Ctrl-C
    Forward(Forward),
    /// Show what the dev server writes
    Logs(Logs),
    /// Show what workspaces use: memory, CPU, network, disk
    Stats(Stats),
    /// Show what happens to workspaces from now on, until Ctrl-C
    Events,
    /// Remove workspaces and all they hold
    Down(Down),
    /// Save a workspace's files as an archive
    Save(Save),
    /// List archives; check, remove and prune them
    #[command(subcommand)]
    Archives(Archives),
    /// Make a workspace from an archive, or give a workspace the files of one
    Load(Load),
    /// Make copies of a running workspace
    Fork(Fork),
    /// Show what differs between a workspace or an archive and its template, or another one
    Diff(Diff),
    /// The core image
    #[command(subcommand)]
    Image(Image),
    /// Templates
    #[command(subcommand)]
    Template(Template),
    /// The results of set-ups that are kept for the next workspace of a template
    #[command(subcommand)]
    Cache(Cache),
    /// Named volumes: room on the engine's disk that outlives workspaces
    #[command(subcommand)]
    Volume(Volume),
    /// Look at engine, image, certificates and disk, and say how to mend each
    Doctor,
}

/// Flags of `up`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  corehold up vite-react                    a template of ./templates
  corehold up ./my-app --name demo          any folder; what to run is inferred without a template.json
  corehold up ./my-app.tar.gz               the same from an archive: a tar, gzipped, by zstd, or as it is
  corehold up node-api --attach             stay and follow the dev server's output; Ctrl-C leaves it running
  corehold up ./my-app --mount ~/models:/models:ro --mount cargo-cache:/cache
                                            a folder of this machine, read-only, and a volume (`corehold volume create`)
  corehold up node-api --pause-after 10m --archive-after 1d
                                            paused and put to sleep when idle, while `corehold supervise` or a backend runs")]
pub(crate) struct Up {
    /// A template's name, or a folder, or a tar (gzipped, or compressed by zstd, or neither)
    pub(crate) source: String,
    /// The workspace's name: lower-case letters, digits and dashes, at most 32 (default: chosen)
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What people call it, as `corehold ls --json` shows it: 1 to 100 characters
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// Follow the dev server's output until Ctrl-C, which leaves the workspace running
    #[arg(long)]
    pub(crate) attach: bool,
    /// Image to start instead of the template's or the core image
    #[arg(long, env = "COREHOLD_IMAGE", hide_env = true)]
    pub(crate) image: Option<String>,
    /// Variable for the workspace; may be given more than once
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Port inside that is to be reached on 127.0.0.1 too, besides the template's; may be given more than once
    #[arg(long, value_name = "PORT")]
    pub(crate) publish: Vec<u16>,
    /// What is enough for somebody's work whom you don't know, where nothing else is said: 512 MiB of memory, half a CPU, 100 processes, 1 GiB
    /// of disk; paused when idle for an hour, asleep at an age of a day; its commands end after 300 s; outside, the internet only. What the
    /// template or another flag says goes before it
    #[arg(long)]
    pub(crate) for_strangers: bool,
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// What it may reach outside: `open` (all but this machine and others' networks on it), `internet`, `none`, or addresses and
    /// networks, with commas between them: 10.20.0.0/16,203.0.113.7:443 (default: open; with --for-strangers, internet)
    #[arg(long, value_name = "EGRESS")]
    pub(crate) network: Option<Egress>,
    /// CA bundle in PEM to hand in (default: the one this machine uses, where there is one)
    #[arg(long, value_name = "FILE", conflicts_with = "no_ca")]
    pub(crate) ca: Option<PathBuf>,
    /// Hand in no CA bundle
    #[arg(long)]
    pub(crate) no_ca: bool,
    /// Keep the container when a step fails, to look at it; `corehold down` removes it
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) idle: Idle,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Flags of `exec`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  corehold exec demo -- npm test                      its output is ours, its exit code too
  corehold exec -it demo -- bash                      a shell
  corehold exec -i demo -- tar x < project.tar        standard input goes in
  corehold exec demo --timeout 60 -- sh -c 'a | b'    a shell line, ended after a minute")]
pub(crate) struct Exec {
    /// The workspace
    pub(crate) workspace: String,
    /// Working directory, relative to the workspace root
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cwd: Option<String>,
    /// Variable for the command; may be given more than once
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Hand our standard input to the command as it comes; without it, its input is empty
    #[arg(long, short = 'i')]
    pub(crate) stdin: bool,
    /// Run the command in a terminal, and hand it ours: every key, Ctrl-C too, the size and its changes. Implies --stdin
    #[arg(long, short = 't')]
    pub(crate) tty: bool,
    /// End the command after so many seconds; the exit code is then 124
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Program and arguments, passed as they are; use `sh -c '…'` for a shell line
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) argv: Vec<String>,
}

/// Flags of `forward`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  corehold forward demo 8080                here on port 8080 too, or on another one if that is in use
  corehold forward demo 8080:9000 5432      port 8080 here on port 9000, and port 5432
  corehold forward demo 8080:0              here on any free port
  corehold forward demo 8080:9000-9099      here on the first of these that is free

It listens on 127.0.0.1 only, and prints an address for each port. WebSockets pass. A server inside may start later:
until then connections are reset, and it says why. Ctrl-C ends it with exit code 0.")]
pub(crate) struct Forward {
    /// The workspace
    pub(crate) workspace: String,
    /// Ports inside, each with where it is to be reached here: <PORT>, <PORT>:<LOCAL> or <PORT>:<FIRST>-<LAST>
    #[arg(required = true, value_name = "PORT[:LOCAL]", value_parser = parse_ports)]
    pub(crate) ports: Vec<PortPair>,
}

/// Flags of `logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The workspace
    pub(crate) workspace: String,
    /// Stay and show what comes, after the newest 64 KiB of what was written before
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Show the agent's own log instead of the dev server's
    #[arg(long)]
    pub(crate) agent: bool,
}

/// Flags of `stats`.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// The workspaces (default: all that run)
    pub(crate) workspaces: Vec<String>,
    /// Stay and show each sample, every five seconds
    #[arg(long, short)]
    pub(crate) follow: bool,
}

/// Flags of `why`.
#[derive(Debug, Args)]
pub(crate) struct Why {
    /// The workspace
    pub(crate) workspace: String,
}

/// Flags of `down`.
#[derive(Debug, Args)]
pub(crate) struct Down {
    /// The workspaces
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) workspaces: Vec<String>,
    /// All of them, what waits in pools, and whatever a killed Corehold left behind
    #[arg(long)]
    pub(crate) all: bool,
    /// Their archives too: all that `corehold archives ls <workspace>` lists
    #[arg(long)]
    pub(crate) archives: bool,
    /// Also if they are of another COREHOLD_HOME, which may be another user's: for those whose home is lost
    #[arg(long, conflicts_with = "all")]
    pub(crate) other_homes: bool,
}

/// Flags of `save`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  corehold save demo                              all files; what an earlier archive has isn't written again
  corehold save demo --exclude node_modules       without what a pattern, as in .gitignore, matches")]
pub(crate) struct Save {
    /// The workspace
    pub(crate) workspace: String,
    /// Leave out what a pattern, as in .gitignore, matches; may be given more than once
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Don't read all of it back
    #[arg(long)]
    pub(crate) no_verify: bool,
}

/// `archives …`
#[derive(Debug, Subcommand)]
pub(crate) enum Archives {
    /// List archives
    #[command(visible_alias = "list")]
    Ls {
        /// Only those of a workspace, which need not be there any more
        workspace: Option<String>,
    },
    /// Read all of an archive and compare every hash
    Verify {
        /// workspace/id, or a workspace for its newest
        archive: String,
    },
    /// Give archives up
    #[command(visible_alias = "delete")]
    Rm {
        /// Each as workspace/id
        #[arg(required = true)]
        archives: Vec<String>,
    },
    /// Remove what no archive needs any more
    Prune,
}

/// Flags of `load`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  corehold load demo                        a workspace from the newest archive of demo
  corehold load demo/20261121t114532123-x --name again
  corehold load demo --into demo            demo's files become those of its newest archive; what isn't in it goes")]
pub(crate) struct Load {
    /// workspace/id, or a workspace for its newest
    pub(crate) archive: String,
    /// The new workspace's name (default: chosen)
    #[arg(long, conflicts_with = "into")]
    pub(crate) name: Option<String>,
    /// Replace all files of this workspace instead of making one
    #[arg(long, value_name = "WORKSPACE")]
    pub(crate) into: Option<String>,
}

/// Flags of `fork`.
#[derive(Debug, Args)]
pub(crate) struct Fork {
    /// The workspace
    pub(crate) workspace: String,
    /// How many copies
    #[arg(default_value_t = 1)]
    pub(crate) copies: usize,
}

/// Flags of `diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is a path, after A (added), D (removed), M (other content), T (another kind) or m (other permissions).
A directory that was added or removed stands for all that is in it.
Examples:
  corehold diff demo                                   since its template
  corehold diff demo --all                             each file of new directories too
  corehold diff demo --against demo/20261121t…-x       since an archive
  corehold diff one --against other                    between workspaces")]
pub(crate) struct Diff {
    /// A workspace, or an archive as workspace/id
    pub(crate) what: String,
    /// What to compare with: an archive, a workspace, a template or a folder (default: the template it was made from)
    #[arg(long, value_name = "WHAT")]
    pub(crate) against: Option<String>,
    /// List what is in directories that were added or removed, too
    #[arg(long)]
    pub(crate) all: bool,
}

/// `image …`
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Build the core image; an unchanged source never rebuilds
    Build(ImageBuild),
    /// List the images that the engine has, the newest first
    #[command(visible_alias = "list")]
    Ls,
    /// Pull images from their registry; `up` does so by itself for one that is missing
    Pull {
        /// Such as debian:12, or registry.example/team/image@sha256:…
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Take names away from images; with its last one an image is removed
    Rm {
        /// Its name or its id
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Say how large the image is, as it lies here and as a registry would ship it, and what takes it
    Report,
}

/// Flags of `image build`.
#[derive(Debug, Args)]
pub(crate) struct ImageBuild {
    /// Build the image of a type of project instead, on the core image that is here: python, java, go, rust, ruby, php
    #[arg(long, value_name = "TYPE", conflicts_with_all = ["base", "agent"])]
    pub(crate) project: Option<ProjectType>,
    /// The base: auto (pull, else make), pull, make (debootstrap and Node's npm package; no registry needed),
    /// or the reference of an image that is here
    #[arg(long, default_value = "auto", value_name = "BASE")]
    pub(crate) base: String,
    /// The agent's static binary
    #[arg(long, env = "COREHOLD_AGENT", value_name = "FILE", hide_env = true)]
    pub(crate) agent: Option<PathBuf>,
}

/// `template …`
#[derive(Debug, Subcommand)]
pub(crate) enum Template {
    /// List templates; a broken one is shown with its error and hides no other
    #[command(visible_alias = "list")]
    Ls,
    /// Check a template or folder and say what would be run
    Check {
        /// A template's name, a folder, or an archive
        source: String,
    },
    /// Print the JSON Schema of template.json
    Schema,
}

/// `cache …`
#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// List what is kept, used last first
    #[command(visible_alias = "list")]
    Ls,
    /// Remove all of it: the next workspace of each template runs its set-up again
    Clear,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn arguments_of_the_command_are_not_ours() {
        let arguments = Arguments::parse_from(["corehold", "exec", "demo", "--", "ls", "--json", "-la"]);
        let Command::Exec(exec) = arguments.command else { panic!("not exec") };
        assert_eq!(exec.argv, ["ls", "--json", "-la"]);
        assert!(!arguments.global.json);
    }
}
