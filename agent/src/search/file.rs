//! The search of one file.

use std::{
    fs::File,
    io::{self, Read, Seek as _},
    sync::atomic::{AtomicU64, Ordering},
};

use corehold_types::{
    WorkspacePath,
    tools::{SearchEvent, SearchHit, SearchLine, SearchReport, SearchSkipped},
};
use grep_matcher::Matcher as _;
use grep_regex::RegexMatcher;
use grep_searcher::{BinaryDetection, Searcher, Sink, SinkContext, SinkFinish, SinkMatch};
use rustix::{fs::FileType, io::Errno};

use super::{
    buffers,
    control::Control,
    lines,
    output::Outlet,
    run::Engine,
    troubles::Troubles,
    walk::{Found, Visitor},
};

/// Files smaller than this are read at once; the same as the searcher's own buffer, so that larger ones are cut into the
/// same pieces as ripgrep cuts them (whether a NUL byte makes a file binary depends on the piece that it is in).
pub(super) const READ_AT_ONCE: usize = 64 << 10;

/// What the threads of a search count together.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) matched_lines: AtomicU64,
    pub(super) matched_files: AtomicU64,
    pub(super) searched_files: AtomicU64,
    pub(super) searched_bytes: AtomicU64,
    /// Files that were left at their own cap.
    pub(super) capped_files: AtomicU64,
}

/// One thread that searches files.
pub(super) struct FileSearch<'a> {
    engine: &'a Engine<'a>,
    totals: &'a Totals,
    troubles: &'a Troubles,
    searcher: Searcher,
    /// This thread's own, since the scratch memory in it is taken and given back at each use.
    matcher: RegexMatcher,
    /// Whether the pattern may be asked first if it occurs in the file at all.
    asks_first: bool,
    /// Whether what is kept may be asked first if it can occur.
    asks_kept: bool,
    implicit: BinaryDetection,
    explicit: BinaryDetection,
    outlet: Outlet<'a>,
    buffer: Vec<u8>,
}

impl<'a> FileSearch<'a> {
    pub(super) fn new(engine: &'a Engine<'a>, totals: &'a Totals, troubles: &'a Troubles, outlet: Outlet<'a>) -> Self {
        let searcher = buffers::searcher(engine.query, buffers::OWN);
        let matcher = engine.query.matcher.clone();
        // If the pattern has a line's end, it never matches over one, and what doesn't match in all of the file matches in
        // none of its lines. If it may span lines, the searcher looks at all of the file at once too. In between (such as
        // `\A`, which is each line's beginning) only lines can tell. A transcoded file is not what was read.
        let asks_first = engine.query.transcodes_only_by_mark
            && !searcher.invert_match()
            && (matcher.line_terminator() == Some(searcher.line_terminator())
                || searcher.multi_line_with_matcher(&matcher));
        let implicit = engine.query.binary.clone();
        // Where NUL bytes are read as lines' ends, what is searched is not what is there either.
        let asks_kept =
            engine.query.transcodes_only_by_mark && !searcher.invert_match() && implicit.convert_byte().is_none();
        // As ripgrep: what is named is searched on behind a NUL byte.
        let explicit = match implicit.quit_byte() {
            Some(byte) => BinaryDetection::convert(byte),
            None => implicit.clone(),
        };
        Self {
            engine,
            totals,
            troubles,
            searcher,
            matcher,
            asks_first,
            asks_kept,
            implicit,
            explicit,
            outlet,
            buffer: vec![0; READ_AT_ONCE],
        }
    }

    /// Whether it is known that nothing can be found in this file; if so, it counts as searched.
    fn is_known_to_lack(&self, found: &Found<'_>, skipped: &mut SearchSkipped) -> bool {
        let Some(lookup) = self.engine.lookup else { return false };
        if !self.asks_kept || found.explicit || found.through_link {
            return false;
        }
        let Some(known) = lookup.lacks(found.directory, found.name) else { return false };
        if self.engine.query.max_file_bytes.is_some_and(|largest| known.size > largest) {
            return false;
        }
        self.totals.searched_files.fetch_add(1, Ordering::Relaxed);
        self.totals.searched_bytes.fetch_add(known.size, Ordering::Relaxed);
        skipped.binary += u64::from(known.has_nul && self.implicit.quit_byte().is_some());
        true
    }

    fn search(&mut self, found: &Found<'_>, skipped: &mut SearchSkipped) -> io::Result<()> {
        if self.is_known_to_lack(found, skipped) {
            return Ok(());
        }
        let opened = found.open(self.engine.root)?;
        let stat = rustix::fs::fstat(&opened)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            skipped.special += 1;
            return Ok(());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // What is named is searched however large it is, as ripgrep has it.
        if !found.explicit && self.engine.query.max_file_bytes.is_some_and(|largest| size > largest) {
            skipped.too_large += 1;
            return Ok(());
        }
        let mut file = File::from(opened);
        let mut read = 0;
        let mut whole = false;
        if size < READ_AT_ONCE as u64 {
            read = read_once(&mut file, &mut self.buffer)?;
            // Fewer bytes than there is room for, and all that there were: the end.
            whole = read < READ_AT_ONCE && read as u64 >= size;
        }
        self.totals.searched_files.fetch_add(1, Ordering::Relaxed);
        let binary = if found.explicit { &self.explicit } else { &self.implicit };
        let converts = binary.convert_byte().is_some();
        if whole && self.asks_first && !converts && !has_mark(&self.buffer[..read]) {
            let content = &self.buffer[..read];
            let nul = binary.quit_byte().and_then(|byte| memchr::memchr(byte, content));
            let occurs = if self.searcher.multi_line() {
                self.matcher.is_match(content)
            } else {
                self.matcher.find_candidate_line(content).map(|line| line.is_some())
            };
            // This matcher has no errors; if it had, the searcher would tell of it.
            if !occurs.unwrap_or(true) {
                self.totals.searched_bytes.fetch_add(read as u64, Ordering::Relaxed);
                skipped.binary += u64::from(nul.is_some());
                return Ok(());
            }
        }
        let binary = binary.clone();
        let (result, seen) = if whole {
            self.searcher.set_binary_detection(binary);
            self.pass(found.path, None, read, 0)
        } else {
            self.search_long(found.path, &file, size, read, &binary)
        };
        self.report(found.path, seen);
        self.totals.searched_bytes.fetch_add(seen.bytes, Ordering::Relaxed);
        if seen.binary_offset.is_some() && !converts {
            skipped.binary += 1;
        }
        if seen.matched > 0 {
            self.totals.matched_files.fetch_add(1, Ordering::Relaxed);
            self.totals.matched_lines.fetch_add(seen.matched, Ordering::Relaxed);
            if self.engine.query.max_matches_per_file.is_some_and(|cap| seen.matched >= cap) {
                self.totals.capped_files.fetch_add(1, Ordering::Relaxed);
            }
        }
        result
    }

    /// Searches a file that may need more memory than a thread has of its own: then it is borrowed, and the file searched once more
    /// from its beginning. What was told of it before isn't told again.
    fn search_long(
        &mut self,
        path: &[u8],
        mut file: &File,
        size: u64,
        mut read: usize,
        binary: &BinaryDetection,
    ) -> (io::Result<()>, Seen) {
        let query = self.engine.query;
        // With several lines all of the file is needed at once.
        let needed = if self.searcher.multi_line_with_matcher(&self.matcher) { size } else { 0 };
        let (mut told, mut seen) = (0, Seen::default());
        let mut result = Ok(());
        for bytes in buffers::sizes(query.buffer_bytes, needed) {
            let loan = if bytes > buffers::OWN { (self.engine.lend)(bytes).map(Some) } else { Ok(None) };
            let loan = match loan {
                Ok(loan) => loan,
                Err(problem) => {
                    result = Err(io::Error::new(io::ErrorKind::OutOfMemory, problem.detail));
                    break;
                }
            };
            if loan.is_some() {
                self.searcher = buffers::searcher(query, bytes);
            }
            self.searcher.set_binary_detection(binary.clone());
            (result, seen) = self.pass(path, Some(file), read, told);
            // A long line has made the searcher's buffer larger, maybe. It would cut the next file into other pieces, and so
            // find other lines in front of a NUL byte: what is found in a file must not depend on those before it.
            self.searcher = buffers::searcher(query, buffers::OWN);
            drop(loan);
            if !result.as_ref().is_err_and(is_heap_limit) {
                break;
            }
            told = seen.told;
            read = 0;
            if let Err(error) = file.rewind() {
                return (Err(error), seen);
            }
        }
        (result, seen)
    }

    /// Searches what was read already, and the file behind it, but tells nothing of the first events.
    fn pass(&mut self, path: &[u8], file: Option<&File>, read: usize, told: u64) -> (io::Result<()>, Seen) {
        let reader = Pieces { begun: &self.buffer[..read], file, control: self.engine.control };
        let mut sink = LineSink {
            query: self.engine.query,
            control: self.engine.control,
            matcher: &self.matcher,
            outlet: &mut self.outlet,
            path,
            shown: None,
            last: None,
            told_before: told,
            seen: Seen::default(),
        };
        let result = self.searcher.search_reader(&self.matcher, reader, &mut sink);
        let seen = sink.seen;
        (result, seen)
    }

    /// Sends what is known when the file is done.
    fn report(&mut self, path: &[u8], seen: Seen) {
        if seen.matched == 0 {
            return;
        }
        let path = WorkspacePath::from_bytes(path);
        if self.engine.query.report != SearchReport::Lines {
            self.outlet.send(SearchEvent::File { path, matched_lines: seen.matched });
        } else if let Some(offset) = seen.binary_offset {
            self.outlet.send(SearchEvent::Binary { path, offset });
        }
    }
}

impl Visitor for FileSearch<'_> {
    fn visit(&mut self, found: &Found<'_>, skipped: &mut SearchSkipped) {
        if let Err(error) = self.search(found, skipped) {
            let vanished = [Errno::NOENT, Errno::LOOP].map(Errno::raw_os_error);
            if self.engine.control.is_stopped() || error.raw_os_error().is_some_and(|code| vanished.contains(&code)) {
                // Stopped, or removed or replaced since its directory was listed: it isn't there.
            } else if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) {
                skipped.links_refused += 1;
            } else if is_heap_limit(&error) {
                skipped.too_large += 1;
                let what = if self.searcher.multi_line() { "the file" } else { "a line" };
                let limit = self.engine.query.buffer_bytes;
                self.troubles.add(found.path, || format!("{what} is larger than the limit of {limit} bytes"));
            } else if error.kind() == io::ErrorKind::OutOfMemory {
                skipped.too_large += 1;
                self.troubles.add(found.path, || error.to_string());
            } else {
                skipped.unreadable += 1;
                self.troubles.add(found.path, || error.to_string());
            }
        }
        self.outlet.end_of_file();
    }
}

/// The searcher's own error for a line (or file) that is larger than its buffer may be: it has no kind of its own.
fn is_heap_limit(error: &io::Error) -> bool {
    error.raw_os_error().is_none() && error.to_string().starts_with("configured allocation limit")
}

pub(super) fn has_mark(content: &[u8]) -> bool {
    content.starts_with(b"\xef\xbb\xbf") || content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff")
}

pub(super) fn read_once(mut file: impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A file whose beginning was read already. Gives as much at a time as a file would, and nothing once it is stopped.
struct Pieces<'a> {
    begun: &'a [u8],
    /// What follows; nothing where that was all.
    file: Option<&'a File>,
    control: &'a Control,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.control.is_stopped() {
            return Err(io::Error::other("the search was stopped"));
        }
        let begun = self.begun.read(buffer)?;
        match self.file {
            Some(file) if begun < buffer.len() => Ok(begun + read_once(file, &mut buffer[begun..])?),
            _ => Ok(begun),
        }
    }
}

/// Takes what the searcher finds in one file.
struct LineSink<'s, 'a> {
    query: &'s super::run::Query,
    control: &'s Control,
    matcher: &'s RegexMatcher,
    outlet: &'s mut Outlet<'a>,
    path: &'s [u8],
    /// The path for the wire, once it is needed.
    shown: Option<WorkspacePath>,
    /// The number of the last line that is told, if that is known yet and the searcher doesn't see to it.
    last: Option<u64>,
    /// Lines that an earlier pass has told already.
    told_before: u64,
    seen: Seen,
}

/// What one pass has seen of a file.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    matched: u64,
    /// Lines that were told, of whichever pass.
    told: u64,
    bytes: u64,
    binary_offset: Option<u64>,
}

impl LineSink<'_, '_> {
    fn shown(&mut self) -> WorkspacePath {
        self.shown.get_or_insert_with(|| WorkspacePath::from_bytes(self.path)).clone()
    }

    /// Whether the file is left at this line.
    fn is_past_cap(&self, line: Option<u64>) -> bool {
        let Some(cap) = self.query.sink_caps else { return false };
        self.seen.matched >= cap.matches && line.zip(self.last).is_none_or(|(line, last)| line > last)
    }

    fn line(
        &self,
        searcher: &Searcher,
        buffer: &[u8],
        range: std::ops::Range<usize>,
        number: Option<u64>,
        find: bool,
    ) -> SearchLine {
        lines::line(searcher, self.matcher, buffer, range, number.unwrap_or(0), find, self.query.lines)
    }

    /// Counts a line. Says whether an earlier pass has told it.
    fn was_told(&mut self) -> bool {
        self.seen.told += 1;
        self.seen.told <= self.told_before
    }
}

impl Sink for LineSink<'_, '_> {
    type Error = io::Error;

    fn matched(&mut self, searcher: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        if self.is_past_cap(found.line_number()) {
            return Ok(false);
        }
        let was_told = self.was_told();
        // Without lines, what is capped are files.
        let counts = !was_told && (self.query.report == SearchReport::Lines || self.seen.matched == 0);
        if self.control.is_stopped() || (counts && !self.control.take_match()) {
            return Ok(false);
        }
        self.seen.matched += 1;
        if let Some(cap) = self.query.sink_caps.filter(|cap| cap.matches == self.seen.matched) {
            self.last = found.line_number().map(|line| line.saturating_add(cap.after));
        }
        match self.query.report {
            SearchReport::Files => Ok(false),
            SearchReport::Counts => Ok(true),
            SearchReport::Lines if was_told => Ok(true),
            SearchReport::Lines => {
                let range = found.bytes_range_in_buffer();
                let line = self.line(searcher, found.buffer(), range, found.line_number(), true);
                let hit = SearchHit { path: self.shown(), line };
                self.outlet.send(SearchEvent::Match(hit));
                Ok(true)
            }
        }
    }

    fn context(&mut self, searcher: &Searcher, found: &SinkContext<'_>) -> io::Result<bool> {
        if self.control.is_stopped() || self.is_past_cap(found.line_number()) {
            return Ok(false);
        }
        if self.query.report == SearchReport::Lines && !self.was_told() {
            let bytes = found.bytes();
            // In an inverted search the context is what matches.
            let line = self.line(searcher, bytes, 0..bytes.len(), found.line_number(), searcher.invert_match());
            let hit = SearchHit { path: self.shown(), line };
            self.outlet.send(SearchEvent::Context(hit));
        }
        Ok(true)
    }

    fn finish(&mut self, _searcher: &Searcher, finish: &SinkFinish) -> io::Result<()> {
        self.seen.bytes = finish.byte_count();
        self.seen.binary_offset = finish.binary_byte_offset();
        Ok(())
    }
}
