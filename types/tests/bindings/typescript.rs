//! `types/bindings`: one TypeScript file for each type, `tools.ts` for the list of tools, `index.ts` for importing.

use std::{any::type_name, collections::BTreeMap, fmt::Write as _, fs, path::Path};

use corehold_types::{PROTOCOL, Problem, Tool, for_each_tool, rpc, tools, wire};
use ts_rs::{Config, TS, TypeVisitor};

use crate::committed;

/// JSON has one kind of number and the wire keeps integers below 2^53, so `u64` is `number`; a `bigint` would never
/// come out of `JSON.parse`. Imports end in `.js`, which bundlers and Node's own resolution both understand.
pub(crate) fn config() -> Config {
    Config::new().with_large_int("number").with_import_extension(Some("js"))
}

#[derive(Default)]
struct Files(BTreeMap<String, String>);

impl TypeVisitor for Files {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        // Types without a file are TypeScript's own; `NoEvent` is spelled `never` where it is used.
        let Some(path) = T::output_path() else { return };
        let name = path.to_str().expect("type names are ASCII").to_owned();
        if is_never::<T>() || self.0.contains_key(&name) {
            return;
        }
        let content = T::export_to_string(&config()).unwrap_or_else(|error| panic!("{}: {error}", type_name::<T>()));
        self.0.insert(name, tidy(&content));
        T::visit_dependencies(self);
    }
}

fn is_never<T: TS + ?Sized>() -> bool {
    // Only a type of this crate's own is asked: TypeScript's own types may have no inline form.
    T::output_path().is_some() && T::inline(&config()) == "never"
}

/// Indents by the depth of braces outside of comments, and leaves no space at the ends of lines.
fn tidy(content: &str) -> String {
    let mut tidied = String::with_capacity(content.len());
    let mut depth = 0_usize;
    for line in content.trim_end().lines() {
        let comment = line.starts_with("/**") || line.starts_with(" *") || line.starts_with("//");
        tidied.push_str(&"  ".repeat(depth));
        tidied.push_str(line.trim_end());
        tidied.push('\n');
        if !comment {
            depth = (depth + line.matches('{').count()).saturating_sub(line.matches('}').count());
        }
    }
    tidied
}

fn name_of<T: TS + ?Sized>() -> String {
    if is_never::<T>() { "never".to_owned() } else { T::name(&config()) }
}

struct ToolLine {
    name: &'static str,
    summary: &'static str,
    request: String,
    response: String,
    event: String,
}

fn tool_line<T: Tool>() -> ToolLine {
    ToolLine {
        name: T::NAME,
        summary: T::SUMMARY,
        request: name_of::<T::Request>(),
        response: name_of::<T::Response>(),
        event: name_of::<T::Event>(),
    }
}

fn visit_tool<T: Tool>(files: &mut Files) {
    files.visit::<T::Request>();
    files.visit::<T::Response>();
    files.visit::<T::Event>();
}

macro_rules! visit_tools {
    ($($tool:ident),*) => { |files: &mut Files| { $(visit_tool::<tools::$tool>(files);)* } };
}

macro_rules! tool_lines {
    ($($tool:ident),*) => { [$(tool_line::<tools::$tool>()),*] };
}

/// First line of the files that are not ts-rs's own.
pub(crate) const NOTE: &str = "// This file was generated from corehold-types by `cargo xtask gen`. Do not edit it.\n";

fn tools_file(lines: &[ToolLine]) -> String {
    let mut types: Vec<&str> = lines
        .iter()
        .flat_map(|line| [&*line.request, &*line.response, &*line.event])
        .filter(|&name| name != "never")
        .collect();
    types.push("StreamEnd");
    types.sort_unstable();
    types.dedup();

    let mut file = NOTE.to_owned();
    for name in types {
        writeln!(file, "import type {{ {name} }} from \"./{name}.js\";").unwrap();
    }
    file.push_str(
        "\n/** What goes in, what comes out, and what comes out meanwhile, of every tool by its name on the wire. */\n",
    );
    file.push_str("export interface Tools {\n");
    for ToolLine { name, summary, request, response, event } in lines {
        writeln!(file, "  /** {summary} */").unwrap();
        writeln!(file, "  {name}: {{ request: {request}; response: {response}; event: {event} }};").unwrap();
    }
    file.push_str("}\n\n/** The name of a tool. */\nexport type ToolName = keyof Tools;\n\n");
    file.push_str("/** A frame of a tool's streamed answer: its events, then one `end` or `error`. */\n");
    file.push_str(
        "export type StreamFrame<N extends ToolName> = Tools[N][\"event\"] | StreamEnd<Tools[N][\"response\"]>;\n\n",
    );
    file.push_str("/** The names of all tools. */\nexport const TOOL_NAMES = [\n");
    for line in lines {
        writeln!(file, "  \"{}\",", line.name).unwrap();
    }
    file.push_str("] as const satisfies readonly ToolName[];\n\n");
    writeln!(file, "/** Version of the contract that these types describe. */\nexport const PROTOCOL = {PROTOCOL};")
        .unwrap();
    file
}

fn index_file<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut file = NOTE.to_owned();
    for name in names {
        let name = name.trim_end_matches(".ts");
        writeln!(file, "export type {{ {name} }} from \"./{name}.js\";").unwrap();
    }
    file.push_str("export * from \"./tools.js\";\n");
    file
}

fn generate() -> BTreeMap<String, String> {
    let mut files = Files::default();
    for_each_tool!(visit_tools)(&mut files);
    files.visit::<wire::Health>();
    files.visit::<wire::FileWritten>();
    files.visit::<wire::StreamEnd<()>>();
    files.visit::<Problem>();
    files.visit::<rpc::RpcError>();
    files.visit::<rpc::StreamOpened>();
    files.visit::<rpc::StreamEvent<()>>();
    files.visit::<rpc::Credit>();
    files.visit::<rpc::Cancel>();
    files.visit::<rpc::Refresh>();
    files.visit::<corehold_types::policy::CommandPolicy>();
    let Files(mut files) = files;
    let index = index_file(files.keys());
    files.insert("tools.ts".to_owned(), tools_file(&for_each_tool!(tool_lines)));
    files.insert("index.ts".to_owned(), index);
    files
}

#[test]
fn bindings_are_what_the_types_say() {
    committed::verify("bindings", ".ts", &generate());
}

#[test]
fn no_number_becomes_a_bigint() {
    let with_bigint: Vec<_> =
        generate().into_iter().filter(|(_, content)| content.contains("bigint")).map(|(name, _)| name).collect();
    assert!(with_bigint.is_empty(), "bigint in {with_bigint:?}");
}

/// A type that derives `TS` crosses the wire; one that nothing here reaches would be missing for every client.
#[test]
fn every_type_of_the_wire_has_its_file() {
    let files = generate();
    let mut missing = Vec::new();
    let mut seen = 0;
    for source in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let mut derives_ts = false;
        for line in source.lines() {
            if line.starts_with("#[derive(") {
                derives_ts = line.contains(" TS)") || line.contains(" TS,");
            }
            let Some(rest) = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum ")) else {
                continue;
            };
            let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
            if std::mem::take(&mut derives_ts) && name != "NoEvent" {
                seen += 1;
                if !files.contains_key(&format!("{name}.ts")) {
                    missing.push(name);
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} types were found: this test no longer understands the sources");
    assert!(missing.is_empty(), "name these in `generate`, or let a tool use them: {missing:?}");
}

fn sources(folder: &Path) -> Vec<String> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources.extend(self::sources(&path));
        } else {
            sources.push(fs::read_to_string(&path).unwrap());
        }
    }
    sources
}
