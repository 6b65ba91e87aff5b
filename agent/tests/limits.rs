//! `docs/limits.md` is what the table of limits says. `cargo xtask gen` (this test with `COREHOLD_UPDATE=1`) writes it.

use std::{fmt::Write as _, fs, path::Path};

use corehold_agent::config::{Limit, Limits};

const HEAD: &str = "# Limits

Written by `cargo xtask gen` from the table in `agent/src/config/limits.rs`.

What the agent never exceeds. Each limit is set by a variable of the agent's environment, a whole number in the unit that the table
gives, and holds for all callers. Who meets one is told `LIMIT_EXCEEDED` with the limit, its value and the variable; `info` has
all values in force, by the names of the second column.

| variable | name | default | what it limits |
|---|---|---|---|
";

/// A number as people read it: `64 MiB`, `1,000 entries`.
fn shown(limit: &Limit) -> String {
    let sizes = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    if limit.unit == "bytes"
        && let Some((shift, unit)) = sizes.into_iter().find(|(shift, _)| limit.value.trailing_zeros() >= *shift)
    {
        return format!("{} {unit}", grouped(limit.value >> shift));
    }
    grouped(limit.value)
}

fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (limit, doc) in Limits::documented() {
        let value = shown(&limit);
        let said = format!("Default {value}");
        assert!(
            doc.contains(&said),
            "{} has the default {value}, and its comment says something else: {doc}",
            limit.name
        );
        // Where it says no more than that, the column does.
        let doc = doc.replace(&format!(" {said}."), "");
        let Limit { name, unit, variable, .. } = limit;
        let value =
            if unit == "bytes" { format!("{value} ({} bytes)", limit.value) } else { format!("{value} {unit}") };
        writeln!(page, "| `{variable}` | `{name}` | {value} | {doc} |").unwrap();
    }
    page
}

#[test]
fn the_page_of_limits_is_what_the_table_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/limits.md");
    let page = page();
    if std::env::var_os("COREHOLD_UPDATE").is_some_and(|value| value == "1") {
        fs::write(&file, &page).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    let differing = found.lines().zip(page.lines()).find(|(found, page)| found != page);
    assert!(found == page, "docs/limits.md: run `cargo xtask gen` and commit the result: {differing:?}");
}

#[test]
fn numbers_are_shown_as_people_read_them() {
    let limit = |unit, value| Limit { name: "", unit, variable: "", value };
    for (unit, value, text) in [
        ("bytes", 64 << 20, "64 MiB"),
        ("bytes", 512 << 10, "512 KiB"),
        ("bytes", 8 << 30, "8 GiB"),
        ("bytes", 1_000, "1,000"),
        ("ms", 86_400_000, "86,400,000"),
        ("entries", 1 << 20, "1,048,576"),
        ("calls", 64, "64"),
    ] {
        assert_eq!(shown(&limit(unit, value)), text);
    }
}
