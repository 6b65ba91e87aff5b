//! Random transactions against a model that a reader can check: a map from paths to texts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Files = BTreeMap<String, String>;

/// What a transaction makes of a workspace, or nothing when it is to be refused.
fn model(files: &Files, request: &EditRequest) -> Option<Files> {
    let mut worked_on = BTreeMap::<String, usize>::new();
    let text_of = |path: &corehold_types::WorkspacePath| path.to_string();
    for (index, entry) in request.files.iter().enumerate() {
        let makes = matches!(entry.operations[0], EditOperation::Create { .. });
        if !makes && worked_on.insert(text_of(&entry.path), index).is_some() {
            return None;
        }
    }
    let mut left = files.clone();
    for path in worked_on.keys() {
        left.remove(path)?;
    }
    let mut result = left.clone();
    let mut filled: Vec<String> = Vec::new();
    for entry in &request.files {
        let path = text_of(&entry.path);
        let mut end = Some(path.clone());
        let mut text = files.get(&path).cloned().unwrap_or_default();
        let mut overwrites = true;
        for (index, operation) in entry.operations.iter().enumerate() {
            match operation {
                EditOperation::Replace { old, new, .. } => {
                    let (old, new) =
                        (String::from_utf8(old.to_bytes().unwrap().into()).unwrap(), new.to_bytes().unwrap());
                    if text.matches(&old).count() != 1 {
                        return None;
                    }
                    text = text.replace(&old, std::str::from_utf8(&new).unwrap());
                }
                EditOperation::Insert { line, text: new } => {
                    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
                    if *line as usize > lines.len() + 1 {
                        return None;
                    }
                    if *line as usize > lines.len() && !text.is_empty() && !text.ends_with('\n') {
                        // The missing last ending stays missing.
                        text = format!("{text}\n{}", new.trim_end_matches('\n'));
                    } else {
                        lines.insert(*line as usize - 1, new);
                        text = lines.concat();
                    }
                }
                EditOperation::Create { content, overwrite, .. } => {
                    assert_eq!(index, 0);
                    if left.contains_key(&path) && *overwrite != Some(true) {
                        return None;
                    }
                    text = String::from_utf8(content.to_bytes().unwrap().into()).unwrap();
                }
                EditOperation::Delete {} => end = None,
                EditOperation::Rename { .. } if matches!(entry.operations[0], EditOperation::Create { .. }) => {
                    return None;
                }
                EditOperation::Rename { to, overwrite } => {
                    end = Some(text_of(to));
                    overwrites = *overwrite == Some(true);
                }
                other => panic!("{other:?} is not in the model"),
            }
        }
        if let Some(end) = end {
            if filled.contains(&end) || (end != path && left.contains_key(&end) && !overwrites) {
                return None;
            }
            filled.push(end.clone());
            result.insert(end, text);
        }
    }
    Some(result)
}

fn operation() -> impl Strategy<Value = EditOperation> {
    let word = || prop_oneof![Just("x"), Just("y"), Just("x\n"), Just("y\nx"), Just("z")];
    let path = prop_oneof![Just("a"), Just("b"), Just("d/c"), Just("new/e"), Just("f")];
    prop_oneof![
        3 => (word(), word()).prop_map(|(old, new)| replace(old, new)),
        2 => (1_u64..4, prop_oneof![Just("x\n"), Just("w\n")]).prop_map(|(line, text)| insert(line, text)),
        2 => (path, any::<bool>()).prop_map(|(to, overwrite)| rename(to, overwrite)),
    ]
}

fn entry() -> impl Strategy<Value = FileEdit> {
    let path = prop_oneof![Just("a"), Just("b"), Just("d/c"), Just("new/e"), Just("f")];
    let operations = prop_oneof![
        1 => Just(vec![delete()]),
        4 => prop::collection::vec(operation(), 1..3),
        2 => (any::<bool>(), prop::collection::vec(operation(), 0..2)).prop_map(|(overwrite, mut rest)| {
            rest.insert(0, create("x\ny\n", overwrite));
            rest
        }),
    ];
    (path, operations).prop_map(|(path, operations)| file(path, operations)).prop_filter("one rename", |entry| {
        entry.operations.iter().filter(|operation| matches!(operation, EditOperation::Rename { .. })).count() < 2
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn transactions_do_what_the_model_says(entries in prop::collection::vec(entry(), 1..4), dry_run in any::<bool>()) {
        let files: Files = [("a", "x\ny\n"), ("b", "y\n"), ("d/c", "z\nx\n")]
            .map(|(path, text)| (path.to_owned(), text.to_owned())).into();
        let world = World::new();
        for (path, text) in &files {
            world.put(path, text.as_bytes());
        }
        let before = look(&world.folder);
        let request = EditRequest { files: entries, dry_run: Some(dry_run), ..EditRequest::default() };
        let wanted = model(&files, &request);
        let result = world.transact(&request);
        prop_assert_eq!(result.is_ok(), wanted.is_some(), "{:?}\n{:?}", request, result);
        let after = look(&world.folder);
        let texts: Files = after.iter().filter(|(_, (seen, _))| seen.mode & 0o170_000 == 0o100_000)
            .map(|(path, (seen, _))| (path.display().to_string(), String::from_utf8(seen.bytes.clone()).unwrap())).collect();
        match (wanted, dry_run) {
            (Some(wanted), false) => prop_assert_eq!(&texts, &wanted, "{:?}", request),
            _ => prop_assert_eq!(&before, &after, "{:?}", request),
        }
        for (entry, edited) in request.files.iter().zip(result.into_iter().flat_map(|response| response.files)) {
            let end = edited.renamed_to.clone().unwrap_or_else(|| entry.path.clone()).to_string();
            if let (Some(hash), false) = (&edited.hash, dry_run) {
                prop_assert_eq!(hash, &super::hash(&texts[&end]));
                prop_assert!(edited.version.is_some());
            }
        }
    }
}
