//! The table of engines in the README: what it says of an engine is what the suite sees of it, or a test fails.

/// What a runtime may lack, by the row of the table that is about it. All else in the suite is a must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Containers in one network don't reach each other.
    KeptApart,
    /// They don't reach the runtime's machine.
    MachineClosed,
    /// What they reach outside can be chosen.
    Egress,
    /// What is paused stands still and goes on.
    Pausing,
    /// Limits change while it runs.
    ChangingLimits,
    /// Published ports come from a range.
    PortRanges,
    /// An end for want of memory is told as such.
    OutOfMemory,
    /// An archive is laid in by the engine.
    Archives,
}

impl Feature {
    fn row(self) -> &'static str {
        match self {
            Self::KeptApart => "workspaces can't reach each other",
            Self::MachineClosed => "workspaces can't reach the engine's machine",
            Self::Egress => "what workspaces reach outside can be chosen",
            Self::Pausing => "pausing",
            Self::ChangingLimits => "limits changed while it runs",
            Self::PortRanges => "ports published from a range",
            Self::OutOfMemory => "an end for want of memory is told as such",
            Self::Archives => "files laid in by the engine",
        }
    }
}

const README: &str = include_str!("../../../README.md");

/// The cells of the row that begins with this one.
fn row(table: &'static str, first: &str) -> Option<Vec<&'static str>> {
    table.lines().find_map(|line| {
        let mut cells = line.strip_prefix('|')?.trim_end().strip_suffix('|')?.split('|').map(str::trim);
        (cells.next() == Some(first)).then(|| cells.collect())
    })
}

/// Whether the table says of this engine that the feature works there; `None` for an engine that isn't in it.
fn says(name: &str, version: &str, feature: Feature) -> Result<Option<bool>, String> {
    let table = README.split("## Engines").nth(1).ok_or("the README has no section on engines")?;
    let engines = row(table, "engine").ok_or("the README's table of engines has no head")?;
    let engine = format!("{name} {version}");
    let column = engines.iter().position(|head| {
        let rest = engine.strip_prefix(&head.to_lowercase());
        rest.is_some_and(|rest| !rest.starts_with(|character: char| character.is_ascii_digit()))
    });
    let Some(column) = column else { return Ok(None) };
    let cells = row(table, feature.row()).ok_or(format!("the README has no row {:?}", feature.row()))?;
    match cells.get(column) {
        Some(cell) if cell.starts_with("yes") => Ok(Some(true)),
        Some(cell) if cell.starts_with("no") => Ok(Some(false)),
        other => Err(format!("the README says neither yes nor no of {:?} with {engine}: {other:?}", feature.row())),
    }
}

/// Compares what was seen with what the table says; engines that it doesn't have are as they are.
pub(super) fn hold(name: &str, version: &str, feature: Feature, works: bool) -> Result<(), String> {
    match says(name, version, feature)? {
        Some(said) if said != works => {
            let seen = if works { "works" } else { "doesn't work" };
            Err(format!(
                "{:?} {seen} with {name} {version}, and the README's table of engines says otherwise",
                feature.row()
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Feature; 8] = [
        Feature::KeptApart,
        Feature::MachineClosed,
        Feature::Egress,
        Feature::Pausing,
        Feature::ChangingLimits,
        Feature::PortRanges,
        Feature::OutOfMemory,
        Feature::Archives,
    ];

    /// What the table says beyond the features, and the test that holds it.
    const BESIDES: [(&str, &str); 2] = [
        ("tested by", "the_engines_are_tried_as_the_documents_say"),
        ("a network with IPv6 that was there before", "by_ipv6_nothing_is_reached_either"),
    ];

    #[test]
    fn the_table_says_nothing_that_no_test_holds() {
        let sources = [include_str!("../../../xtask/tests/docs.rs"), include_str!("../../tests/e2e/networks.rs")];
        let table = README.split("## Engines").nth(1).unwrap().split("###").next().unwrap();
        let rows: Vec<_> = table.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |")).collect();
        assert!(rows.len() > ALL.len(), "{rows:?}");
        for (first, _) in rows.into_iter().filter(|(first, _)| *first != "engine") {
            let besides = BESIDES.iter().find(|(row, _)| *row == first);
            let is_held =
                besides.is_some_and(|(_, test)| sources.iter().any(|file| file.contains(&format!("fn {test}("))));
            assert!(is_held || ALL.iter().any(|feature| feature.row() == first), "{first:?} is seen by no test");
        }
    }

    #[test]
    fn the_table_has_a_yes_or_no_for_every_feature_of_every_engine() {
        for (name, version) in [("docker", "20.10.24"), ("docker", "29.0.0-test"), ("podman", "4.3.1")] {
            for feature in ALL {
                let said = says(name, version, feature).unwrap().expect("the engine is in the table");
                assert!(hold(name, version, feature, said).is_ok());
                assert!(hold(name, version, feature, !said).unwrap_err().contains(feature.row()));
            }
        }
        assert_eq!(says("docker", "20.1.0", Feature::Pausing), Ok(None), "a version is no part of another");
    }
}
