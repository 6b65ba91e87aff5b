//! `types/openapi`: the agent's HTTP surface as OpenAPI 3.1, made from the types. The agent serves it as `/openapi.json`;
//! a test of the agent's holds it against the router.

use std::collections::BTreeMap;

use corehold_types::{Problem, Scope, Tool, for_each_tool, tools, wire};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    committed, samples,
    schema::{accepted, has_events, sorted, with_ranges},
};

/// Schemas by name: of what a client may send, and of what it gets.
struct Schemas {
    accepted: SchemaGenerator,
    sent: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let generator = |settings: SchemaSettings| {
            let mut settings = settings;
            settings.definitions_path = "/components/schemas".into();
            settings.into_generator()
        };
        Self {
            accepted: generator(SchemaSettings::draft2020_12().for_deserialize()),
            sent: generator(SchemaSettings::draft2020_12().for_serialize()),
        }
    }

    fn accepted<T: JsonSchema>(&mut self) -> Value {
        self.accepted.subschema_for::<T>().to_value()
    }

    fn sent<T: JsonSchema>(&mut self) -> Value {
        self.sent.subschema_for::<T>().to_value()
    }

    /// Every schema.
    fn all(mut self) -> Map<String, Value> {
        let mut all = self.sent.take_definitions(true);
        for (name, schema) in self.accepted.take_definitions(true) {
            let other = all.insert(name.clone(), schema);
            let same = other.is_none_or(|other| other == all[&name]);
            assert!(same, "{name} is accepted in another form than it is sent: it needs two types");
        }
        let Value::Object(all) = with_ranges(&Value::Object(all)) else { panic!("an object stays one") };
        all
    }
}

/// The answers that a route gives in the form of a problem, with these statuses and no others: the agent's tests hold each
/// of their answers against them.
fn problems(statuses: &[u16]) -> Map<String, Value> {
    only(&[ALWAYS, statuses].concat())
}

fn only(statuses: &[u16]) -> Map<String, Value> {
    let response = |status: &u16| {
        assert!(EVERY.contains(status), "{status} isn't among the responses of the document");
        (status.to_string(), json!({ "$ref": format!("#/components/responses/problem{status}") }))
    };
    statuses.iter().map(response).collect()
}

/// The responses that [`only`] refers to.
fn all_problems() -> Map<String, Value> {
    let content = json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
    let response =
        |status: &u16| (format!("problem{status}"), json!({ "description": why(*status), "content": content }));
    EVERY.iter().map(response).collect()
}

/// Every status that there is a response of.
const EVERY: &[u16] = &[400, 401, 403, 404, 408, 409, 412, 413, 415, 416, 422, 500, 503, 507];

/// Statuses of problems that every route with a token may answer with.
const ALWAYS: &[u16] = &[401, 403, 409, 500];

/// What may be wrong with a body, besides its content.
const BODY: &[u16] = &[400, 408, 413];

/// What may be wrong with an `Idempotency-Key`. (Too many of them: 413.)
const KEY: &[u16] = &[400, 413, 422, 503];

fn why(status: u16) -> &'static str {
    match status {
        400 => "The request is malformed (`context.field` names the field), or means nothing here.",
        401 => "There is no token, or it isn't valid.",
        403 => {
            "The token's scopes, the command policy or a file's mode don't allow it, or a page of this origin may not ask."
        }
        404 => "Something that the request names does not exist.",
        408 => "It took too long: the body didn't come, or what was waited for.",
        409 => "It can't be done as things are: another version, a file in the way, no workspace yet.",
        412 => "A condition isn't met.",
        413 => "A limit is exceeded; `context.variable` names the variable that sets it.",
        415 => "The body is not JSON.",
        416 => "The range lies behind the file's end.",
        422 => "The `Idempotency-Key` stands for another request.",
        500 => "The agent made a mistake.",
        503 => "The agent is shutting down.",
        507 => "The disk is full, or a quota is used up.",
        other => panic!("say when the agent answers {other}"),
    }
}

/// Tools that name nothing that could be missing.
const NAMELESS: &[&str] = &["info", "claim", "activity", "auditRead", "commandList", "ports"];

/// Statuses of a tool's problems, besides those of every route's.
fn of_tool<T: Tool>() -> Vec<u16> {
    let mut statuses = [BODY, &[415, 503]].concat();
    if T::CHANGES {
        statuses.extend(KEY);
    }
    if !NAMELESS.contains(&T::NAME) {
        statuses.push(404);
    }
    if T::SCOPE == Scope::Write {
        statuses.push(507);
    }
    statuses
}

fn with(mut responses: Map<String, Value>, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("{more}") };
    responses.extend(more);
    Value::Object(responses)
}

fn tool<T: Tool>(schemas: &mut Schemas, samples: &BTreeMap<String, Value>) -> (String, Value) {
    let example = |name: &str| samples.get(name.rsplit("::").next().unwrap()).cloned();
    let request_name = std::any::type_name::<T::Request>();
    let response_name = std::any::type_name::<T::Response>();
    let mut request = json!({ "schema": schemas.accepted::<T::Request>() });
    let mut response = json!({ "schema": schemas.sent::<T::Response>() });
    for (body, example) in [(&mut request, example(request_name)), (&mut response, example(response_name))] {
        if let Some(example) = example {
            body["example"] = example;
        }
    }
    let mut content = json!({ "application/json": response });
    if has_events::<T>() {
        // The last item says how it ended.
        let end = json!({ "$ref": "#/components/schemas/StreamEnd" });
        let item = json!({ "anyOf": [schemas.sent::<T::Event>(), end] });
        content["application/x-ndjson"] = json!({ "schema": { "type": "string" }, "x-item-schema": item });
        content["text/event-stream"] = json!({ "schema": { "type": "string" }, "x-item-schema": item });
    }
    // Of some fields one is needed, whichever.
    let needed = serde_json::from_str::<T::Request>("{}").is_err() || accepted::<T::Request>()["oneOf"].is_array();
    let mut operation = json!({
        "operationId": T::NAME,
        "summary": T::SUMMARY,
        "tags": ["tools"],
        "security": [{ "token": [] }],
        "x-scope": T::SCOPE,
        // Without a body it is an empty object.
        "requestBody": { "required": needed, "content": { "application/json": request } },
        "responses": with(problems(&of_tool::<T>()), json!({ "200": { "description": "Done.", "content": content } })),
    });
    if T::CHANGES {
        operation["parameters"] = json!([{ "$ref": "#/components/parameters/IdempotencyKey" }]);
    }
    (format!("/v1/tools/{}", T::NAME), json!({ "post": operation }))
}

fn operation(id: &str, summary: &str, scope: Option<Scope>, parameters: Value, responses: Value) -> Value {
    let mut operation = json!({ "operationId": id, "summary": summary, "tags": ["routes"], "parameters": parameters, "responses": responses });
    match scope {
        Some(scope) => {
            operation["security"] = json!([{ "token": [] }]);
            operation["x-scope"] = json!(scope);
        }
        None => operation["security"] = json!([]),
    }
    operation
}

fn header(name: &str, description: &str) -> Value {
    json!({ "name": name, "in": "header", "required": false, "description": description, "schema": { "type": "string" } })
}

fn query(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema })
}

fn in_path(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
}

fn bytes(media_type: &str) -> Value {
    json!({ media_type: { "schema": { "type": "string", "format": "binary" } } })
}

fn files(schemas: &mut Schemas) -> Value {
    let path = in_path(
        "path",
        "The file, beneath the workspace root; slashes stay as they are, other bytes are percent-encoded. OpenAPI has no way to \
         say that it may hold slashes.",
        json!({ "type": "string", "minLength": 1 }),
    );
    let key = json!({ "$ref": "#/components/parameters/IdempotencyKey" });
    let if_match = header("If-Match", "Only if the file has this version (`ETag`), or `*` for any.");
    let if_none_match =
        header("If-None-Match", "Only if the file has another version; `*` with PUT: only if there is none.");
    let range = header("Range", "A part of the file, such as `bytes=0-1023`.");
    let if_range = header("If-Range", "The range only if the file has this version, else all of it.");
    let etag = json!({ "ETag": { "description": "The file's version.", "schema": { "type": "string" } } });
    let octets = bytes("application/octet-stream");
    let read = json!({
        "200": { "description": "The file.", "headers": etag, "content": octets },
        "206": { "description": "The part that was asked for.", "headers": etag, "content": octets },
        "304": { "description": "The file still has this version." },
    });
    let read = with(problems(&[400, 404, 412, 416]), read);
    // The answer to HEAD has no body.
    let mut head = read.clone();
    for (status, response) in head.as_object_mut().unwrap() {
        response.as_object_mut().unwrap().remove("content");
        if response.get("$ref").is_some() {
            *response = json!({ "description": why(status.parse().unwrap()) });
        }
    }
    let readable = json!([path, if_match, if_none_match, range, if_range]);
    let written = json!({ "application/json": { "schema": schemas.sent::<wire::FileWritten>() } });
    let changing = |more: &[u16]| problems(&[KEY, &[404, 412], more].concat());
    let mut put = operation(
        "putFile",
        "Writes a file whole and atomically, with the parent directories it needs.",
        Some(Scope::Write),
        json!([path, if_match, if_none_match, key]),
        with(
            changing(&[408, 507]),
            json!({
                "200": { "description": "It was replaced.", "headers": etag, "content": written },
                "201": { "description": "It is new.", "headers": etag, "content": written },
            }),
        ),
    );
    put["requestBody"] = json!({ "required": true, "content": octets });
    json!({
        "get": operation("getFile", "Reads a file, or a part of it.", Some(Scope::Read), readable.clone(), read),
        "head": operation("headFile", "Says what GET would, without the bytes.", Some(Scope::Read), readable, head),
        "put": put,
        "delete": operation(
            "deleteFile",
            "Deletes a file; a symbolic link is deleted itself.",
            Some(Scope::Write),
            json!([path, if_match, if_none_match, key]),
            with(changing(&[]), json!({ "204": { "description": "It is gone." } })),
        ),
    })
}

/// The route without a path: the workspace root, which is no file.
fn no_file(files: &Value, suffix: &str) -> Value {
    let mut methods = files.clone();
    for operation in methods.as_object_mut().unwrap().values_mut() {
        let id = operation["operationId"].as_str().unwrap().replace("File", "Root");
        operation["operationId"] = json!(format!("{id}{suffix}"));
        operation["summary"] = json!("Names the workspace root, which is no file, so it is always refused.");
        operation["parameters"].as_array_mut().unwrap().remove(0);
        operation["responses"].as_object_mut().unwrap().retain(|status, _| status.starts_with(['4', '5']));
    }
    methods
}

fn archive(schemas: &mut Schemas) -> Value {
    let path = query("path", "The directory. Default: the root.", json!({ "type": "string" }));
    let format = query("format", "Default `tar.gz`.", json!({ "enum": ["tar.gz", "tar", "tar.zst"] }));
    let hash = query(
        "hash",
        "BLAKE3 of the archive in hex: another one changes nothing.",
        json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{64}$" }),
    );
    let replace = query(
        "replace",
        "Whether what is in the directory and not in the archive goes: all or nothing. Default: the two are merged.",
        json!({ "enum": ["true", "false"] }),
    );
    let exclude = query(
        "exclude",
        "Patterns as in .gitignore of what is left out; may be given more than once.",
        json!({ "type": "array", "items": { "type": "string" } }),
    );
    let exact_times = query(
        "exactTimes",
        "Whether times are kept to the nanosecond, for which each entry takes a kilobyte more. Default: to the second.",
        json!({ "enum": ["true", "false"] }),
    );
    let octets = json!({ "schema": { "type": "string", "format": "binary" } });
    let sent = json!({ "application/gzip": octets, "application/x-tar": octets, "application/zstd": octets });
    let taken = json!({ "application/json": { "schema": schemas.sent::<tools::ExtractResponse>() } });
    let mut put = operation(
        "putArchive",
        "Extracts a tar archive, plain or compressed by gzip or zstd, into a directory.",
        Some(Scope::Write),
        json!([path, hash, replace, { "$ref": "#/components/parameters/IdempotencyKey" }]),
        with(
            problems(&[KEY, BODY, &[404, 507]].concat()),
            json!({ "200": { "description": "Extracted.", "content": taken } }),
        ),
    );
    put["requestBody"] = json!({ "required": true, "content": { "application/octet-stream": octets } });
    json!({
        "get": operation(
            "getArchive",
            "Sends a directory as an archive.",
            Some(Scope::Read),
            json!([path, format, exclude, exact_times]),
            with(problems(&[400, 404]), json!({ "200": { "description": "The archive.", "content": sent } })),
        ),
        "put": put,
    })
}

fn others(schemas: &mut Schemas) -> Map<String, Value> {
    let files = files(schemas);
    let upgraded = |what: &str| json!({ "101": { "description": what } });
    let health = json!({ "200": {
        "description": "The agent answers.",
        "content": { "application/json": { "schema": schemas.sent::<wire::Health>() } },
    } });
    let document = json!({ "200": { "description": "This document.", "content": { "application/json": { "schema": { "type": "object" } } } } });
    let message = json!({ "type": "object", "required": ["jsonrpc"], "properties": { "jsonrpc": { "const": "2.0" } } });
    let messages = json!({ "anyOf": [message, { "type": "array", "items": message, "minItems": 1, "maxItems": 64 }] });
    let mut version =
        header("MCP-Protocol-Version", "The version that is spoken; since 2026-07-28 it stands in `_meta` too.");
    version["schema"]["enum"] = json!(["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"]);
    let mut mcp = operation(
        "mcp",
        "The tools for models, by the Model Context Protocol (Streamable HTTP); each call needs its tool's scope.",
        Some(Scope::Read),
        json!([
            version,
            header("Mcp-Method", "The message's method; needed since 2026-07-28."),
            header("Mcp-Name", "The tool that is called; needed since 2026-07-28."),
            header("Mcp-Session-Id", "As `initialize` answered; until 2025-11-25.")
        ]),
        with(
            problems(&[BODY, &[415]].concat()),
            json!({
                "200": { "description": "Answers.", "content": { "application/json": { "schema": {} }, "text/event-stream": { "schema": { "type": "string" } } } },
                "202": { "description": "Notifications are taken." },
                "400": { "description": "No message, a version that isn't spoken, or headers that say something else.", "content": {
                    "application/json": { "schema": message },
                    "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } },
                } },
                "404": { "description": "There is no such method.", "content": { "application/json": { "schema": message } } },
            }),
        ),
    );
    mcp["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": messages } } });
    let port = in_path("port", "The port inside.", json!({ "type": "integer", "minimum": 1, "maximum": 65535 }));
    let tunnel = problems(&[400, 404, 408, 413, 503]);
    let metrics = json!({ "200": {
        "description": "Counters, gauges and a histogram of durations.",
        "content": { "text/plain": { "schema": { "type": "string" } } },
    } });
    let routes = [
        (
            "/metrics",
            json!({ "get": operation(
            "metrics",
            "What the agent has done and has open, in the text format of Prometheus.",
            Some(Scope::Read),
            json!([]),
            with(problems(&[]), metrics),
        ) }),
        ),
        (
            "/health",
            json!({ "get": operation("health", "Whether the agent answers.", None, json!([]), with(only(&[403, 500]), health)) }),
        ),
        (
            "/openapi.json",
            json!({ "get": operation("openapi", "This document.", None, json!([]), with(only(&[403, 500]), document)) }),
        ),
        ("/mcp", json!({ "post": mcp })),
        ("/v1/files", no_file(&files, "")),
        ("/v1/files/", no_file(&files, "Slash")),
        ("/v1/files/{path}", files),
        ("/v1/archive", archive(schemas)),
        (
            "/v1/tunnel/{port}",
            json!({ "get": operation(
            "tunnel",
            "Opens a connection to a port inside: an upgrade of HTTP/1.1 to `corehold-tunnel`.",
            Some(Scope::Command),
            json!([port]),
            with(tunnel, upgraded("The connection carries the port's bytes.")),
        ) }),
        ),
        (
            "/v1/ws",
            json!({ "get": operation(
            "webSocket",
            "Every tool over one WebSocket with the subprotocol `corehold.v1`; each call needs its tool's scope.",
            Some(Scope::Read),
            json!([]),
            with(problems(&[400, 413, 503]), upgraded("The WebSocket is open.")),
        ) }),
        ),
    ];
    routes.into_iter().map(|(path, item)| (path.to_owned(), item)).collect()
}

fn document() -> Value {
    let mut schemas = Schemas::new();
    let mut samples_by_name = BTreeMap::new();
    for sample in samples::all() {
        samples_by_name.entry(sample.type_name).or_insert(sample.json);
    }
    let mut paths = others(&mut schemas);
    schemas.sent::<Problem>();
    schemas.sent::<wire::StreamEnd<Value>>();
    macro_rules! tools {
        ($($tool:ident),*) => { $(
            let (path, item) = tool::<tools::$tool>(&mut schemas, &samples_by_name);
            paths.insert(path, item);
        )* };
    }
    for_each_tool!(tools);
    let components = schemas.all();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Corehold agent",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Search, read, edit and run inside one isolated workspace.",
            "description": "What a client has to know beyond the types stands in docs/protocol.md.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:3001" }],
        "tags": [
            { "name": "tools", "description": "Every tool, the same over HTTP, WebSocket and MCP." },
            { "name": "routes", "description": "Bytes, connections, and facts about the agent." },
        ],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": all_problems(),
            "parameters": { "IdempotencyKey": {
                "name": "Idempotency-Key", "in": "header", "required": false,
                "description": "A repeated change with the same key gets the first one's answer.",
                "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$" },
            } },
            "securitySchemes": { "token": {
                "type": "http", "scheme": "bearer",
                "description": "A token that the host signed, or the static one. `x-scope` of an operation says which scope it needs.",
            } },
        },
    })
}

/// A line for each path and each schema: the agent carries this file, and a review still sees what changed.
fn print(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(fields) if depth < 3 && !fields.is_empty() => {
            text.push('{');
            for (index, (key, value)) in fields.iter().enumerate() {
                text.push_str(if index == 0 { "\n" } else { ",\n" });
                text.push_str(&json!(key).to_string());
                text.push(':');
                print(value, depth + 1, text);
            }
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}

#[test]
fn the_document_is_what_the_types_say() {
    let document = sorted(&document());
    let mut text = String::new();
    print(&document, 0, &mut text);
    text.push('\n');
    for reference in text.match_indices("\"#/components/").map(|(at, _)| text[at + 2..].split('"').next().unwrap()) {
        assert!(document.pointer(reference).is_some(), "#{reference} leads nowhere");
    }
    committed::verify("openapi", ".json", &BTreeMap::from([("openapi.json".to_owned(), text)]));
}
