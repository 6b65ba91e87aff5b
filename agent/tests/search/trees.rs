//! Trees and requests as proptest makes them: small alphabets, so that names, patterns and rules meet often.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, path::Path};

use corehold_types::tools::{SearchBinary, SearchCase, SearchRequest};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// An entry of a directory.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    File(Vec<u8>),
    Directory(Tree),
    Link(&'static str),
}

/// A directory's entries; of two with the same name the first counts.
#[derive(Debug, Clone)]
pub(crate) struct Tree(Vec<(&'static [u8], Entry)>);

const FILES: &[&[u8]] = &[
    b"a.rs",
    b"b.rs",
    b"c.js",
    b"README",
    b".hidden",
    b".env.rs",
    b"x y.txt",
    b"caf\xe9.rs",
    b"[z].js",
    b"!n",
    b"#h",
    b"A.RS",
    b"Makefile",
    b"\xc3\xa9.txt",
];
const DIRECTORIES: &[&[u8]] =
    &[b"src", b"build", b"node_modules", b".config", b"d e", b"caf\xe9", b"src2", b".git", b"lib", b".jj"];
const RULE_FILES: &[&[u8]] = &[b".gitignore", b".gitignore", b".ignore", b".rgignore"];
const RULES: &[&str] = &[
    "*.rs",
    "!a.rs",
    "build/",
    "/build",
    "src/*.js",
    "**/lib",
    "!.hidden",
    ".*",
    "*",
    "!*/",
    "!*.js",
    "#h",
    "\\#h",
    "\\!n",
    "x y.txt",
    "caf*",
    "[ab].rs",
    "[z",
    "src/**",
    "**/src/**/*.rs",
    "lib/",
    "!lib/",
    "node_modules",
    "README ",
    "a.rs\\ ",
    "",
    "*.{rs,js}",
    "!/src",
    "/src/",
    "d e/",
    "?.rs",
    "[!a].rs",
    "{a",
    "src2/lib/a.rs",
    "\u{feff}b.rs",
    "c.js\r",
    "é.txt",
];
const LINK_NAMES: &[&[u8]] = &[b"link", b"l.rs", b"loop", b".link"];
const LINKS: &[&str] =
    &["a.rs", "src", "..", ".", "nowhere", "../b.rs", "src/a.rs", "../src", "./lib/../c.js", "loop", ".hidden"];
const LINES: &[&[u8]] = &[
    b"foo",
    b"foo bar",
    b"bar",
    b"FOO",
    b"foobar baz",
    b"",
    b"  foo  ",
    b"f\xffoo",
    b"\xc3\xa9foo\xc3\xa9",
    b"foo\r",
    b"bar\rfoo",
    b"fo\x00o",
    b"fn foo() {",
    b"}",
    b"_foo_",
    b"foo-bar foo",
    b"\xff\xfe",
    b"\r",
    b"foo\tfoo",
    b"\xf0\x9f\xa6\x80 foo",
];
const PATTERNS: &[&str] = &[
    "foo",
    "fo+",
    "^foo",
    "bar$",
    r"\bfoo\b",
    r"foo\s+bar",
    "^$",
    "",
    "[a-z]+",
    "foo|bar",
    ".",
    r"\Afoo",
    r"foo\z",
    r"(?-u)\xff",
    "é",
    "FOO",
    "Foo",
    r"\w+",
    r"foo\W",
    "o",
    r"^\s*$",
    r"foo.*foo",
    r"[^x]",
    r"(?i)FOO",
    r"$",
    "^",
    r"x*",
    r"\r",
    r"oo$",
    r"\{$",
];
const MULTILINE_PATTERNS: &[&str] = &[
    r"foo\nbar",
    r"foo\s*bar",
    r"(?s)foo.*bar",
    r"\n",
    r"foo$\n",
    r"\}\n\n",
    r"bar.+",
    r"\Afoo",
    r"foo\z",
    r"^\s*foo",
    "foo",
    "",
];
const GLOBS: &[&str] = &[
    "*.rs",
    "!*.rs",
    "src/**",
    "!build",
    "**/*.js",
    "/a.rs",
    "!.hidden",
    ".*",
    "*.{js,txt}",
    "!src/",
    "README",
    "[ab]*",
    "caf*",
];
const TYPES: &[&str] = &["rust", "js", "make", "all", "txt"];

fn content() -> impl Strategy<Value = Vec<u8>> {
    let lines = vec(select(LINES), 0..12);
    let ending = prop_oneof![4 => Just(&b"\n"[..]), 1 => Just(&b"\r\n"[..])];
    let plain = (lines, ending, any::<bool>()).prop_map(|(lines, ending, ends)| {
        let mut content = lines.join(ending);
        if ends && !content.is_empty() {
            content.extend_from_slice(ending);
        }
        content
    });
    let marked = (plain.clone(), 0..4).prop_map(|(content, encoding)| {
        let text = String::from_utf8_lossy(&content).replace('\0', "");
        match encoding {
            0 => [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            1 => [&b"\xff\xfe"[..], &text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()].concat(),
            2 => [&b"\xfe\xff"[..], &text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>()].concat(),
            _ => [b"\xff\xfe", &content[..]].concat(),
        }
    });
    prop_oneof![6 => plain, 1 => marked]
}

/// A file around the sizes of buffers, where a piece ends in a line, in a mark, or before a NUL byte. Its lines are long
/// and few, since a pattern may match each letter.
pub(crate) fn large_file() -> impl Strategy<Value = Vec<u8>> {
    let plain = || vec(select(LINES), 0..12).prop_map(|lines| lines.join(&b"\n"[..]));
    (plain(), plain(), prop_oneof![65_500..65_560_usize, 131_040..131_100_usize], any::<bool>()).prop_map(
        |(begin, end, size, one_line)| {
            let mut content = begin;
            content.push(b'\n');
            while content.len() < size {
                content.extend([b' '; 999]);
                content.push(if one_line { b' ' } else { b'\n' });
            }
            content.truncate(size - end.len() / 2);
            content.extend(end);
            content
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<u8>> {
    vec(select(RULES), 1..5).prop_map(|rules| rules.join("\n").into_bytes())
}

/// A tree of some levels.
pub(crate) fn tree() -> impl Strategy<Value = Tree> {
    let file = (select(FILES), content().prop_map(Entry::File));
    let rule_file = (select(RULE_FILES), rules().prop_map(Entry::File));
    let link = (select(LINK_NAMES), select(LINKS).prop_map(Entry::Link));
    let leaves = prop_oneof![8 => file, 3 => rule_file, 1 => link];
    let leaf = vec(leaves.clone(), 0..6).prop_map(Tree);
    leaf.prop_recursive(4, 60, 8, move |inner| {
        let exclude = (Just(&b".git"[..]), rules().prop_map(repository));
        let directory = (select(DIRECTORIES), inner.prop_map(Entry::Directory));
        vec(prop_oneof![6 => leaves.clone(), 4 => directory, 1 => exclude], 1..8).prop_map(Tree)
    })
}

fn repository(exclude: Vec<u8>) -> Entry {
    let info = Tree(vec![(b"exclude", Entry::File(exclude))]);
    Entry::Directory(Tree(vec![(b"info", Entry::Directory(info)), (b"HEAD", Entry::File(b"foo".to_vec()))]))
}

/// A request for everything that changes what is found, but no caps of ours.
pub(crate) fn request() -> impl Strategy<Value = SearchRequest> {
    let flag = || prop_oneof![3 => Just(None), 1 => Just(Some(true))];
    let what = (
        prop_oneof![
            4 => select(PATTERNS).prop_map(|pattern| (pattern, None)),
            1 => (select(MULTILINE_PATTERNS), flag()).prop_map(|(pattern, dot_all)| (pattern, Some(dot_all))),
        ],
        select(&[None, None, Some(SearchCase::Insensitive), Some(SearchCase::Smart)][..]),
        (flag(), flag(), flag(), flag(), flag()),
        select(&[None, None, Some(SearchBinary::Search), Some(SearchBinary::Text)][..]),
        (option::weighted(0.2, 0_u32..3), option::weighted(0.2, 0_u32..3)),
        option::weighted(0.1, 1_u64..3),
        option::weighted(0.1, select(&["utf-16le", "latin1", "none", "auto", "shift_jis"][..])),
    );
    let whence = (
        (flag(), flag(), flag(), flag()),
        select(&[None, None, Some(false)][..]),
        vec(select(GLOBS), 0..3),
        (option::weighted(0.15, select(TYPES)), option::weighted(0.15, select(TYPES))),
        option::weighted(0.1, 1_u32..4),
        option::weighted(0.1, 0_u64..100),
        option::weighted(0.2, select(&["src", "a.rs", ".hidden", "build", "link", ".git", "src/lib", "l.rs"][..])),
    );
    (what, whence).prop_map(|(what, whence)| {
        let ((pattern, multiline), case, (literal, word, whole_line, crlf, invert), binary, (before, after), cap, encoding) =
            what;
        let ((hidden, require_git, follow, sorted), ignore_files, globs, (is, is_not), max_depth, max_file_bytes, path) =
            whence;
        let multiline_too = multiline.is_some();
        SearchRequest {
            pattern: pattern.to_owned(),
            // A literal \n would be a backslash and an n.
            literal: literal.filter(|_| !multiline_too),
            paths: path.into_iter().map(Into::into).collect(),
            case,
            word,
            whole_line,
            multiline: multiline.map(|_| true),
            dot_all: multiline.flatten(),
            crlf,
            invert,
            before,
            after,
            globs: globs.into_iter().map(str::to_owned).collect(),
            types: is.into_iter().map(str::to_owned).collect(),
            types_not: is_not.into_iter().map(str::to_owned).collect(),
            hidden,
            ignore_files,
            require_git,
            follow,
            max_depth,
            max_file_bytes,
            binary,
            encoding: encoding.map(str::to_owned),
            sorted,
            // ripgrep counts the matches between the inverted ones then, and with context behind them panics or never ends.
            max_matches_per_file: cap.filter(|_| !(multiline_too && invert == Some(true))),
            max_matches: Some(1_000_000),
            max_line_bytes: Some(1 << 20),
            ..SearchRequest::default()
        }
    })
}

/// Writes a tree into a folder that exists. Links that lead out of it are left out: ripgrep follows them.
pub(crate) fn write(tree: &Tree, folder: &Path) {
    write_entries(tree, folder);
    let root = folder.canonicalize().unwrap();
    // Without one link others lead elsewhere.
    while remove_links_outside(&root, folder) {}
}

fn remove_links_outside(root: &Path, folder: &Path) -> bool {
    let mut removed = false;
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            removed |= remove_links_outside(root, &entry.path());
        } else if kind.is_symlink() && entry.path().canonicalize().is_ok_and(|target| !target.starts_with(root)) {
            fs::remove_file(entry.path()).unwrap();
            removed = true;
        }
    }
    removed
}

fn write_entries(Tree(entries): &Tree, folder: &Path) {
    for (name, entry) in entries {
        let path = folder.join(OsStr::from_bytes(name));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match entry {
            Entry::File(content) => fs::write(path, content).unwrap(),
            Entry::Link(target) => std::os::unix::fs::symlink(target, path).unwrap(),
            Entry::Directory(tree) => {
                fs::create_dir(&path).unwrap();
                write_entries(tree, &path);
            }
        }
    }
}
