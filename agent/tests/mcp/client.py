"""Connects by the official SDK, lists the tools and uses each of them once at least.

Arguments: URL, token, how the revision of the protocol is agreed on (`legacy` or `auto`), and which that is.
"""

import asyncio
import re
import sys

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

url, token, mode, revision = sys.argv[1:]
used = set()


async def main(client):
    assert client.protocol_version == revision, client.protocol_version
    assert client.server_info.name == "corehold-agent", client.server_info
    assert "workspace" in client.instructions
    if mode == "legacy":  # the newest revision has none
        await client.send_ping()

    async def call(name, arguments, **options):
        result = await client.call_tool(name, arguments, **options)
        return result.is_error, "\n".join(part.text for part in result.content)

    async def use(name, expected, arguments=None, **options):
        failed, text = await call(name, arguments or {}, **options)
        assert not failed, f"{name}: {text}"
        assert re.search(expected, text, re.DOTALL), f"{name}: {expected} is not in {text}"
        used.add(name)
        return text

    async def fail(name, expected, arguments):
        failed, text = await call(name, arguments)
        assert failed and re.search(expected, text), f"{name}: {text}"

    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert all(tool.description and tool.input_schema["type"] == "object" for tool in tools.values())

    replace = lambda old: {"files": [{"path": "src/a.txt", "operations": [{"type": "replace", "old": old, "new": "2"}]}]}
    await use("info", "bootId")
    await use("write", r"src/a\.txt", {"files": [{"path": "src/a.txt", "content": "one\ntwo\nthree\n"}]})
    await use("mkdir", "empty|created", {"path": "empty"})
    await use("read", "2\ttwo", {"files": [{"path": "src/a.txt"}]})
    await use("list", r"src/a\.txt\t14", {"depth": 2})
    await use("stat", '"size":14', {"paths": ["src/a.txt"]})
    await use("find", r"^src/a\.txt", {"query": "atxt"})
    await use("search", "2 matching lines in 1 files", {"pattern": "t(wo|hree)"})
    await use("edit", r"modified src/a\.txt \(\+1 -1\)", replace("two"))
    await use("copy", ".", {"from": "src/a.txt", "to": "b.txt"})
    await use("move", ".", {"from": "b.txt", "to": "c.txt"})
    await use("remove", ".", {"path": "c.txt"})
    await fail("remove", "^NOT_FOUND: ", {"path": "c.txt"})
    await fail("edit", "^[A-Z_]+: ", replace("absent"))
    await fail("read", "^INVALID_REQUEST: ", {"files": 7})
    await use("command", "exit code 4.*one\n2\nthree", {"line": "cat src/a.txt; exit 4"})

    line = "read line; echo got $line; sleep 600"
    started = await use("command", "runs as ", {"line": line, "detach": True, "interactive": True})
    command = re.search(r"runs as (\w+)", started)[1]
    await use("commandInput", "accepted", {"id": command, "data": {"text": "word\n"}})
    await use("commandList", command)
    await use("commandGet", "takesInput", {"id": command})

    async def end(progress, total, message):
        if message == "got word":  # it is ended once it has said what it got
            await use("commandSignal", ".", {"id": command, "signal": "SIGTERM"})

    await use("commandOutput", "got word", {"id": command, "follow": True}, progress_callback=end)
    await use("commandSearch", "0 stdout: got word\n", {"id": command, "pattern": "^got"})
    terminal = {"line": "sleep 600", "detach": True, "pty": {"columns": 80, "rows": 24}}
    started = await use("command", "runs as ", terminal)
    await use("commandResize", ".", {"id": re.search(r"runs as (\w+)", started)[1], "columns": 100, "rows": 30})
    await use("ports", "ports")
    await use("watch", "changes", {"timeoutMs": 100})
    await use("activity", ".")
    await use("auditRead", '"mcp"')
    await use("command", "exit code 0", {"line": "tar cf - src | gzip > t.tar.gz"})
    await use("extract", ".", {"archive": {"path": "t.tar.gz"}, "destination": "unpacked"})

    # Cancelling ends a call, and not the command.
    with anyio.CancelScope() as scope:

        async def cancel(progress, total, message):
            scope.cancel()

        line = "echo begun; exec sleep 600"
        await call("command", {"line": line, "label": "kept"}, progress_callback=cancel)
        raise AssertionError("it was not cancelled")
    text = await use("commandList", '"line":"echo begun; exec sleep 600"', {"label": "kept"})
    assert '"exit"' not in text, text

    assert used == set(tools), f"tools that were not used: {set(tools) - used}"
    print(f"{len(used)} tools were used")


async def connect():
    headers = {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30, read=300)) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            await main(client)


asyncio.run(connect())
