// Connects by an official SDK, lists the tools and uses each of them once at least. Arguments: URL, token, and the revision of
// the protocol that is to be agreed on.
import assert from "node:assert/strict";
import { Client, StreamableHTTPClientTransport } from "./sdk.mjs";

const [url, token, revision] = process.argv.slice(2);
const transport = new StreamableHTTPClientTransport(new URL(url), {
  requestInit: { headers: { authorization: `Bearer ${token}` } },
});
// The newer SDK asks which revisions there are; the older one doesn't know this option.
const client = new Client({ name: "corehold-test", version: "1.0.0" }, { versionNegotiation: { mode: "auto" } });
await client.connect(transport);
assert.equal(client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion, revision);
assert.equal(client.getServerVersion().name, "corehold-agent");
assert.match(client.getInstructions(), /workspace/);
// Its newest revision has none.
if (revision < "2026") await client.ping();

/** The newer SDK takes no schema. */
const call = (params, options) => (revision < "2026" ? client.callTool(params, undefined, options) : client.callTool(params, options));

const { tools } = await client.listTools();
const used = new Set();

async function use(name, args, expected, options) {
  const result = await call({ name, arguments: args }, options);
  const text = result.content.map((part) => part.text).join("\n");
  assert.ok(!result.isError, `${name}: ${text}`);
  assert.match(text, expected, name);
  used.add(name);
  return text;
}

async function fail(name, args, expected) {
  const result = await call({ name, arguments: args });
  assert.ok(result.isError);
  assert.match(result.content[0].text, expected, name);
}

await use("info", {}, /bootId/);
await use("write", { files: [{ path: "src/a.txt", content: "one\ntwo\nthree\n" }] }, /src\/a\.txt/);
await use("mkdir", { path: "empty" }, /empty|created/);
await use("read", { files: [{ path: "src/a.txt" }] }, /2\ttwo/);
await use("list", { depth: 2 }, /src\/a\.txt\t14/);
await use("stat", { paths: ["src/a.txt"] }, /"size":14/);
await use("find", { query: "atxt" }, /^src\/a\.txt/);
await use("search", { pattern: "t(wo|hree)" }, /2 matching lines in 1 files/);
await use("edit", { files: [{ path: "src/a.txt", operations: [{ type: "replace", old: "two", new: "2" }] }] }, /modified src\/a\.txt \(\+1 -1\)/);
await use("copy", { from: "src/a.txt", to: "b.txt" }, /./);
await use("move", { from: "b.txt", to: "c.txt" }, /./);
await use("remove", { path: "c.txt" }, /./);
await fail("remove", { path: "c.txt" }, /^NOT_FOUND: /);
await fail("edit", { files: [{ path: "src/a.txt", operations: [{ type: "replace", old: "absent", new: "x" }] }] }, /^NO_MATCH|^[A-Z_]+: /);
await use("command", { line: "cat src/a.txt; exit 4" }, /exit code 4[\s\S]*one\n2\nthree/);
const started = await use("command", { line: "read line; echo got $line; sleep 600", detach: true, interactive: true }, /runs as /);
const id = /runs as (\w+)/.exec(started)[1];
await use("commandInput", { id, data: { text: "word\n" } }, /accepted/);
await use("commandList", {}, new RegExp(id));
await use("commandGet", { id }, /takesInput/);
// It is ended once it has said what it got.
await use("commandOutput", { id, follow: true }, /got word/, {
  onprogress: async ({ message }) => {
    if (message === "got word") await use("commandSignal", { id, signal: "SIGTERM" }, /./);
  },
});
await use("commandSearch", { id, pattern: "^GOT", case: "insensitive" }, /0 stdout: got word\n\[1 matching lines in 9 bytes; that is all\]/);
const terminal = await use("command", { line: "sleep 600", detach: true, pty: { columns: 80, rows: 24 } }, /runs as /);
await use("commandResize", { id: /runs as (\w+)/.exec(terminal)[1], columns: 100, rows: 30 }, /./);
await use("ports", {}, /ports/);
await use("watch", { timeoutMs: 100 }, /changes/);
await use("activity", {}, /./);
await use("auditRead", {}, /"mcp"/);
await use("command", { line: "tar cf - src | gzip > t.tar.gz" }, /exit code 0/);
await use("extract", { archive: { path: "t.tar.gz" }, destination: "unpacked" }, /./);

// Progress tells what a command writes. It waits for the one who was told.
await use("command", { line: "mkfifo pipe" }, /exit code 0/);
const told = [];
const answer = use("command", { line: "echo waiting; cat pipe" }, /exit code 0[\s\S]*waiting/, {
  onprogress: async ({ message }) => {
    if (message === "waiting" && told.push(message) === 1) await use("command", { line: "true >pipe" }, /exit code 0/);
  },
});
await answer;
assert.deepEqual(told, ["waiting"]);

// Cancelling ends a call, and not the command.
const abort = new AbortController();
const waiting = call(
  { name: "command", arguments: { line: "echo begun; exec sleep 600", label: "kept" } },
  { signal: abort.signal, onprogress: () => abort.abort() },
);
await assert.rejects(waiting, /[Aa]bort/);
await use("commandList", { label: "kept" }, /"line":"echo begun; exec sleep 600"(?!.*"exit")/);

const left = tools.map((tool) => tool.name).filter((name) => !used.has(name));
assert.deepEqual(left, [], "tools that were not used");
await client.close();
console.log(`${used.size} tools were used`);
