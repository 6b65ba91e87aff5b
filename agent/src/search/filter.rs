//! Which entries a request wants: globs, types, hidden names; and what is wrong with its globs and types.

use corehold_types::{Code, Problem};
use ignore::{
    Match,
    overrides::{Override, OverrideBuilder},
    types::{Types, TypesBuilder},
};

use super::{
    beneath::as_path,
    rules::{Rules, Verdict},
};

/// Globs and types in one request. More would be a mistake, and compiling them takes time.
const PATTERNS: usize = 1_000;

/// What a request says about paths.
#[derive(Debug, Clone)]
pub struct Filter {
    globs: Override,
    types: Types,
    hidden: bool,
}

/// Why an entry is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftOut {
    Ignored,
    Hidden,
    Filtered,
}

impl Filter {
    /// Compiles globs and types. `hidden` is whether hidden entries are wanted.
    ///
    /// # Errors
    /// A [`Problem`] that names the glob and what is wrong with it, or the unknown type and those with similar names.
    pub fn new(globs: &[String], types: &[String], types_not: &[String], hidden: bool) -> Result<Self, Problem> {
        for (field, length) in [("globs", globs.len()), ("types", types.len()), ("typesNot", types_not.len())] {
            if length > PATTERNS {
                return Err(Problem::new(
                    Code::InvalidRequest,
                    format!("{field} has {length} entries; at most {PATTERNS} are possible"),
                )
                .with("field", field));
            }
        }
        Ok(Self { globs: compile_globs(globs)?, types: select_types(types, types_not)?, hidden })
    }

    /// Whether an entry is left out, and why. The order is ripgrep's: globs win over ignore files, these over types, and
    /// whatever is wanted by name is wanted though it is hidden.
    pub(crate) fn leaves_out(&self, rules: &Rules, path: &[u8], name: &[u8], is_directory: bool) -> Option<LeftOut> {
        let as_path = as_path(path);
        if !self.globs.is_empty() {
            match self.globs.matched(as_path, is_directory) {
                Match::None => {}
                Match::Ignore(_) => return Some(LeftOut::Filtered),
                Match::Whitelist(_) => return None,
            }
        }
        let mut wanted = match rules.verdict(path, is_directory) {
            Verdict::None => false,
            Verdict::Ignore => return Some(LeftOut::Ignored),
            Verdict::Whitelist => true,
        };
        if !self.types.is_empty() {
            match self.types.matched(as_path, is_directory) {
                Match::None => {}
                Match::Ignore(_) => return Some(LeftOut::Filtered),
                Match::Whitelist(_) => wanted = true,
            }
        }
        (!wanted && !self.hidden && name.starts_with(b".")).then_some(LeftOut::Hidden)
    }
}

fn compile_globs(globs: &[String]) -> Result<Override, Problem> {
    let bad = |glob: &str, error: &ignore::Error| {
        let detail = match error {
            ignore::Error::Glob { err, .. } => err.clone(),
            other => other.to_string(),
        };
        Problem::new(Code::InvalidRequest, format!("the glob {glob:?} can't be understood: {detail}"))
            .with("field", "globs")
            .with("glob", glob)
            .suggest("a glob is written as a line of .gitignore: *.rs, src/**, !*.test.ts; [ ] { } are special, \\ takes that away")
    };
    let mut builder = OverrideBuilder::new("");
    for glob in globs {
        builder.add(glob).map_err(|error| bad(glob, &error))?;
    }
    builder.build().map_err(|error| bad(&globs.join(" "), &error))
}

fn select_types(types: &[String], types_not: &[String]) -> Result<Types, Problem> {
    if types.is_empty() && types_not.is_empty() {
        return Ok(Types::empty());
    }
    let mut builder = TypesBuilder::new();
    builder.add_defaults();
    for name in types {
        builder.select(name);
    }
    for name in types_not {
        builder.negate(name);
    }
    builder.build().map_err(|error| match &error {
        ignore::Error::UnrecognizedFileType(name) => unknown_type(name, &builder),
        other => Problem::new(Code::InvalidRequest, format!("the types can't be used: {other}")).with("field", "types"),
    })
}

fn unknown_type(name: &str, builder: &TypesBuilder) -> Problem {
    let definitions = builder.definitions();
    // By name, and by extension: who writes "rs" means "rust".
    let extension = format!("*.{name}");
    let mut near: Vec<(usize, &str)> = definitions
        .iter()
        .filter_map(|definition| {
            let known = definition.name();
            let by_glob = definition.globs().contains(&extension);
            let distance = if by_glob { 0 } else { distance(name, known) };
            let close =
                by_glob || distance <= 1 + name.chars().count() / 4 || (name.len() > 1 && known.starts_with(name));
            close.then_some((distance, known))
        })
        .collect();
    near.sort_unstable();
    let near: Vec<&str> = near.into_iter().take(5).map(|(_, name)| name).collect();
    let problem = Problem::new(Code::InvalidRequest, format!("no file type is called {name:?}"))
        .with("field", "types")
        .with("type", name);
    if near.is_empty() {
        problem.suggest(
            "types are ripgrep's, such as rust, ts, py, markdown; a glob such as *.xyz says the same for others",
        )
    } else {
        let suggestion = format!("did you mean {}?", near.join(" or "));
        problem.with("near", near).suggest(suggestion)
    }
}

/// Edits (insert, remove, replace) that make one word of the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(globs: &[&str], types: &[&str]) -> Problem {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        Filter::new(&owned(globs), &owned(types), &[], false).unwrap_err()
    }

    #[test]
    fn a_bad_glob_is_named_with_its_fault() {
        let problem = refused(&["*.rs", "src/[a"], &[]);
        assert_eq!(problem.code, Code::InvalidRequest);
        assert!(problem.detail.contains("src/[a") && problem.detail.contains("unclosed"), "{problem}");
    }

    #[test]
    fn an_unknown_type_says_which_are_near() {
        assert_eq!(refused(&[], &["rs"]).context["near"][0], "rust");
        assert_eq!(refused(&[], &["javascript"]).context["type"], "javascript");
        assert!(refused(&[], &["pyton"]).suggestion.unwrap().contains("python"));
        assert!(!refused(&[], &["zzzzzzzz"]).context.contains_key("near"));
    }

    #[test]
    fn distances_are_edits() {
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("a", "a")), (3, 3, 0));
    }
}
