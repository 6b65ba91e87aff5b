//! `command`: starts a process and, unless detached, streams or collects what it writes until it ends.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{
    CollectedOutput, Data, Event, EventBytes, Scope, Timestamp, Tool, WorkspacePath,
    escape::escape_into,
    patterns::{VARIABLE_NAME, WITHOUT_NUL, without_doubles},
    rpc::FrameKind,
};

/// Runs a command. The process belongs to the agent, not to the connection: a caller who goes away doesn't end it.
pub struct Command;

impl Tool for Command {
    const NAME: &'static str = "command";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Runs a command in the workspace and returns or streams its output; a failing command is a response, not an error.";
    const SCOPE: Scope = Scope::Command;
    type Request = CommandRequest;
    type Response = CommandResponse;
    type Event = CommandEvent;
}

/// Label of a command that is a health check: it keeps nothing awake.
pub const HEALTH: &str = "health";

/// Request of `command`. Exactly one of `argv` and `line` is given.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["argv"], "properties": { "argv": { "type": "array" } } },
    { "required": ["line"], "properties": { "line": { "type": "string" } } },
]))]
#[ts(optional_fields)]
pub struct CommandRequest {
    /// Program and arguments, passed as they are. The program is looked up in the command's `PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), inner(regex(pattern = WITHOUT_NUL)))]
    pub argv: Option<Vec<String>>,
    /// A shell line, run by `/bin/sh -c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), regex(pattern = WITHOUT_NUL))]
    pub line: Option<String>,
    /// Working directory. Default: the workspace root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<WorkspacePath>,
    /// Variables added to the agent's own environment for commands; an empty value sets an empty variable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "without_doubles")]
    #[ts(as = "Option<BTreeMap<String, String>>")]
    #[schemars(extend("propertyNames" = { "pattern": VARIABLE_NAME }, "additionalProperties" = { "type": "string", "pattern": WITHOUT_NUL }))]
    pub env: BTreeMap<String, String>,
    /// What the command reads from its standard input, which then ends unless it is `interactive` or a terminal. Default:
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Data>,
    /// Whether standard input stays open for `commandInput`. Default: only with `pty`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<bool>,
    /// A terminal to run in. All that the command writes to it is `stdout`; the leader's end hangs it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pty: Option<Pty>,
    /// What the command may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<CommandLimits>,
    /// Milliseconds after which the whole process group is ended (TERM, grace, KILL). Default: no end for a detached
    /// command, else the agent's `commandMs` limit. 0 means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Milliseconds without any output after which the process group is ended. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_timeout_ms: Option<u64>,
    /// Whether to answer as soon as the process has started. Its output is kept for `commandOutput`. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detach: Option<bool>,
    /// Bytes of each stream that a collected answer holds, half from its head and half from its tail. Default 65,536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-limit" = "commandCollectedBytes"))]
    pub max_output_bytes: Option<u64>,
    /// A word for people, shown by `commandList`: `dev`, `setup`. At most 64 characters. A command with the label `health` is a
    /// health check: it keeps nothing awake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub label: Option<String>,
}

/// A pseudo-terminal for a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct Pty {
    /// Characters in a line, 1 to 4,096.
    #[schemars(range(min = 1, max = 4_096))]
    pub columns: u16,
    /// Lines, 1 to 4,096.
    #[schemars(range(min = 1, max = 4_096))]
    pub rows: u16,
    /// The variable `TERM`. Default: that of `env`, else `xterm-256color`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = WITHOUT_NUL))]
    pub term: Option<String>,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct PtySize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Limits of a command, set by `setrlimit(2)` before it runs. They are inherited, but count for each of its processes by
/// itself, unless said otherwise: what bounds the workspace is the container's limits. Absent means the agent's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct CommandLimits {
    /// CPU time of each process, rounded up to seconds; SIGXCPU, and SIGKILL a second later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub cpu_ms: Option<u64>,
    /// Private writable memory of each process (`RLIMIT_DATA`). Not the address space (`RLIMIT_AS`), of which Node.js, Go
    /// and Java reserve many gigabytes that they never use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub memory_bytes: Option<u64>,
    /// Processes and threads of the agent's user, all of the workspace's together (`RLIMIT_NPROC`): where as many are
    /// there, the command can't start another. Does not bind root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub processes: Option<u64>,
    /// Open files of each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub open_files: Option<u64>,
    /// Size of a file that each process may write; SIGXFSZ beyond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub file_bytes: Option<u64>,
}

/// Response of `command`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct CommandResponse {
    /// Names the command for `commandOutput` and the others while the agent's `bootId` stays the same.
    pub id: String,
    /// How it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<CommandExit>,
    /// Standard output; empty in a streamed answer, whose events carried it.
    #[serde(default)]
    pub stdout: CollectedOutput,
    /// Standard error; empty in a streamed answer, whose events carried it.
    #[serde(default)]
    pub stderr: CollectedOutput,
    /// Where the command's log ends: bytes of both streams in the order they were read.
    pub offset: u64,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct CommandExit {
    /// The leader's exit code; absent when a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended the leader, such as `SIGKILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Whether the wall time-out ended it.
    pub timed_out: bool,
    /// Whether the stall time-out ended it.
    pub stalled: bool,
    /// Whether the kernel killed a process of the command for want of memory while its leader ran; absent where it can't be told,
    /// such as when it killed one of several commands' processes and nothing says whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// Wall time from start to exit of the leader.
    pub duration_ms: u64,
    /// Largest resident size in bytes of the leader and the children it waited for; absent where it isn't known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// CPU time, user and system, of the leader and the children it waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Process ids of the command that outlived its leader.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<u32>>")]
    pub survivors: Vec<u32>,
}

/// What happens while a command runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum CommandEvent {
    /// The first event: the process runs, or ran, under this id.
    Status {
        /// Names the command.
        id: String,
        /// Its leader's process id inside the container.
        pid: u32,
        /// When it was started.
        started: Timestamp,
        /// Where this reader begins in the log.
        offset: u64,
    },
    /// Bytes of standard output.
    Stdout {
        /// Where they begin in the log.
        offset: u64,
        /// Where they end: the offset to resume from.
        end: u64,
        /// The bytes.
        data: Data,
    },
    /// Bytes of standard error.
    Stderr {
        /// Where they begin in the log.
        offset: u64,
        /// Where they end: the offset to resume from.
        end: u64,
        /// The bytes.
        data: Data,
    },
    /// Bytes that the bounded log dropped before this reader came to them.
    Gap {
        /// The first that is missing.
        from: u64,
        /// The first that is there again.
        to: u64,
    },
    /// The leader has exited. Output of surviving children may follow in a reader that asked to follow on.
    Exit {
        /// How.
        exit: CommandExit,
        /// Where the log stood.
        offset: u64,
    },
}

impl Event for CommandEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Stdout { .. } => "stdout",
            Self::Stderr { .. } => "stderr",
            Self::Gap { .. } => "gap",
            Self::Exit { .. } => "exit",
        }
    }

    fn offset_after(&self) -> Option<u64> {
        match self {
            Self::Status { offset, .. } | Self::Exit { offset, .. } => Some(*offset),
            Self::Stdout { end, .. } | Self::Stderr { end, .. } => Some(*end),
            Self::Gap { to, .. } => Some(*to),
        }
    }

    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        const END: &[u8] = b"\"}}";
        let (without, text) = match self {
            Self::Stdout { offset, end, data: Data::Text(text) } => {
                (Self::Stdout { offset: *offset, end: *end, data: Data::default() }, text)
            }
            Self::Stderr { offset, end, data: Data::Text(text) } => {
                (Self::Stderr { offset: *offset, end: *end, data: Data::default() }, text)
            }
            other => return serde_json::to_writer(out, other),
        };
        serde_json::to_writer(&mut *out, &without)?;
        // The text stands at the end.
        out.truncate(out.len() - END.len());
        escape_into(out, text);
        out.extend_from_slice(END);
        Ok(())
    }

    fn into_bytes(self) -> Result<EventBytes, Self> {
        match self {
            Self::Stdout { offset, data, .. } => Ok(EventBytes { kind: FrameKind::Stdout, offset, data }),
            Self::Stderr { offset, data, .. } => Ok(EventBytes { kind: FrameKind::Stderr, offset, data }),
            other => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_with_text_is_written_as_serde_writes_it() {
        let data = [&b"say \"hi\"\r\n\x1b[1m\\"[..], b"", b"\xff\"", "ž\"}}".as_bytes()]
            .map(|bytes| Data::from_bytes(bytes.to_vec()));
        let mut events = vec![CommandEvent::Gap { from: 1, to: 2 }];
        for data in data {
            events.push(CommandEvent::Stdout { offset: 7, end: 1 << 50, data: data.clone() });
            events.push(CommandEvent::Stderr { offset: 0, end: 8, data });
        }
        for event in events {
            let mut written = b"before".to_vec();
            event.write_json(&mut written).unwrap();
            assert_eq!(written, [&b"before"[..], &serde_json::to_vec(&event).unwrap()].concat());
        }
    }
}
