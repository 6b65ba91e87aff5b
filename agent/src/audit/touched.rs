//! What a call touched, bounded: a record is small, whatever the call was.

use corehold_types::{
    WorkspacePath,
    tools::{AuditChanged, AuditCommand, AuditExit, AuditPath, CommandExit},
};

use super::secrets;

/// Paths in one record.
const PATHS: usize = 64;
/// Characters of a path or a detail.
const CHARACTERS: usize = 1_024;
/// Bytes of one record's paths, after which no more are taken.
const BYTES: usize = 16 << 10;

/// What a call touched.
#[derive(Debug, Clone, Default)]
pub struct Touched {
    pub(super) paths: Vec<AuditPath>,
    pub(super) omitted: u64,
    pub(super) detail: Option<String>,
    pub(super) command: Option<Box<AuditCommand>>,
    pub(super) changed: Option<AuditChanged>,
    pub(super) bytes_in: Option<u64>,
    pub(super) bytes_out: Option<u64>,
    /// Of memory.
    pub(super) bytes: usize,
}

impl Touched {
    /// Whether there is anything in it.
    pub(super) fn says_something(&self) -> bool {
        let Self { paths, omitted: _, detail, command, changed, bytes_in, bytes_out, bytes: _ } = self;
        let counts = bytes_in.or(*bytes_out).is_some();
        !paths.is_empty() || detail.is_some() || command.is_some() || changed.is_some() || counts
    }

    /// The call names a path.
    pub fn path(&mut self, path: &WorkspacePath) {
        self.add(path, None, None);
    }

    /// The call names paths.
    pub fn paths<'a>(&mut self, paths: impl IntoIterator<Item = &'a WorkspacePath>) {
        for path in paths {
            self.path(path);
        }
    }

    /// The command that the call started or is about.
    pub fn command(&mut self, id: &str) {
        // Ids of ours have 25 characters; this may be what a caller takes for one.
        let id = cut(id).to_owned();
        self.bytes += size_of::<AuditCommand>() + id.len();
        self.command = Some(Box::new(AuditCommand { id, exit: None }));
    }

    /// How that command ended.
    pub fn exited(&mut self, exit: &CommandExit) {
        if let Some(command) = &mut self.command {
            let CommandExit { code, signal, timed_out, stalled, .. } = exit;
            let exit = AuditExit { code: *code, signal: signal.clone(), timed_out: *timed_out, stalled: *stalled };
            command.exit = Some(exit);
        }
    }

    /// What was made or removed, where it isn't named one by one.
    pub fn counted(&mut self, entries: u64, bytes: Option<u64>) {
        self.changed = Some(AuditChanged { entries, bytes });
    }

    /// More bytes of content have come with the call.
    pub fn came_in(&mut self, bytes: u64) {
        self.bytes_in = Some(self.bytes_in.unwrap_or(0) + bytes);
    }

    /// More bytes of content have gone out.
    pub fn went_out(&mut self, bytes: u64) {
        self.bytes_out = Some(self.bytes_out.unwrap_or(0) + bytes);
    }

    /// What the content at the path was and is, as hash or version. The path may have been named before.
    pub fn changed(&mut self, path: &WorkspacePath, before: Option<&str>, after: Option<&str>) {
        match self.paths.iter_mut().find(|known| known.path == *path) {
            Some(known) => {
                self.bytes += before.map_or(0, str::len) + after.map_or(0, str::len);
                known.before = before.map(str::to_owned);
                known.after = after.map(str::to_owned);
            }
            None => self.add(path, before, after),
        }
    }

    /// One line about the call. What looks like a secret in it is masked.
    pub fn detail(&mut self, detail: &str) {
        self.set_detail(&secrets::mask(detail));
    }

    /// The program that the call starts, with its arguments.
    pub fn arguments(&mut self, arguments: &[String]) {
        self.set_detail(&secrets::mask_arguments(arguments));
    }

    fn set_detail(&mut self, masked: &str) {
        let detail = cut(masked);
        self.bytes += detail.len();
        self.detail = Some(detail.to_owned());
    }

    fn add(&mut self, path: &WorkspacePath, before: Option<&str>, after: Option<&str>) {
        if self.paths.len() == PATHS || self.bytes >= BYTES {
            self.omitted += 1;
            return;
        }
        let path = match path {
            WorkspacePath::Text(text) => WorkspacePath::Text(cut(text).to_owned()),
            WorkspacePath::Bytes { base64 } if base64.len() <= CHARACTERS => path.clone(),
            // Cut base64 would be another path.
            WorkspacePath::Bytes { .. } => WorkspacePath::Text("(a long path that is not UTF-8)".to_owned()),
        };
        let length = match &path {
            WorkspacePath::Text(text) => text.len(),
            WorkspacePath::Bytes { base64 } => base64.len(),
        };
        self.bytes += size_of::<AuditPath>() + length + before.map_or(0, str::len) + after.map_or(0, str::len);
        self.paths.push(AuditPath { path, before: before.map(str::to_owned), after: after.map(str::to_owned) });
    }
}

fn cut(text: &str) -> &str {
    if text.len() <= CHARACTERS {
        return text;
    }
    text.char_indices().nth(CHARACTERS).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_small_whatever_the_call_was() {
        let mut touched = Touched::default();
        for number in 0..10_000 {
            touched.path(&format!("{number}{}", "ž".repeat(5_000)).into());
        }
        touched.path(&WorkspacePath::Bytes { base64: "x".repeat(100_000) });
        touched.detail(&"x ".repeat(50_000));
        assert!(touched.bytes < 2 * BYTES, "{}", touched.bytes);
        assert_eq!(touched.paths.len() as u64 + touched.omitted, 10_001);
        assert_eq!(touched.detail.unwrap().len(), CHARACTERS);
    }

    #[test]
    fn a_path_that_was_named_gets_its_hashes() {
        let mut touched = Touched::default();
        touched.paths([&"a".into(), &"b".into()]);
        touched.changed(&"b".into(), Some("1"), Some("2"));
        touched.changed(&"c".into(), None, Some("3"));
        let shown: Vec<_> = touched.paths.iter().map(|path| (path.before.as_deref(), path.after.as_deref())).collect();
        assert_eq!(shown, [(None, None), (Some("1"), Some("2")), (None, Some("3"))]);
    }
}
