//! The operations of `edit` that turn one content into another.

use corehold_types::{
    Code, Content, Problem,
    tools::{DisplacedHunk, EditOperation},
};

use super::{
    diff, line_range,
    replace::{self, Times},
};
use crate::config::Limit;

/// Fuzz that a caller may ask for.
const MOST_FUZZ: u32 = 10;

/// A content and what is to be said of how it came about.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) bytes: Vec<u8>,
    pub(crate) displaced: Vec<DisplacedHunk>,
}

/// Whether an operation changes content, and so needs it.
pub(crate) fn changes_content(operation: &EditOperation) -> bool {
    match operation {
        EditOperation::Replace { .. }
        | EditOperation::Lines { .. }
        | EditOperation::Insert { .. }
        | EditOperation::Diff { .. }
        | EditOperation::Create { .. } => true,
        EditOperation::Delete {} | EditOperation::Rename { .. } => false,
    }
}

/// How much text an operation brings.
pub(crate) fn brings(operation: &EditOperation) -> u64 {
    match operation {
        EditOperation::Replace { new: content, .. } | EditOperation::Create { content, .. } => content.decoded_bytes(),
        EditOperation::Lines { text, .. } | EditOperation::Insert { text, .. } => text.len() as u64,
        EditOperation::Diff { diff, .. } => diff.len() as u64,
        EditOperation::Delete {} | EditOperation::Rename { .. } => 0,
    }
}

/// Applies one operation that changes content.
///
/// # Errors
/// As the operations say.
pub(crate) fn apply(text: &mut Text, operation: &EditOperation, most_bytes: Limit) -> Result<(), Problem> {
    match operation {
        EditOperation::Replace { old, new, all, count, exact } => {
            let times = match (all.unwrap_or(false), count) {
                (true, Some(_)) => return Err(invalid("`all` and `count` don't go together")),
                (true, None) => Times::All,
                (false, Some(0)) => return Err(invalid("`count` is 0: then there is nothing to replace")),
                (false, Some(count)) if *count != 1 => Times::Exactly(*count),
                (false, _) => Times::Once,
            };
            let (old, new) = (decode(old, "old")?, decode(new, "new")?);
            text.bytes = replace::replace(&text.bytes, &old, &new, times, exact.unwrap_or(false), most_bytes)?;
        }
        EditOperation::Lines { start, end, text: new } => {
            text.bytes = line_range::replace(&text.bytes, *start, end.unwrap_or(*start), new)?;
        }
        EditOperation::Insert { line, text: new } => text.bytes = line_range::insert(&text.bytes, *line, new)?,
        EditOperation::Diff { diff, fuzz } => {
            let fuzz = fuzz.unwrap_or(0);
            if fuzz > MOST_FUZZ {
                return Err(invalid(&format!("`fuzz` is {fuzz}; at most {MOST_FUZZ} is possible")));
            }
            let applied = diff::apply(&text.bytes, &diff::parse(diff.as_bytes())?, fuzz as usize)?;
            text.bytes = applied.bytes;
            text.displaced.extend(applied.displaced);
        }
        EditOperation::Create { content, .. } => text.bytes = decode(content, "content")?.into_owned(),
        EditOperation::Delete {} | EditOperation::Rename { .. } => {}
    }
    if text.bytes.len() as u64 > most_bytes.value {
        return Err(most_bytes.exceeded("the changed file"));
    }
    Ok(())
}

fn decode<'a>(content: &'a Content, field: &str) -> Result<std::borrow::Cow<'a, [u8]>, Problem> {
    content.to_bytes().map_err(|error| invalid(&format!("`{field}` is malformed base64: {error}")))
}

pub(crate) fn invalid(what: &str) -> Problem {
    Problem::new(Code::InvalidRequest, what)
}
