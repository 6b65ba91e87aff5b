//! `template.json`: what may stand in it, and what to say when something else does.
//!
//! Its JSON Schema is made from these types and committed as `host-lib/schema/template.schema.json`.

use std::{collections::BTreeMap, fmt, marker::PhantomData, time::Duration};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::ProjectType;
use crate::workspace::WorkspaceId;

/// The file's name within the template's folder.
pub const FILE_NAME: &str = "template.json";

/// A template: a folder, and how it becomes a running workspace.
///
/// Everything is optional. Where neither `setup` nor `dev` is given, both are inferred from files such as `package.json`,
/// `requirements.txt`, `go.mod` or `index.html`; `"setup": []` says that there is nothing to run.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Corehold template")]
pub(crate) struct TemplateFile {
    /// Address of this schema, for editors.
    #[serde(rename = "$schema", default, deserialize_with = "given")]
    #[schemars(with = "String")]
    #[allow(dead_code, reason = "editors read it, we allow it")]
    pub(crate) schema: Option<String>,
    /// The word by which the template is asked for. Default: the folder's name.
    #[serde(default, deserialize_with = "name")]
    #[schemars(with = "String", extend("pattern" = "^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"))]
    pub(crate) name: Option<String>,
    /// One sentence for people who choose.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "String")]
    pub(crate) description: Option<String>,
    /// The image it needs, when the core image lacks something. Default: that of the type of project, else the core image.
    #[serde(default, deserialize_with = "filled")]
    #[schemars(with = "String", extend("minLength" = 1))]
    pub(crate) image: Option<String>,
    /// The type of project, which decides about the image if no other is named. Default: as the files say, where `setup` and `dev` are
    /// inferred, else none.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "ProjectType")]
    pub(crate) project: Option<ProjectType>,
    /// Shell lines that are run one after the other, once, before the dev command.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Vec<ShellLine>")]
    pub(crate) setup: Option<Vec<ShellLine>>,
    /// Seconds that each set-up line may take. Default 600.
    #[serde(default, deserialize_with = "seconds")]
    #[schemars(with = "u64", extend("minimum" = 1, "maximum" = 86_400))]
    pub(crate) setup_timeout_seconds: Option<u64>,
    /// Whether what the set-up lines leave in the workspace is kept, so that the next workspace of this template, with the same files,
    /// image and variables, gets it without running them. Default true; false for a set-up that must run in each workspace.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "bool")]
    pub(crate) setup_cache: Option<bool>,
    /// The shell line of the dev server. It must listen on 0.0.0.0 and on `port`; `PORT` and `HOST` are set for it.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "ShellLine")]
    pub(crate) dev: Option<ShellLine>,
    /// Port on which the dev server listens, inside. Default 4321.
    #[serde(default, deserialize_with = "port")]
    #[schemars(with = "u16", extend("minimum" = 1, "maximum" = 65_535))]
    pub(crate) port: Option<u16>,
    /// When the dev server counts as ready.
    #[serde(default, deserialize_with = "object")]
    #[schemars(with = "ReadyFile")]
    pub(crate) ready: Option<ReadyFile>,
    /// Variables for every command in the workspace. Names that begin with `COREHOLD_` are taken.
    #[serde(default, deserialize_with = "env")]
    pub(crate) env: BTreeMap<String, String>,
    /// What isn't packed, as in a .gitignore file. `.git`, `node_modules`, `.venv`, `__pycache__`, `.DS_Store` and
    /// `/template.json` never are, unless a pattern with `!` takes them back in. A .gitignore file has no say.
    #[serde(default)]
    pub(crate) exclude: Vec<Pattern>,
    /// Limits. What is absent is the host's default.
    #[serde(default, deserialize_with = "object")]
    #[schemars(with = "ResourcesFile")]
    pub(crate) resources: Option<ResourcesFile>,
}

/// When the dev server counts as ready.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Ready")]
pub(crate) struct ReadyFile {
    /// Path that must answer with a status below 500. Default `/`.
    #[serde(default, deserialize_with = "url_path")]
    #[schemars(with = "String", extend("pattern" = "^/\\S*$"))]
    pub(crate) path: Option<String>,
    /// Seconds that the dev server may take to get there. Default 120.
    #[serde(default, deserialize_with = "seconds")]
    #[schemars(with = "u64", extend("minimum" = 1, "maximum" = 86_400))]
    pub(crate) timeout_seconds: Option<u64>,
}

/// Limits of the workspace.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Resources")]
pub(crate) struct ResourcesFile {
    /// Memory, such as `512MiB` or `1.5GiB`.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "MemorySize")]
    pub(crate) memory: Option<MemorySize>,
    /// CPUs, such as 2 or 0.5.
    #[serde(default, deserialize_with = "cpus")]
    #[schemars(with = "f64", extend("minimum" = 0.01, "maximum" = 1024))]
    pub(crate) cpus: Option<f64>,
    /// Processes and threads.
    #[serde(default, deserialize_with = "pids")]
    #[schemars(with = "u64", extend("minimum" = 16, "maximum" = 1_000_000))]
    pub(crate) pids: Option<u64>,
}

/// A line for `/bin/sh -c`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("minLength" = 1))]
pub(crate) struct ShellLine(pub(crate) String);

impl TryFrom<String> for ShellLine {
    type Error = &'static str;

    fn try_from(line: String) -> Result<Self, Self::Error> {
        match line.trim() {
            "" => Err("an empty command: expected a shell line"),
            _ if line.contains('\0') => Err("a command with a NUL character: expected a shell line"),
            _ => Ok(Self(line)),
        }
    }
}

/// A line of a .gitignore file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub(crate) struct Pattern(pub(crate) String);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(pattern: String) -> Result<Self, String> {
        match crate::pack::check_pattern(&pattern) {
            Ok(()) => Ok(Self(pattern)),
            Err(why) => Err(format!("{pattern:?} is no pattern as in .gitignore: {why}")),
        }
    }
}

/// Bytes of memory, written with a binary unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-9]+(\\.[0-9]+)?(MiB|GiB)$"))]
pub(crate) struct MemorySize(pub(crate) u64);

/// Less than this and the agent itself has no room.
const LEAST_MEMORY: u64 = 16 << 20;

impl TryFrom<String> for MemorySize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no amount of memory: expected a number and MiB or GiB, such as \"512MiB\"");
        let (number, unit) = match (text.strip_suffix("MiB"), text.strip_suffix("GiB")) {
            (Some(number), _) => (number, 1_u64 << 20),
            (_, Some(number)) => (number, 1 << 30),
            _ => return Err(wrong()),
        };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !number.split('.').all(digits) || number.split('.').count() > 2 {
            return Err(wrong());
        }
        let amount: f64 = number.parse().map_err(|_| wrong())?;
        // Far above any machine, and far below where f64 loses whole bytes.
        let bytes = amount * unit as f64;
        if bytes > (1_u64 << 50) as f64 {
            return Err(wrong());
        }
        match bytes as u64 {
            bytes if bytes < LEAST_MEMORY => Err(format!("{text:?} is too little memory: at least 16MiB")),
            bytes => Ok(Self(bytes)),
        }
    }
}

/// What is absent is left out, and never null.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// An object and nothing else: serde would take a list of the fields' values for one, too.
fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    struct Object<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(Object(PhantomData)).map(Some)
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(deserializer)?;
    match name.parse::<WorkspaceId>() {
        Ok(_) => Ok(Some(name)),
        Err(error) => {
            let hint = error.hint_text().map_or_else(String::new, |hint| format!(" ({hint})"));
            Err(D::Error::custom(format!(
                "{name:?} can't name a template: expected at most 32 lower-case letters, digits and inner hyphens{hint}"
            )))
        }
    }
}

fn filled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.trim().is_empty() {
        return Err(D::Error::custom("an empty text: expected the reference of an image"));
    }
    Ok(Some(text))
}

fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    match u16::deserialize(deserializer)? {
        0 => Err(D::Error::custom("port 0 can't be reached: expected a number from 1 to 65535")),
        taken @ crate::host::AGENT_PORT => {
            Err(D::Error::custom(format!("port {taken} is the agent's: choose another")))
        }
        port => Ok(Some(port)),
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match u64::deserialize(deserializer)? {
        seconds @ 1..=86_400 => Ok(Some(seconds)),
        other => Err(D::Error::custom(format!("{other} seconds: expected 1 to 86400"))),
    }
}

fn url_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let path = String::deserialize(deserializer)?;
    match path.parse::<http::uri::PathAndQuery>() {
        Ok(_) if path.starts_with('/') => Ok(Some(path)),
        _ => Err(D::Error::custom(format!("{path:?} is no path of a URL: expected one that begins with /"))),
    }
}

fn env<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let env = BTreeMap::<String, String>::deserialize(deserializer)?;
    for (name, value) in &env {
        check_variable(name, value).map_err(D::Error::custom)?;
    }
    Ok(env)
}

/// Whether a variable may be handed into a workspace.
pub(crate) fn check_variable(name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!("{name:?} can't name a variable"));
    }
    if name.starts_with("COREHOLD_") {
        return Err(format!("{name}: names that begin with COREHOLD_ are taken"));
    }
    if value.contains('\0') {
        return Err(format!("{name}: a value can't hold a NUL character"));
    }
    let bytes = variable_bytes(name, value);
    if bytes > VARIABLE_BYTES {
        return Err(format!(
            "{name} takes {bytes} bytes; the kernel gives no program a variable of more than {VARIABLE_BYTES}: write what is large to a \
             file, and name the file in the variable"
        ));
    }
    Ok(())
}

/// Longest variable that `execve(2)` takes, its name, `=` and NUL included: 32 pages of 4 KiB.
const VARIABLE_BYTES: usize = 32 * 4096;

/// What a variable takes of what `execve(2)` takes: an equals sign and a NUL come to it.
pub(crate) fn variable_bytes(name: &str, value: &str) -> usize {
    name.len() + value.len() + 2
}

fn cpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    match f64::deserialize(deserializer)? {
        cpus if (0.01..=1024.0).contains(&cpus) => Ok(Some(cpus)),
        other => Err(D::Error::custom(format!("{other} CPUs: expected 0.01 to 1024"))),
    }
}

fn pids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match u64::deserialize(deserializer)? {
        pids @ 16..=1_000_000 => Ok(Some(pids)),
        other => Err(D::Error::custom(format!("{other} processes: expected 16 to 1000000"))),
    }
}

impl TemplateFile {
    pub(crate) fn setup_timeout(&self) -> Duration {
        Duration::from_secs(self.setup_timeout_seconds.unwrap_or(600))
    }
}

/// What is wrong with a `template.json`, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// From 1; absent when the whole file is meant.
    pub(crate) line: Option<usize>,
    /// From 1.
    pub(crate) column: Option<usize>,
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(formatter, "line {line}, column {column}: {}", self.message),
            _ => formatter.write_str(&self.message),
        }
    }
}

/// Reads the content of a `template.json`.
pub(crate) fn parse(content: &[u8]) -> Result<TemplateFile, Mistake> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let whole = |message: &str, suggestion: &str| Mistake {
        line: None,
        column: None,
        message: message.to_owned(),
        suggestion: Some(suggestion.to_owned()),
    };
    let text = std::str::from_utf8(content).map_err(|error| {
        let before = &content[..error.valid_up_to()];
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Mistake {
            line: Some(before.iter().filter(|byte| **byte == b'\n').count() + 1),
            column: Some(before.len() - line_start + 1),
            message: "the file is not UTF-8".to_owned(),
            suggestion: Some("save it as UTF-8".to_owned()),
        }
    })?;
    if text.trim().is_empty() {
        return Err(whole("the file is empty", "write {} for a template without any wishes"));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let whole = object(serde_path_to_error::Deserializer::new(&mut reader, &mut track));
    let file: Option<TemplateFile> = whole.map_err(|error| mistake(&track.path().to_string(), &error))?;
    reader.end().map_err(|error| Mistake {
        line: Some(error.line()),
        column: Some(error.column()),
        message: "something stands after the end of the object".to_owned(),
        suggestion: None,
    })?;
    Ok(file.unwrap_or_default())
}

fn mistake(path: &str, inner: &serde_json::Error) -> Mistake {
    let text = inner.to_string();
    // serde_json repeats the position at the end; it is told apart here.
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    let (message, suggestion) = match unknown_field(text) {
        Some((field, known)) => {
            let near = super::near::nearest(&field, known.iter().map(String::as_str));
            let parent = path.rsplit_once('.').map_or(String::new(), |(parent, _)| format!(" in {parent}"));
            let suggestion = match near.first() {
                Some(near) => format!("did you mean {near:?}? Known fields: {}", known.join(", ")),
                None => format!("known fields: {}", known.join(", ")),
            };
            (format!("unknown field {field:?}{parent}"), Some(suggestion))
        }
        None if inner.is_syntax() || inner.is_eof() => (
            format!("this is not JSON: {text}"),
            text.contains("trailing comma").then(|| "remove the comma".to_owned()),
        ),
        None if path == "." => (plain(text), None),
        None => (format!("{path}: {}", plain(text)), None),
    };
    Mistake { line: Some(inner.line()), column: Some(inner.column()), message, suggestion }
}

/// Takes serde's sentence about an unknown field apart: the field, and those it knows.
fn unknown_field(text: &str) -> Option<(String, Vec<String>)> {
    let mut words = text.strip_prefix("unknown field `")?.split('`');
    let field = words.next()?.to_owned();
    Some((field, words.skip(1).step_by(2).map(str::to_owned).collect()))
}

/// serde's names of types in words of people who write JSON.
fn plain(text: &str) -> String {
    let Some((found, expected)) = text.rsplit_once(", expected ") else { return text.to_owned() };
    let expected = match expected {
        "u16" => "a whole number from 0 to 65535",
        "u64" => "a whole number",
        "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        _ if expected.starts_with("struct ") => "an object",
        other => other,
    };
    format!("{}, expected {expected}", found.replace("sequence", "list").replace("map", "object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(json: &str) -> String {
        let mistake = parse(json.as_bytes()).unwrap_err();
        match &mistake.suggestion {
            Some(suggestion) => format!("{mistake} [{suggestion}]"),
            None => mistake.to_string(),
        }
    }

    #[test]
    fn a_full_file_is_read() {
        let file = parse(
            br#"{"$schema": "x", "name": "web", "description": "d", "image": "i", "setup": ["npm ci"], "dev": "npm run dev",
                 "setupTimeoutSeconds": 5, "port": 8080, "ready": {"path": "/up?x", "timeoutSeconds": 9}, "env": {"A": "1"},
                 "exclude": ["dist/", "!dist/keep"], "resources": {"memory": "1.5GiB", "cpus": 0.5, "pids": 100}}"#,
        )
        .unwrap();
        assert_eq!(file.port, Some(8080));
        assert_eq!(file.resources.unwrap().memory, Some(MemorySize(3 << 29)));
        assert_eq!(parse(b"\xef\xbb\xbf{}").unwrap().setup_timeout(), Duration::from_secs(600));
    }

    #[test]
    fn every_mistake_says_where_and_what_was_expected() {
        for (json, expected) in [
            (
                "{\n  \"prot\": 1\n}",
                "line 2, column 8: unknown field \"prot\" [did you mean \"port\"? Known fields: $schema,",
            ),
            (
                "{\n \"ready\": {\"timeout\": 1}}",
                "line 2, column 20: unknown field \"timeout\" in ready [did you mean \"timeoutSeconds\"?",
            ),
            (
                "{\"port\": \"80\"}",
                "line 1, column 13: port: invalid type: string \"80\", expected a whole number from 0 to 65535",
            ),
            ("{\"port\": 99999}", "port: invalid value: integer `99999`, expected a whole number from 0 to 65535"),
            ("{\"port\": 0}", "port: port 0 can't be reached"),
            ("{\"port\": 3001}", "port: port 3001 is the agent's"),
            ("{\"setup\": \"npm ci\"}", "setup: invalid type: string \"npm ci\", expected a list"),
            ("{\"setup\": [\"a\", \" \"]}", "setup[1]: an empty command"),
            ("{\"exclude\": [\"[z-a]\"]}", "exclude[0]: \"[z-a]\" is no pattern"),
            ("{\"ready\": {\"path\": \"up\"}}", "ready.path: \"up\" is no path of a URL"),
            ("{\"ready\": []}", "ready: invalid type"),
            ("{\"resources\": {\"memory\": \"512MB\"}}", "resources.memory: \"512MB\" is no amount of memory"),
            ("{\"resources\": {\"memory\": \"1MiB\"}}", "too little memory"),
            ("{\"resources\": {\"memory\": \"-1GiB\"}}", "resources.memory: \"-1GiB\" is no amount of memory"),
            ("{\"resources\": {\"cpus\": 0}}", "resources.cpus: 0 CPUs"),
            ("{\"resources\": {\"cpus\": -0.5}}", "resources.cpus: -0.5 CPUs"),
            ("{\"resources\": {\"pids\": -1}}", "resources.pids: invalid value: integer `-1`, expected a whole number"),
            ("{\"env\": {\"COREHOLD_PORT\": \"1\"}}", "env: COREHOLD_PORT: names that begin with COREHOLD_ are taken"),
            ("{\"name\": \"My App\"}", "(\"my-app\" would do)"),
            ("{\"dev\": \"a\",}", "line 1, column 13: this is not JSON: trailing comma [remove the comma]"),
            ("{\"dev\": \"a\"", "this is not JSON: EOF"),
            ("{} {}", "line 1, column 4: something stands after the end"),
            ("{\"dev\": null}", "dev: invalid type: null, expected a string"),
            ("[]", "expected an object"),
            ("  ", "the file is empty"),
        ] {
            let message = wrong(json);
            assert!(message.contains(expected), "{json}\n  said: {message}\n  not:  {expected}");
        }
        assert_eq!(parse(b"{\n \"a\xff").unwrap_err().to_string(), "line 2, column 4: the file is not UTF-8");
    }

    #[test]
    fn memory_is_read_exactly_or_not_at_all() {
        for (text, bytes) in [("16MiB", 16 << 20), ("2GiB", 2 << 30), ("0.5GiB", 512 << 20)] {
            assert_eq!(MemorySize::try_from(text.to_owned()), Ok(MemorySize(bytes)));
        }
        for text in ["", "MiB", "-1GiB", "1e3MiB", "1.GiB", ".5GiB", "1.2.3GiB", "infGiB", "9999999999GiB", "1 GiB"] {
            assert!(MemorySize::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
