"""What schemathesis can't know of the agent: which requests that fit the schemas it refuses all the same, and why."""

import re
from urllib.parse import parse_qs, urlsplit

import schemathesis
from schemathesis.core import NOT_SET

# Fields of which a schema can't say what is in them: a cursor is one of the agent's, a pattern a regular expression.
FIELDS = {"cursor", "pattern", "query", "globs", "types", "typesNot", "encoding", "after", "dotAll", "offset", "interactive"}

# What fits each by itself and not together, or not what is there.
REASONS = [
    r"exclude each other|don't go together|can't be asked for together|goes with no other",
    r"is the workspace root|names no entry|lies in|are the same|The empty path",
    r"comes first or not at all|is renamed once|go with create|doesn't go with create|of two entries|in two entries|twice",
    r"comes after line|the file has \d+ lines|line \d+ of the diff",
    r"has \d+ bytes; at most|contains a NUL byte|holds a NUL byte|goes through too many symbolic links|component of more than",
    r"the most that the container allows|the command is empty|batches|a batch|Mcp-|MCP-|_meta|jsonrpc|the archive can't",
    r"isn't followed by two hexadecimal digits|\"tag\", a list of those, or \* was expected|stands for",
    r"is no pattern|the version|is a symbolic link|the file name|the destination",
]


def whole(value):
    """Whole numbers as the agent takes them: to JSON Schema 2.0 is an integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return value


def brief(path, body):
    """What would wait for something to happen waits for two seconds: nothing happens."""
    waits = path == "/v1/tools/watch" or (path == "/v1/tools/ports" and body.get("waitFor") is not None)
    timeout = body.get("timeoutMs")
    if waits and (timeout is None or (isinstance(timeout, int) and timeout > 2000)):
        return {**body, "timeoutMs": 2000}
    return body


def readable(value):
    """What the agent may not read would be in the way of every archive that is asked for later."""
    if isinstance(value, dict):
        modes = {"mode": value["mode"] | 0o700} if isinstance(value.get("mode"), int) else {}
        return {key: readable(item) for key, item in value.items()} | modes
    if isinstance(value, list):
        return [readable(item) for item in value]
    return value


@schemathesis.hook
def before_call(context, case, kwargs):
    if isinstance(case.body, (dict, list)):
        case.body = whole(case.body)
    elif case.path == "/v1/tools/watch" and case.body is NOT_SET:
        case.body, case.media_type = {}, "application/json"
    # What is refused doesn't wait.
    if isinstance(case.body, dict) and case.meta and case.meta.generation.mode.value == "positive":
        case.body = readable(brief(case.path, case.body))


@schemathesis.check
def refused_only_for_what_no_schema_can_say(ctx, response, case):
    """Instead of `positive_data_acceptance`."""
    if not case.meta or case.meta.generation.mode.value != "positive" or response.status_code != 400:
        return
    problem = response.json()
    if problem.get("code") in ("ARCHIVE_INVALID", "ARCHIVE_ENTRY_REFUSED", "COMMAND_NOT_STARTED"):
        return
    field = re.sub(r"\[\d+\]", "", str(problem.get("context", {}).get("field", "")))
    detail = problem.get("detail") or problem.get("error", {}).get("message", "")
    if field in FIELDS or any(re.search(reason, detail) for reason in REASONS):
        return
    raise AssertionError(f"refused though it fits the schema: {detail}")


@schemathesis.check
def what_violates_the_schema_is_refused_here_or_there(ctx, response, case):
    """Instead of `negative_data_rejection`, for tools that answer for each of many files by itself."""
    if case.path not in {"/v1/tools/read", "/v1/tools/stat", "/v1/tools/write"} or response.status_code != 200:
        return
    if not case.meta or case.meta.generation.mode.value != "negative" or case.body in (None, {}):
        return
    answer = response.json()
    results = answer.get("files", answer.get("entries", []))
    if not any(result.get("status") == "error" for result in results):
        raise AssertionError("taken though it violates the schema")


@schemathesis.check
def an_archive_of_no_such_format_is_refused(ctx, response, case):
    """Instead of `negative_data_rejection`, to which a single number is no list of patterns: in a query it is."""
    if case.path != "/v1/archive" or case.method != "GET" or response.status_code != 200:
        return
    for name in parse_qs(urlsplit(response.request.url).query, keep_blank_values=True).get("format", []):
        if name not in {"tar", "tar.gz", "tar.zst"}:
            raise AssertionError(f"taken though there is no format {name}")
