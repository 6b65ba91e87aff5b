// This file was generated from corehold-types by `cargo xtask gen`. Do not edit it.
import type { ActivityRequest } from "./ActivityRequest.js";
import type { ActivityResponse } from "./ActivityResponse.js";
import type { AuditEvent } from "./AuditEvent.js";
import type { AuditReadRequest } from "./AuditReadRequest.js";
import type { AuditReadResponse } from "./AuditReadResponse.js";
import type { ClaimRequest } from "./ClaimRequest.js";
import type { ClaimResponse } from "./ClaimResponse.js";
import type { CommandEvent } from "./CommandEvent.js";
import type { CommandGetRequest } from "./CommandGetRequest.js";
import type { CommandGetResponse } from "./CommandGetResponse.js";
import type { CommandInputRequest } from "./CommandInputRequest.js";
import type { CommandInputResponse } from "./CommandInputResponse.js";
import type { CommandListRequest } from "./CommandListRequest.js";
import type { CommandListResponse } from "./CommandListResponse.js";
import type { CommandOutputRequest } from "./CommandOutputRequest.js";
import type { CommandRequest } from "./CommandRequest.js";
import type { CommandResizeRequest } from "./CommandResizeRequest.js";
import type { CommandResizeResponse } from "./CommandResizeResponse.js";
import type { CommandResponse } from "./CommandResponse.js";
import type { CommandSearchEvent } from "./CommandSearchEvent.js";
import type { CommandSearchRequest } from "./CommandSearchRequest.js";
import type { CommandSearchResponse } from "./CommandSearchResponse.js";
import type { CommandSignalRequest } from "./CommandSignalRequest.js";
import type { CommandSignalResponse } from "./CommandSignalResponse.js";
import type { CopyRequest } from "./CopyRequest.js";
import type { CopyResponse } from "./CopyResponse.js";
import type { EditRequest } from "./EditRequest.js";
import type { EditResponse } from "./EditResponse.js";
import type { ExtractEvent } from "./ExtractEvent.js";
import type { ExtractRequest } from "./ExtractRequest.js";
import type { ExtractResponse } from "./ExtractResponse.js";
import type { FindRequest } from "./FindRequest.js";
import type { FindResponse } from "./FindResponse.js";
import type { InfoRequest } from "./InfoRequest.js";
import type { InfoResponse } from "./InfoResponse.js";
import type { ListRequest } from "./ListRequest.js";
import type { ListResponse } from "./ListResponse.js";
import type { MkdirRequest } from "./MkdirRequest.js";
import type { MkdirResponse } from "./MkdirResponse.js";
import type { MoveRequest } from "./MoveRequest.js";
import type { MoveResponse } from "./MoveResponse.js";
import type { PortsEvent } from "./PortsEvent.js";
import type { PortsRequest } from "./PortsRequest.js";
import type { PortsResponse } from "./PortsResponse.js";
import type { ReadRequest } from "./ReadRequest.js";
import type { ReadResponse } from "./ReadResponse.js";
import type { RemoveRequest } from "./RemoveRequest.js";
import type { RemoveResponse } from "./RemoveResponse.js";
import type { SearchEvent } from "./SearchEvent.js";
import type { SearchRequest } from "./SearchRequest.js";
import type { SearchResponse } from "./SearchResponse.js";
import type { StatRequest } from "./StatRequest.js";
import type { StatResponse } from "./StatResponse.js";
import type { StreamEnd } from "./StreamEnd.js";
import type { WatchEvent } from "./WatchEvent.js";
import type { WatchRequest } from "./WatchRequest.js";
import type { WatchResponse } from "./WatchResponse.js";
import type { WriteRequest } from "./WriteRequest.js";
import type { WriteResponse } from "./WriteResponse.js";

/** What goes in, what comes out, and what comes out meanwhile, of every tool by its name on the wire. */
export interface Tools {
  /** Says what this agent is: versions, tools, limits, workspace root and active guards. */
  info: { request: InfoRequest; response: InfoResponse; event: never };
  /** Takes an agent that serves no workspace yet, with variables for its commands; the first claim wins. */
  claim: { request: ClaimRequest; response: ClaimResponse; event: never };
  /** Reads one or many files, whole or by line or byte range, with version and encoding. */
  read: { request: ReadRequest; response: ReadResponse; event: never };
  /** Lists the entries of a directory to a depth, in a stable order, page by page. */
  list: { request: ListRequest; response: ListResponse; event: never };
  /** Searches file contents for a regular expression or literal, with ripgrep's rules; says what it searched, skipped and cut. */
  search: { request: SearchRequest; response: SearchResponse; event: SearchEvent };
  /** Finds files by glob or by a fuzzy query over their paths, best first, with the ignore rules of search. */
  find: { request: FindRequest; response: FindResponse; event: never };
  /** Extracts a tar, tar.gz or tar.zst that lies inside the container into the workspace. */
  extract: { request: ExtractRequest; response: ExtractResponse; event: ExtractEvent };
  /** Runs a command in the workspace and returns or streams its output; a failing command is a response, not an error. */
  command: { request: CommandRequest; response: CommandResponse; event: CommandEvent };
  /** Replays what a command wrote from any offset, then follows it until it ends. */
  commandOutput: { request: CommandOutputRequest; response: CommandResponse; event: CommandEvent };
  /** Searches what a command has written for a regular expression or literal; says each line's stream and offset, and what the log has dropped. */
  commandSearch: { request: CommandSearchRequest; response: CommandSearchResponse; event: CommandSearchEvent };
  /** Sends a signal to every process of a command. */
  commandSignal: { request: CommandSignalRequest; response: CommandSignalResponse; event: never };
  /** Lists the commands that run or have run, newest first. */
  commandList: { request: CommandListRequest; response: CommandListResponse; event: never };
  /** Returns one command: what it is, whether it runs, its terminal and its processes. */
  commandGet: { request: CommandGetRequest; response: CommandGetResponse; event: never };
  /** Writes to the standard input or terminal of a running command, or ends it. */
  commandInput: { request: CommandInputRequest; response: CommandInputResponse; event: never };
  /** Sets the size of the terminal that a command runs in. */
  commandResize: { request: CommandResizeRequest; response: CommandResizeResponse; event: never };
  /** Describes one or many paths: kind, size, mode, times, version, and on request a hash. */
  stat: { request: StatRequest; response: StatResponse; event: never };
  /** Edits, creates, deletes and renames files as one transaction, and returns diffs. */
  edit: { request: EditRequest; response: EditResponse; event: never };
  /** Writes one or many files, each atomically, with the parent directories they need. */
  write: { request: WriteRequest; response: WriteResponse; event: never };
  /** Makes a directory, and the directories above it. */
  mkdir: { request: MkdirRequest; response: MkdirResponse; event: never };
  /** Moves or renames a file, a symbolic link or a whole directory. */
  move: { request: MoveRequest; response: MoveResponse; event: never };
  /** Copies a file, a symbolic link or, with recursive, a whole directory. */
  copy: { request: CopyRequest; response: CopyResponse; event: never };
  /** Removes a file, a symbolic link or, with recursive, a whole directory. */
  remove: { request: RemoveRequest; response: RemoveResponse; event: never };
  /** Says what keeps the workspace awake and since when, or since when it has been idle. */
  activity: { request: ActivityRequest; response: ActivityResponse; event: never };
  /** Returns or streams the records of who called what, on which paths, with what result. */
  auditRead: { request: AuditReadRequest; response: AuditReadResponse; event: AuditEvent };
  /** Lists the TCP ports on which something listens inside, and whose they are; waits for one to open; streams what opens and closes. */
  ports: { request: PortsRequest; response: PortsResponse; event: PortsEvent };
  /** Streams which files and directories are created, modified, removed and renamed; without a stream, waits for the next changes. */
  watch: { request: WatchRequest; response: WatchResponse; event: WatchEvent };
}

/** The name of a tool. */
export type ToolName = keyof Tools;

/** A frame of a tool's streamed answer: its events, then one `end` or `error`. */
export type StreamFrame<N extends ToolName> = Tools[N]["event"] | StreamEnd<Tools[N]["response"]>;

/** The names of all tools. */
export const TOOL_NAMES = [
  "info",
  "claim",
  "read",
  "list",
  "search",
  "find",
  "extract",
  "command",
  "commandOutput",
  "commandSearch",
  "commandSignal",
  "commandList",
  "commandGet",
  "commandInput",
  "commandResize",
  "stat",
  "edit",
  "write",
  "mkdir",
  "move",
  "copy",
  "remove",
  "activity",
  "auditRead",
  "ports",
  "watch",
] as const satisfies readonly ToolName[];

/** Version of the contract that these types describe. */
export const PROTOCOL = 1;
