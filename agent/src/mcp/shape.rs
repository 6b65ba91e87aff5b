//! Answers as a model reads them best: text without the JSON around it, at most as long as the limit `mcpTextBytes`, with
//! the beginning and the end of what is longer, and with the call that gets the rest.

use std::fmt::{Display, Write as _};

use corehold_types::{
    CollectedOutput, Data, WorkspacePath,
    tools::{
        CommandExit, CommandResponse, CommandSearchEvent, CommandSearchResponse, EditResponse, EntryKind, FileContent,
        FindResponse, ListResponse, OutputStream, ReadResponse, ReadResult, SearchFileLine, SearchResponse,
        SearchTruncation,
    },
};
use serde::de::DeserializeOwned;
use serde_json::{json, value::RawValue};

/// The result of `tools/call` for a tool's response.
pub(super) fn answer(tool: &str, response: &[u8], cap: usize) -> String {
    let text = match tool {
        "read" => typed(response, read),
        "search" => typed(response, search),
        "find" => typed(response, find),
        "list" => typed(response, list),
        "command" | "commandOutput" => typed(response, command),
        "commandSearch" => typed(response, command_search),
        "edit" => typed(response, edit),
        _ => None,
    };
    if let Some(text) = text {
        return json!({ "content": [{ "type": "text", "text": cut(text, cap) }] }).to_string();
    }
    // Small facts: the JSON itself, for programs too.
    let json = String::from_utf8_lossy(response);
    let whole = json.len() <= cap;
    let content = json!([{ "type": "text", "text": cut(json.to_string(), cap) }]);
    match serde_json::from_str::<&RawValue>(&json) {
        Ok(structured) if whole => format!(r#"{{"content":{content},"structuredContent":{structured}}}"#),
        _ => format!(r#"{{"content":{content}}}"#),
    }
}

fn typed<T: DeserializeOwned>(response: &[u8], say: fn(&T) -> String) -> Option<String> {
    serde_json::from_slice(response).ok().map(|response| say(&response))
}

/// The beginning and the end, at line ends where there are some near.
pub(super) fn cut(text: String, cap: usize) -> String {
    if text.len() <= cap {
        return text;
    }
    let head = floor(&text, cap / 5 * 3);
    let head = text[..head].rfind('\n').filter(|end| *end > head / 2).map_or(head, |end| end + 1);
    let tail = floor(&text, text.len() - cap / 5 * 2);
    let tail = text[tail..].find('\n').filter(|end| *end < cap / 5).map_or(tail, |end| tail + end + 1);
    let (lines, bytes) = (text[head..tail].matches('\n').count(), tail - head);
    format!(
        "{}[… {bytes} bytes ({lines} lines) left out here; ask for less at a time …]\n{}",
        &text[..head],
        &text[tail..]
    )
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn shown(path: &WorkspacePath) -> String {
    match path {
        WorkspacePath::Text(path) => path.clone(),
        WorkspacePath::Bytes { base64 } => format!("{{\"base64\":\"{base64}\"}}"),
    }
}

/// What may be missing, for messages.
fn or_unknown(value: Option<impl Display>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

fn read(response: &ReadResponse) -> String {
    let mut text = String::new();
    for file in &response.files {
        match file {
            ReadResult::Error { path, problem } => {
                let _ = writeln!(text, "== {}: {}", shown(path), problem.detail);
            }
            ReadResult::Ok(file) => content(&mut text, file),
        }
    }
    text
}

fn content(text: &mut String, file: &FileContent) {
    let path = shown(&file.path);
    let Data::Text(data) = &file.data else {
        let _ =
            writeln!(text, "== {path}: {} bytes, no UTF-8 text (use `command`, such as `file` or `xxd`)", file.size);
        return;
    };
    let Some(first) = file.start_line else {
        let end = file.start_byte + data.len() as u64;
        let _ = writeln!(text, "== {path}, bytes {} to {end} of {}\n{data}", file.start_byte, file.size);
        if file.truncated {
            let _ = writeln!(text, "[cut here; go on with {{\"path\":{path:?},\"bytes\":{{\"start\":{end}}}}}]");
        }
        return;
    };
    // A line that was cut comes again with the rest.
    let mut lines: Vec<&str> = data.lines().collect();
    let only_piece = lines.len() == 1;
    if file.truncated && !data.ends_with('\n') && !only_piece {
        lines.pop();
    }
    let next = first + lines.len() as u64;
    let last = next.saturating_sub(1);
    let total = or_unknown(file.total_lines);
    let _ = writeln!(text, "== {path}, lines {first} to {last} of {total} ({} bytes)", file.size);
    for (number, line) in (first..).zip(&lines) {
        let _ = writeln!(text, "{number:>6}\t{line}");
    }
    if file.truncated && only_piece {
        let end = file.start_byte + data.len() as u64;
        let _ = writeln!(text, "[a long line, cut; go on with {{\"path\":{path:?},\"bytes\":{{\"start\":{end}}}}}]");
    } else if file.truncated {
        let _ = writeln!(text, "[cut here; go on with {{\"path\":{path:?},\"lines\":{{\"start\":{next}}}}}]");
    }
}

fn search(response: &SearchResponse) -> String {
    let mut text = String::new();
    for file in &response.files {
        let path = shown(&file.path);
        if file.lines.is_empty() {
            let _ = writeln!(text, "{path}: {}", file.matched_lines);
            continue;
        }
        let _ = writeln!(text, "{path}");
        for line in &file.lines {
            let (mark, line) = match line {
                SearchFileLine::Match(line) => (':', line),
                SearchFileLine::Context(line) => ('-', line),
            };
            let data = match &line.data {
                Data::Text(data) => data.as_str(),
                Data::Base64(_) => "(no UTF-8)",
            };
            let cut = if line.cut.is_some() { " …" } else { "" };
            let _ = writeln!(text, "{:>6}{mark} {data}{cut}", line.line);
        }
    }
    let _ = write!(text, "[{} matching lines in {} files", response.matched_lines, response.matched_files);
    let _ = match response.truncated.as_slice() {
        [] => write!(text, "; that is all]"),
        reasons => write!(
            text,
            "; there may be more ({}): narrow it with `paths`, `globs` or `types`, or raise `maxMatches`]",
            words(reasons)
        ),
    };
    if response.matched_lines == 0 && response.skipped.ignored + response.skipped.hidden > 0 {
        let _ = write!(
            text,
            "\n[not searched: {} ignored and {} hidden entries; `ignoreFiles: false`, `hidden: true` search them too]",
            response.skipped.ignored, response.skipped.hidden
        );
    }
    text
}

fn words(reasons: &[SearchTruncation]) -> String {
    let word = |reason| serde_json::to_value(reason).unwrap_or_default().as_str().unwrap_or_default().to_owned();
    reasons.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn command_search(response: &CommandSearchResponse) -> String {
    let mut text = String::new();
    for event in &response.found {
        let (mark, line) = match event {
            CommandSearchEvent::Match(line) => (':', line),
            CommandSearchEvent::Context(line) => ('-', line),
            CommandSearchEvent::Gap { from, to } => {
                let _ = writeln!(text, "[bytes {from} to {to} are gone: the log had no room for them]");
                continue;
            }
        };
        let stream = if line.stream == OutputStream::Stdout { "stdout" } else { "stderr" };
        let _ = write!(text, "{:>8} {stream}{mark} ", line.offset);
        data(&mut text, &line.data);
        text.push_str(if line.cut.is_some() { " …\n" } else { "\n" });
    }
    let _ = write!(text, "[{} matching lines in {} bytes", response.matched_lines, response.searched_bytes);
    let _ = match response.truncated.as_slice() {
        [] => write!(text, "; that is all]"),
        reasons => write!(
            text,
            "; there may be more ({}): the same call with `offset: {}` goes on]",
            words(reasons),
            response.offset
        ),
    };
    text
}

fn find(response: &FindResponse) -> String {
    let mut text = String::new();
    for entry in &response.entries {
        let slash = if entry.kind == EntryKind::Directory { "/" } else { "" };
        let _ = writeln!(text, "{}{slash}", shown(&entry.path));
    }
    let _ = write!(text, "[{} of {} that match", response.entries.len(), response.total);
    if let Some(cursor) = &response.cursor {
        let _ = write!(text, "; the next ones: the same call with `cursor: {cursor:?}`");
    }
    text + "]"
}

fn list(response: &ListResponse) -> String {
    let mut text = String::new();
    for entry in &response.entries {
        let path = shown(&entry.path);
        let _ = match (&entry.kind, &entry.target) {
            (EntryKind::Directory, _) => writeln!(text, "{path}/"),
            (EntryKind::Symlink, Some(target)) => writeln!(text, "{path} -> {}", shown(target)),
            (EntryKind::File, _) => writeln!(text, "{path}\t{}", entry.size),
            _ => writeln!(text, "{path}\t(special)"),
        };
    }
    let _ = write!(text, "[{} entries", response.entries.len());
    if let Some(cursor) = &response.cursor {
        let _ = write!(text, "; there are more: the same call with `cursor: {cursor:?}`");
    }
    text + "]"
}

fn command(response: &CommandResponse) -> String {
    let id = &response.id;
    let mut text = match &response.exit {
        Some(exit) => format!("{}\n", ended(exit)),
        None => format!("[runs as {id}; `commandOutput` shows what it writes, `commandSignal` ends it]\n"),
    };
    for (name, output) in [("stdout", &response.stdout), ("stderr", &response.stderr)] {
        stream(&mut text, name, output, id);
    }
    text
}

fn ended(exit: &CommandExit) -> String {
    let mut text = match (exit.code, &exit.signal) {
        (Some(code), _) => format!("[exit code {code}"),
        (None, Some(signal)) => format!("[ended by {signal}"),
        (None, None) => "[ended".to_owned(),
    };
    for (is_so, word) in [
        (exit.timed_out, "its time was over"),
        (exit.stalled, "it wrote nothing for too long"),
        (exit.oom_killed == Some(true), "the memory limit was reached"),
    ] {
        if is_so {
            text += ", ";
            text += word;
        }
    }
    let _ = write!(text, ", {} ms]", exit.duration_ms);
    if !exit.survivors.is_empty() {
        let _ = write!(text, "\n[processes that it left: {:?}]", exit.survivors);
    }
    text
}

fn stream(text: &mut String, name: &str, output: &CollectedOutput, id: &str) {
    if output.total_bytes == 0 {
        return;
    }
    let _ = writeln!(text, "{name}:");
    data(text, &output.head);
    if output.omitted_bytes > 0 {
        let _ = writeln!(
            text,
            "\n[… {} of {} bytes left out here; `commandOutput` with `id: {id:?}` and an `offset` has them, \
             `commandSearch` with a `pattern` finds lines in all of it …]",
            output.omitted_bytes, output.total_bytes
        );
    }
    if let Some(tail) = &output.tail {
        data(text, tail);
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
}

/// What programs write is mostly text; where it isn't, the rest of it is shown.
fn data(text: &mut String, data: &Data) {
    match data {
        Data::Text(data) => text.push_str(data),
        Data::Base64(_) => text.push_str(&String::from_utf8_lossy(&data.to_bytes().unwrap_or_default())),
    }
}

fn edit(response: &EditResponse) -> String {
    let mut text = String::new();
    for file in &response.files {
        let change = serde_json::to_value(file.change).unwrap_or_default();
        let _ = write!(text, "{} {}", change.as_str().unwrap_or_default(), shown(&file.path));
        if let Some(path) = &file.renamed_to {
            let _ = write!(text, " -> {}", shown(path));
        }
        let _ = writeln!(text, " (+{} -{})", file.lines_added, file.lines_removed);
        for hunk in &file.displaced_hunks {
            let _ = writeln!(text, "[hunk {} was applied at line {}, {} lines off]", hunk.hunk, hunk.line, hunk.offset);
        }
        if let Some(diff) = &file.diff {
            text += diff;
        }
    }
    if response.dry_run {
        text += "[a dry run: nothing was changed]\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn said(tool: &str, response: &Value, cap: usize) -> String {
        let answer: Value = serde_json::from_str(&answer(tool, response.to_string().as_bytes(), cap)).unwrap();
        answer["content"][0]["text"].as_str().unwrap().to_owned()
    }

    #[test]
    fn long_text_keeps_both_ends_and_says_what_is_left_out() {
        let text: String = (0..1000).map(|line| format!("line {line} é\n")).collect();
        let cut = cut(text.clone(), 1000);
        assert!(cut.len() < 1100, "{}", cut.len());
        assert!(cut.starts_with("line 0 é\n") && cut.ends_with("line 999 é\n"));
        let (head, rest) = cut.split_once("[… ").unwrap();
        let (count, tail) = rest.split_once(" bytes (").unwrap();
        let tail = tail.split_once("]\n").unwrap().1;
        assert_eq!(head.len() + count.parse::<usize>().unwrap() + tail.len(), text.len());
        assert!(head.ends_with('\n') && tail.starts_with("line "));
        // One long line of wide characters has no line ends to cut at.
        assert!(super::cut("é".repeat(5000), 1000).len() < 1100);
    }

    #[test]
    fn a_file_has_numbered_lines_and_says_how_to_go_on() {
        let mut file = json!({
            "status": "ok", "path": "a", "text": "one\ntwo\nthr", "version": "v", "size": 40, "startByte": 0,
            "startLine": 5, "totalLines": 9, "encoding": "utf8", "binary": false, "truncated": true,
        });
        let text = said("read", &json!({ "files": [file] }), 9000);
        assert_eq!(
            text,
            "== a, lines 5 to 6 of 9 (40 bytes)\n     5\tone\n     6\ttwo\n[cut here; go on with {\"path\":\"a\",\"lines\":{\"start\":7}}]\n"
        );
        file["text"] = json!("piece");
        assert!(said("read", &json!({ "files": [file] }), 9000).contains("\"bytes\":{\"start\":5}"));
    }

    #[test]
    fn a_command_says_how_it_ended_and_where_the_rest_is() {
        let response = json!({
            "id": "c1", "offset": 9, "exit": {"code": 3, "timedOut": false, "stalled": false, "durationMs": 12},
            "stdout": {"text": "he", "tail": {"text": "il"}, "totalBytes": 9, "omittedBytes": 5},
            "stderr": {"text": "", "totalBytes": 0, "omittedBytes": 0},
        });
        let text = said("command", &response, 9000);
        assert!(text.starts_with("[exit code 3, 12 ms]\nstdout:\nhe\n[… 5 of 9 bytes left out"), "{text}");
        assert!(text.ends_with("…]\nil\n") && text.contains("`id: \"c1\"`") && !text.contains("stderr"), "{text}");
        assert!(text.contains("`commandSearch` with a `pattern`"), "{text}");
    }

    #[test]
    fn a_searched_output_says_where_each_line_stands_and_how_to_go_on() {
        let response = json!({
            "id": "c1", "matchedLines": 1, "searchedBytes": 90, "longLines": 0, "offset": 40, "end": 100, "elapsedMs": 1,
            "found": [
                {"type": "gap", "from": 0, "to": 10},
                {"type": "context", "stream": "stdout", "offset": 10, "end": 14, "text": "one"},
                {"type": "match", "stream": "stderr", "offset": 14, "end": 40, "text": "two", "cut": {"start": 0, "length": 25, "hiddenMatches": 0}},
            ],
            "truncated": ["maxMatches"],
        });
        assert_eq!(
            said("commandSearch", &response, 9000),
            "[bytes 0 to 10 are gone: the log had no room for them]\n      10 stdout- one\n      14 stderr: two …\n\
             [1 matching lines in 90 bytes; there may be more (maxMatches): the same call with `offset: 40` goes on]"
        );
    }

    #[test]
    fn small_facts_are_json_and_large_ones_only_text() {
        let response = json!({ "path": "d", "created": true });
        let answer_of =
            |cap| -> Value { serde_json::from_str(&answer("mkdir", response.to_string().as_bytes(), cap)).unwrap() };
        assert_eq!(answer_of(100)["structuredContent"], response);
        assert!(answer_of(10).get("structuredContent").is_none());
    }
}
