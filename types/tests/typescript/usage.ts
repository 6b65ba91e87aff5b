// How a client uses the bindings. The compiler checks it; nothing runs it.
// A line under `@ts-expect-error` must not compile: if the types let it through, the compiler fails on the comment.

import { PROTOCOL, TOOL_NAMES } from "../../bindings/index.js";
import type {
  Code,
  CommandEvent,
  CommandRequest,
  Data,
  Health,
  Problem,
  ReadResult,
  StreamFrame,
  ToolName,
  Tools,
  WorkspacePath,
} from "../../bindings/index.js";

/** The whole client: one function for every tool. */
declare function call<N extends ToolName>(name: N, request: Tools[N]["request"]): Promise<Tools[N]["response"]>;

/** Frames of a streamed answer. */
declare function stream<N extends ToolName>(
  name: N,
  request: Tools[N]["request"],
): AsyncIterable<StreamFrame<N>>;

export async function requestsAndResponsesBelongTogether(): Promise<number> {
  const { exit, stdout } = await call("command", { line: "npm test", env: { CI: "true" }, timeoutMs: 60_000 });
  const read = await call("read", { files: [{ path: "package.json", lines: { start: 1, end: 20 } }] });
  await call("info", {});
  // @ts-expect-error a tool that doesn't exist
  await call("telepathy", {});
  // @ts-expect-error the agent refuses unknown fields, so do the types
  await call("list", { path: "src", recursive: true });
  // @ts-expect-error a required field lacks
  await call("read", {});
  // @ts-expect-error `exit` is absent while the command runs
  exit.code;
  return stdout.totalBytes + read.files.length + (exit?.code ?? 0) + PROTOCOL;
}

export function eventsAreToldApartByType(event: CommandEvent): string {
  // @ts-expect-error not every event has data
  event.data;
  switch (event.type) {
    case "status":
      return `${event.id} has process ${event.pid} since ${event.started}`;
    case "stdout":
    case "stderr":
      return decode(event.data);
    case "gap":
      return `${event.to - event.from} bytes are missing`;
    case "exit":
      return event.exit.signal ?? String(event.exit.code);
    default:
      return event satisfies never;
  }
}

export async function aStreamEndsWithItsResponse(): Promise<Tools["extract"]["response"]> {
  for await (const frame of stream("extract", { archive: { inbox: "project.tar.gz" } })) {
    switch (frame.type) {
      case "progress":
        frame.entries satisfies number;
        break;
      case "end":
        return frame.response;
      case "error":
        throw new Error(describe(frame.problem));
    }
  }
  throw new Error("the stream was cut off");
}

export async function aToolWithoutEventsOnlyEnds(): Promise<void> {
  for await (const frame of stream("read", { files: [] })) {
    frame.type satisfies "end" | "error";
  }
}

export function decode(data: Data): string {
  return "text" in data ? data.text : `${data.base64.length} characters of base64`;
}

export function describe(problem: Problem): string {
  const limit: unknown = problem.context?.["limit"];
  return `${problem.code}: ${problem.detail} ${String(limit)} ${problem.suggestion ?? ""}`;
}

export function show(path: WorkspacePath): string {
  return typeof path === "string" ? path : path.base64;
}

export function aFileIsReadOrNot(result: ReadResult): string {
  // @ts-expect-error a file that was not read has no version
  result.version;
  if (result.status === "error") return describe(result.problem);
  const content = "text" in result ? result.text : result.base64;
  return `${show(result.path)} ${result.version} ${result.size.toFixed()} ${content}`;
}

export const names: readonly ToolName[] = TOOL_NAMES;
export const notFound: Code = "NOT_FOUND";
// @ts-expect-error codes are a closed list for the compiler
export const misspelt: Code = "NOTFOUND";
// @ts-expect-error absent fields are left out, never null
export const withNull: CommandRequest = { line: "true", cwd: null };
// @ts-expect-error a number, as JSON has it
export const uptime: Health["uptimeMs"] = 1n;
