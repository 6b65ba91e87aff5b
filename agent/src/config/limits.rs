//! What the agent never exceeds: each limit with its name, unit, default and variable, in one table.

use std::sync::Arc;

use corehold_types::{Problem, tools::LimitInfo};
use tokio::sync::Semaphore;

use super::ConfigError;

/// A limit in force. Errors and `info` name it and the variable that sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Its name on the wire.
    pub name: &'static str,
    /// What it counts: `bytes`, `entries`, `ms`, `processes`.
    pub unit: &'static str,
    /// The environment variable that sets it.
    pub variable: &'static str,
    /// Its value.
    pub value: u64,
}

impl Limit {
    /// The problem of exceeding it; `what` begins the sentence, such as "the request's body".
    #[must_use]
    pub fn exceeded(&self, what: &str) -> Problem {
        Problem::limit(&format!("{what} (in {})", self.unit), self.value, self.variable).with("name", self.name)
    }

    /// The value for a `usize`; on 32-bit machines a larger one is cut.
    #[must_use]
    pub fn as_usize(&self) -> usize {
        usize::try_from(self.value).unwrap_or(usize::MAX)
    }

    /// A permit for each.
    #[must_use]
    pub fn permits(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.as_usize().min(Semaphore::MAX_PERMITS)))
    }

    /// The value as time, for limits in `ms`.
    #[must_use]
    pub fn as_duration(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.value)
    }

    pub(super) fn unit_in_words(&self) -> String {
        let unit = if self.unit == "ms" { "milliseconds" } else { self.unit };
        format!("a whole number of {unit}")
    }

    pub(super) fn to_info(self) -> LimitInfo {
        LimitInfo {
            name: self.name.to_owned(),
            value: self.value,
            unit: self.unit.to_owned(),
            variable: self.variable.to_owned(),
        }
    }
}

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $field:ident: $name:literal, $unit:literal, $variable:literal, $default:expr;)+) => {
        /// Every limit of the agent.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $doc])+ pub $field: Limit,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($field: Limit { name: $name, unit: $unit, variable: $variable, value: $default },)+ }
            }
        }

        impl Limits {
            /// All of them, in the order of the table.
            #[must_use]
            pub fn all(&self) -> Vec<Limit> {
                vec![$(self.$field),+]
            }

            /// Each default, and what the table says of it.
            #[must_use]
            pub fn documented() -> Vec<(Limit, &'static str)> {
                let limits = Self::default();
                vec![$((limits.$field, concat!($($doc),+).trim_ascii())),+]
            }

            /// The defaults, each replaced by what `value_of` says about it.
            pub(super) fn read(value_of: impl Fn(&Limit) -> Result<u64, ConfigError>) -> Result<Self, ConfigError> {
                let mut limits = Self::default();
                $(limits.$field.value = value_of(&limits.$field)?;)+
                Ok(limits)
            }
        }
    };
}

limits! {
    /// Tunnels open at a time. Default 256.
    tunnels: "tunnels", "tunnels", "COREHOLD_LIMIT_TUNNELS", 256;
    /// Milliseconds in which what listens on a port must take a tunnel's connection. Default 5,000.
    tunnel_connect_ms: "tunnelConnectMs", "ms", "COREHOLD_LIMIT_TUNNEL_CONNECT_MS", 5_000;
    /// Bytes of the variables that a claim brings. Default 64 KiB. Whatever it is, one variable has at most 128 KiB and all
    /// together half of what the kernel takes (a quarter of RLIMIT_STACK), else no command could be started.
    claim_environment_bytes: "claimEnvironmentBytes", "bytes", "COREHOLD_LIMIT_CLAIM_ENVIRONMENT_BYTES", 64 << 10;
    /// Calls of `watch` at a time. Default 64; those who ask for the same share what they watch.
    watches: "watches", "watches", "COREHOLD_LIMIT_WATCHES", 64;
    /// Different trees that are watched at a time. Default 32: the kernel has 128 of what each needs for all of a user's processes.
    watch_trees: "watchTrees", "trees", "COREHOLD_LIMIT_WATCH_TREES", 32;
    /// Directories that are watched at a time, in all trees. Default 65,536; each takes about a kilobyte of the kernel's memory.
    watch_directories: "watchDirectories", "directories", "COREHOLD_LIMIT_WATCH_DIRECTORIES", 65_536;
    /// WebSockets open at a time. Default 256.
    sockets: "sockets", "sockets", "COREHOLD_LIMIT_SOCKETS", 256;
    /// Calls under way on one WebSocket at a time. Default 64.
    socket_calls: "socketCalls", "calls", "COREHOLD_LIMIT_SOCKET_CALLS", 64;
    /// Bytes of text in one answer by MCP; longer ones are cut in the middle. Default 32 KiB.
    mcp_text_bytes: "mcpTextBytes", "bytes", "COREHOLD_LIMIT_MCP_TEXT_BYTES", 32 << 10;
    /// Bytes of a tool's request. Default 16 MiB.
    body_bytes: "bodyBytes", "bytes", "COREHOLD_LIMIT_BODY_BYTES", 16 << 20;
    /// Bytes of memory for requests, answers and streams of tools, and for what they are made of, of all callers together; requests
    /// have half of them at most, and so have streams, of which each takes 320 KiB. Who finds too little left waits; what is less than 64 KiB takes none. Default 64 MiB, in which the
    /// longest request and the longest answer of `read` have room.
    answer_bytes: "answerBytes", "bytes", "COREHOLD_LIMIT_ANSWER_BYTES", 64 << 20;
    /// Milliseconds for which a request or an answer waits for that memory, which callers hold who haven't sent all of theirs or
    /// read it yet. Default 10,000.
    answer_ms: "answerMs", "ms", "COREHOLD_LIMIT_ANSWER_MS", 10_000;
    /// Milliseconds in which a tool's request body or a message on a WebSocket must have come, and the next 16 KiB of a streamed
    /// body, or its end. Default 30,000.
    receive_ms: "receiveMs", "ms", "COREHOLD_LIMIT_RECEIVE_MS", 30_000;
    /// Milliseconds after which a connection is ended whose reader has taken nothing of what was there for him: an answer, a file, an
    /// archive, a stream, a WebSocket; not a tunnel. Who takes something now and then is waited for, however slow he is. Default
    /// 120,000.
    send_ms: "sendMs", "ms", "COREHOLD_LIMIT_SEND_MS", 120_000;
    /// Milliseconds in which a request's head must have come, from the opening of the connection or the answer before. Default
    /// 120,000: longer than usual clients keep an idle connection, so that it is they who close it.
    idle_ms: "idleMs", "ms", "COREHOLD_LIMIT_IDLE_MS", 120_000;
    /// Connections at a time. Of those on which no valid token was shown the first has to go when all are taken and somebody new comes; while
    /// all have shown one, the new one waits. Default 1,024.
    connections: "connections", "connections", "COREHOLD_LIMIT_CONNECTIONS", 1_024;
    /// Bytes of content in one answer of `read`. Default 8 MiB.
    read_bytes: "readBytes", "bytes", "COREHOLD_LIMIT_READ_BYTES", 8 << 20;
    /// Files in one request of `read`. Default 1,000.
    read_files: "readFiles", "files", "COREHOLD_LIMIT_READ_FILES", 1_000;
    /// Entries in one answer of `list`. Default 10,000.
    list_entries: "listEntries", "entries", "COREHOLD_LIMIT_LIST_ENTRIES", 10_000;
    /// Files and archives that are received, and archives that are sent, at a time; more wait for their turn. Each takes
    /// a thread as long as it lasts, and some must be left for everything else. Default 32, half of the threads there are.
    transfers: "transfers", "transfers", "COREHOLD_LIMIT_TRANSFERS", 32;
    /// Searches (`search` and `find`) that run at a time; others wait for their turn. Default 4.
    searches: "searches", "searches", "COREHOLD_LIMIT_SEARCHES", 4;
    /// Matching lines in one answer of `search`. Default 1,000,000.
    search_matches: "searchMatches", "matches", "COREHOLD_LIMIT_SEARCH_MATCHES", 1_000_000;
    /// Bytes of lines in one collected answer of `search`; a streamed one has no such limit. Default 8 MiB.
    search_bytes: "searchBytes", "bytes", "COREHOLD_LIMIT_SEARCH_BYTES", 8 << 20;
    /// Bytes of a line that `search` can search, and of a file if matches may span lines. What is more than 576 KiB is searched in memory
    /// that is taken of `answerBytes`. Default 64 MiB.
    search_buffer_bytes: "searchBufferBytes", "bytes", "COREHOLD_LIMIT_SEARCH_BUFFER_BYTES", 64 << 20;
    /// Bytes of memory for what later searches know from earlier ones, which only large workspaces have; given up when nobody
    /// has searched for five minutes. With less than a file needs (1) nothing is kept. Default 32 MiB.
    search_kept_bytes: "searchKeptBytes", "bytes", "COREHOLD_LIMIT_SEARCH_KEPT_BYTES", 32 << 20;
    /// Milliseconds that one call of `search` or `find` may take. Default 60,000.
    search_ms: "searchMs", "ms", "COREHOLD_LIMIT_SEARCH_MS", 60_000;
    /// Bytes of a file that is written by `PUT /v1/files`. Default 8 GiB.
    file_bytes: "fileBytes", "bytes", "COREHOLD_LIMIT_FILE_BYTES", 8 << 30;
    /// Bytes of content that an archive may hold, unpacked. Default 8 GiB.
    archive_bytes: "archiveBytes", "bytes", "COREHOLD_LIMIT_ARCHIVE_BYTES", 8 << 30;
    /// Entries that an archive may hold; a directory that only its names imply counts too, and so do 128 bytes more of a name.
    /// Default 1,000,000.
    archive_entries: "archiveEntries", "entries", "COREHOLD_LIMIT_ARCHIVE_ENTRIES", 1_000_000;
    /// Milliseconds after which a command that isn't detached is ended, unless its caller says otherwise. Default
    /// 600,000 (ten minutes).
    command_ms: "commandMs", "ms", "COREHOLD_LIMIT_COMMAND_MS", 600_000;
    /// Commands that run at a time. Default 512.
    commands: "commands", "commands", "COREHOLD_LIMIT_COMMANDS", 512;
    /// Finished commands that are remembered, with their output. Default 1,000.
    commands_kept: "commandsKept", "commands", "COREHOLD_LIMIT_COMMANDS_KEPT", 1_000;
    /// Bytes of a command's arguments and of the variables that its caller adds. Default 1 MiB.
    command_argument_bytes: "commandArgumentBytes", "bytes", "COREHOLD_LIMIT_COMMAND_ARGUMENT_BYTES", 1 << 20;
    /// Bytes of each stream that a collected answer of a command may hold. Default 8 MiB.
    command_collected_bytes: "commandCollectedBytes", "bytes", "COREHOLD_LIMIT_COMMAND_COLLECTED_BYTES", 8 << 20;
    /// Milliseconds that a command gets between TERM and KILL when its time is over. Default 2,000.
    command_grace_ms: "commandGraceMs", "ms", "COREHOLD_LIMIT_COMMAND_GRACE_MS", 2_000;
    /// Milliseconds that a command whose log is full waits for who reads its beginning, once until that reader has caught up.
    /// Default 1,000.
    command_hold_ms: "commandHoldMs", "ms", "COREHOLD_LIMIT_COMMAND_HOLD_MS", 1_000;
    /// Milliseconds that `commandInput` waits for a command that doesn't read. Default 30,000.
    command_input_ms: "commandInputMs", "ms", "COREHOLD_LIMIT_COMMAND_INPUT_MS", 30_000;
    /// Bytes of output that are kept of one command. Default 64 MiB.
    command_log_bytes: "commandLogBytes", "bytes", "COREHOLD_LIMIT_COMMAND_LOG_BYTES", 64 << 20;
    /// Bytes of output that are kept of all commands together. Default 512 MiB.
    command_logs_bytes: "commandLogsBytes", "bytes", "COREHOLD_LIMIT_COMMAND_LOGS_BYTES", 512 << 20;
    /// Files in one request of `edit`. Default 1,000.
    edit_files: "editFiles", "files", "COREHOLD_LIMIT_EDIT_FILES", 1_000;
    /// Bytes of content, old and new, that one transaction of `edit` may hold in memory, and all those that are large together: they
    /// take turns. Default 64 MiB.
    edit_bytes: "editBytes", "bytes", "COREHOLD_LIMIT_EDIT_BYTES", 64 << 20;
    /// Bytes of diff in one answer of `edit`. Default 256 KiB.
    edit_diff_bytes: "editDiffBytes", "bytes", "COREHOLD_LIMIT_EDIT_DIFF_BYTES", 256 << 10;
    /// Files in one request of `write`. Default 1,000.
    write_files: "writeFiles", "files", "COREHOLD_LIMIT_WRITE_FILES", 1_000;
    /// Paths in one request of `stat`. Default 1,000.
    stat_paths: "statPaths", "paths", "COREHOLD_LIMIT_STAT_PATHS", 1_000;
    /// Bytes of memory for the records of calls that `auditRead` returns; an eighth of them is for refusals. Default 1 MiB.
    audit_bytes: "auditBytes", "bytes", "COREHOLD_LIMIT_AUDIT_BYTES", 1 << 20;
    /// Bytes of a file that is read only to say in the audit log what it was, before a call removes or replaces it. Of a larger one
    /// the log has the `version`. Default 1 MiB.
    audit_hash_bytes: "auditHashBytes", "bytes", "COREHOLD_LIMIT_AUDIT_HASH_BYTES", 1 << 20;
    /// Milliseconds for which an answer is kept under its `Idempotency-Key`. Default 86,400,000 (a day).
    idempotency_ms: "idempotencyMs", "ms", "COREHOLD_LIMIT_IDEMPOTENCY_MS", 86_400_000;
    /// `Idempotency-Key`s that are remembered, of all subjects; the oldest are forgotten first. Default 10,000.
    idempotency_entries: "idempotencyEntries", "entries", "COREHOLD_LIMIT_IDEMPOTENCY_ENTRIES", 10_000;
    /// Bytes of answers that are kept under `Idempotency-Key`s, of which one may take a quarter. Of others it is
    /// remembered that they were given. Default 4 MiB.
    idempotency_bytes: "idempotencyBytes", "bytes", "COREHOLD_LIMIT_IDEMPOTENCY_BYTES", 4 << 20;
    /// Bytes of file content that one `copy` may copy. Default 8 GiB.
    copy_bytes: "copyBytes", "bytes", "COREHOLD_LIMIT_COPY_BYTES", 8 << 30;
    /// Files, directories and links that one `copy` may copy. Default 1,000,000.
    copy_entries: "copyEntries", "entries", "COREHOLD_LIMIT_COPY_ENTRIES", 1_000_000;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_limit_has_a_name_and_a_variable_of_its_own() {
        let all = Limits::default().all();
        assert_eq!(all.iter().map(|limit| limit.name).collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all.iter().map(|limit| limit.variable).collect::<HashSet<_>>().len(), all.len());
        for limit in all {
            assert!(limit.variable.starts_with("COREHOLD_LIMIT_") && limit.value > 0 && limit.value < 1 << 53);
        }
    }

    #[test]
    fn an_exceeded_limit_names_itself_and_its_variable() {
        let problem = Limits::default().body_bytes.exceeded("the request's body");
        assert_eq!(problem.context["limit"], 16 << 20);
        assert_eq!(problem.context["variable"], "COREHOLD_LIMIT_BODY_BYTES");
        assert_eq!(problem.detail, "the request's body (in bytes) exceeds the limit of 16777216");
    }
}
