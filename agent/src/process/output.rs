//! Taking what commands write: from a pipe into the command's log, and out of the logs again when room is short.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    ops::Range,
    os::fd::OwnedFd,
    sync::Arc,
};

use rustix::io::Errno;

use super::{
    command::Command,
    log::{HEADER, Stream, header},
    registry::Registry,
    store::{BLOCK, Block, Store},
    table::Inbox,
};

/// Bytes that are read at once: what a pipe holds.
pub(super) const READ: usize = 64 * 1024;
/// Bytes that a pipe holds whose command writes much; from so many bytes of output on.
const WIDE: usize = 256 * 1024;
const WIDE_FROM: u64 = 4 * 1024 * 1024;
/// A record is split only where this much of it has room in a block: smaller parts aren't worth a write.
const SMALLEST_PART: usize = 1024;

/// The logs of all commands, as the keeper sees them.
pub(super) struct Output {
    store: Store,
    /// Room for one record.
    buffer: Box<[u8]>,
    /// Commands that may still write.
    writing: BTreeMap<u64, Arc<Command>>,
    /// Commands that have ended, oldest first. One whose children hold its pipe is writing, too.
    finished: VecDeque<Arc<Command>>,
}

/// What a pipe gave.
pub(super) enum Read {
    /// This many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nothing ever again.
    End,
}

impl Output {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            buffer: vec![0; HEADER + READ].into_boxed_slice(),
            writing: BTreeMap::new(),
            finished: VecDeque::new(),
        }
    }

    /// A command begins to write.
    pub(super) fn begins(&mut self, command: &Arc<Command>) {
        self.writing.insert(command.number, Arc::clone(command));
    }

    /// It has ended.
    pub(super) fn finished(&mut self, command: &Arc<Command>) {
        self.finished.push_back(Arc::clone(command));
    }

    /// Nobody can write to its log any more.
    pub(super) fn ends(&mut self, number: u64) {
        self.writing.remove(&number);
    }

    /// Whether a command's output is to be left where it is, since a viewer would miss what the log dropped for it; the viewer
    /// wakes the keeper then.
    pub(super) fn is_to_wait(&self, command: &Command, keeper: &Arc<Inbox>) -> bool {
        let state = &mut *command.state();
        let offset = state.viewers.to_wait_for(&state.log, self.store.per_command());
        if let Some(offset) = offset {
            state.viewers.wait(offset, keeper);
        }
        offset.is_some()
    }

    /// Lets a pipe hold more at a time, so that the command and the keeper take turns less often. Not for a command that hasn't
    /// written much: the kernel bounds the pipes of all of a user's processes together, on the whole machine. Returns whether
    /// there is nothing left to do.
    pub(super) fn widen(&self, command: &Command, pipe: &OwnedFd) -> bool {
        // What is in the pipes when the command ends must not push much out of the log.
        if self.store.per_command() * BLOCK < 32 * WIDE {
            return true;
        }
        let is_worth_it = command.end() >= WIDE_FROM;
        if is_worth_it {
            // A terminal can't, and beyond its bound the kernel doesn't: it works as it is.
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, WIDE);
        }
        is_worth_it
    }

    /// Reads at most `most` bytes of a command's stream into its log.
    pub(super) fn read(&mut self, command: &Command, stream: Stream, pipe: &OwnedFd, most: usize) -> Read {
        match rustix::io::read(pipe, &mut self.buffer[HEADER..HEADER + most.min(READ)]) {
            Ok(0) => Read::End,
            Ok(read) => {
                self.buffer[..HEADER].copy_from_slice(&header(stream, read));
                self.keep(command, stream, HEADER + read);
                command.tell();
                Read::Bytes(read)
            }
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            // A terminal's way to say that nobody has its other end any more.
            Err(Errno::IO) => Read::End,
            Err(error) => {
                tracing::error!(%error, id = command.id(), "a command's output can't be read");
                Read::End
            }
        }
    }

    /// Puts the record at the beginning of the buffer into the command's log.
    fn keep(&mut self, command: &Command, stream: Stream, length: usize) {
        if command.push_inline(stream, &self.buffer[..length]) {
            return;
        }
        let last = command.state().log.last();
        let room = last.map_or(0, |last| BLOCK - last.used);
        let Some(last) = last.filter(|_| room >= length.min(SMALLEST_PART)) else {
            return self.keep_in_new_block(command, stream, 0..length);
        };
        // As much as has room; the rest becomes a record of its own, whose header takes the place of bytes that are written.
        let part = room.min(length);
        self.buffer[..HEADER].copy_from_slice(&header(stream, part - HEADER));
        match self.store.write(last.block, last.used, &self.buffer[..part]) {
            Ok(()) => command.state().log.pushed(stream, part),
            Err(error) => return self.lose(command, stream, length, &error),
        }
        if part < length {
            let rest = part - HEADER..length;
            self.buffer[rest.start..part].copy_from_slice(&header(stream, rest.len() - HEADER));
            self.keep_in_new_block(command, stream, rest);
        }
    }

    /// Puts the record at this place of the buffer into a new block of the command's log.
    fn keep_in_new_block(&mut self, command: &Command, stream: Stream, record: Range<usize>) {
        let length = record.len();
        // A new block begins with what was in memory until now.
        let first = [command.state().log.inline_records(), &self.buffer[record]].concat();
        let mut failure = io::Error::from(io::ErrorKind::StorageFull);
        for from in [From::Own, From::Free, From::Others, From::OwnIfAny] {
            let Some(block) = self.block(command, from) else { continue };
            match self.store.write(block, 0, &first) {
                Ok(()) => return command.state().log.pushed_block(block, stream, length),
                // Very likely the disk is full: a block that was written before can be written again.
                Err(error) => {
                    failure = error;
                    self.store.give_back_unwritable(block);
                }
            }
        }
        self.lose(command, stream, length, &failure);
    }

    fn block(&mut self, command: &Command, from: From) -> Option<Block> {
        match from {
            From::Own => {
                let mut state = command.state();
                (state.log.block_count() >= self.store.per_command()).then(|| state.log.pop_front()).flatten()
            }
            From::Free => self.store.take(),
            From::Others => {
                let has_blocks = |command: &&Arc<Command>| command.state().log.block_count() > 0;
                if let Some(oldest) = self.finished.iter().find(has_blocks) {
                    let blocks = oldest.state().log.drop_all();
                    blocks.into_iter().for_each(|block| self.store.give_back(block));
                    return self.store.take();
                }
                let largest = self.writing.values().max_by_key(|command| command.state().log.block_count())?;
                largest.state().log.pop_front()
            }
            From::OwnIfAny => command.state().log.pop_front(),
        }
    }

    /// There is no room, not even by dropping what is old: the command's readers get a gap.
    fn lose(&mut self, command: &Command, stream: Stream, length: usize, error: &io::Error) {
        let (blocks, had_some) = {
            let mut state = command.state();
            let had_some = state.log.first() < state.log.end() || state.log.end() == 0;
            (state.log.drop_with(stream, length - HEADER), had_some)
        };
        blocks.into_iter().for_each(|block| self.store.give_back(block));
        // Once, not for each of the pieces that are lost in a row.
        if had_some {
            tracing::warn!(%error, id = command.id(), "output of a command can't be kept");
        }
    }

    /// Forgets finished commands beyond `most`, but none that is still being written to: closing its pipe would end the
    /// writer.
    pub(super) fn forget_oldest(&mut self, most: usize, registry: &Registry) {
        let mut excess = self.finished.len().saturating_sub(most);
        if excess == 0 {
            return;
        }
        let (writing, store) = (&self.writing, &mut self.store);
        self.finished.retain(|command| {
            let forget = excess > 0 && !writing.contains_key(&command.number);
            if forget {
                excess -= 1;
                registry.remove(command);
                let blocks = command.state().log.drop_all();
                blocks.into_iter().for_each(|block| store.give_back(block));
                command.tell();
            }
            !forget
        });
    }
}

/// Where a block for more of a command's output comes from, in the order in which they are tried.
#[derive(Clone, Copy)]
enum From {
    /// Its own oldest, when it has as many as one may have.
    Own,
    /// One that nobody has.
    Free,
    /// The command's that ended longest ago; if there is none, the one's that has the most.
    Others,
    /// Its own oldest.
    OwnIfAny,
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use rustix::fs::{MemfdFlags, SealFlags};

    use super::*;
    use crate::process::command::Identity;

    /// A disk with room for this many blocks, and not one byte more.
    fn disk(blocks: usize) -> File {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create("disk", flags).unwrap());
        file.set_len((blocks * BLOCK) as u64).unwrap();
        rustix::fs::fcntl_add_seals(&file, SealFlags::GROW).unwrap();
        file
    }

    fn command(output: &Output, number: u64) -> Arc<Command> {
        let identity = Identity { id: format!("c{number}"), number, label: None, line: String::new() };
        Arc::new(Command::new(identity, 1, output.store.file(), None))
    }

    fn write(output: &mut Output, command: &Command, bytes: usize) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut writer = File::from(writer);
        for chunk in vec![b'x'; bytes].chunks(READ) {
            writer.write_all(chunk).unwrap();
            let mut left = chunk.len();
            while left > 0 {
                let Read::Bytes(read) = output.read(command, Stream::Output, &reader, READ) else { panic!() };
                left -= read;
            }
        }
    }

    fn kept(command: &Command) -> u64 {
        let info = command.info();
        info.offset - info.first_offset
    }

    #[test]
    fn on_a_full_disk_the_oldest_finished_one_goes_first_then_the_own_beginning() {
        let mut output = Output::new(Store::within(disk(4), 100, 100));
        let [old, new] = [1, 2].map(|number| command(&output, number));
        write(&mut output, &old, 2 * BLOCK - 1000);
        output.finished(&old);
        output.begins(&new);
        write(&mut output, &new, BLOCK);
        assert!(kept(&old) == 2 * BLOCK as u64 - 1000 && kept(&new) == BLOCK as u64);
        write(&mut output, &new, 10 * BLOCK);
        assert_eq!(kept(&old), 0);
        assert_eq!(new.end(), 11 * BLOCK as u64, "counted, kept or not");
        assert!(kept(&new) > 2 * BLOCK as u64 && kept(&new) <= 4 * BLOCK as u64, "{}", kept(&new));
    }

    #[test]
    fn beyond_as_many_as_are_kept_the_oldest_are_forgotten_that_nobody_writes_to() {
        let mut output = Output::new(Store::within(disk(4), 4, 4));
        let registry = Registry::default();
        for number in 1..=5 {
            let command = command(&output, number);
            registry.insert(&command);
            output.begins(&command);
            output.finished(&command);
            // Something that the second has started holds its pipe.
            if number != 2 {
                output.ends(number);
            }
        }
        let known = || registry.all().iter().map(|command| command.number).collect::<Vec<_>>();
        output.forget_oldest(3, &registry);
        assert_eq!(known(), [2, 4, 5]);
        output.ends(2);
        output.forget_oldest(2, &registry);
        assert_eq!(known(), [4, 5]);
    }

    #[test]
    fn who_has_nothing_gets_a_block_of_who_has_most() {
        let mut output = Output::new(Store::within(disk(4), 4, 100));
        let [large, small] = [1, 2].map(|number| command(&output, number));
        output.begins(&large);
        output.begins(&small);
        write(&mut output, &large, 6 * BLOCK);
        write(&mut output, &small, 20_000);
        assert_eq!(kept(&small), 20_000);
        assert!(kept(&large) > BLOCK as u64);
    }

    #[test]
    fn the_pipe_of_a_command_that_writes_much_is_widened_unless_its_log_is_small() {
        for (blocks, widened) in [(64, true), (63, false)] {
            let mut output = Output::new(Store::within(disk(64), 64, blocks));
            let command = command(&output, 1);
            let (reader, _writer) = rustix::pipe::pipe().unwrap();
            let size = || rustix::pipe::fcntl_getpipe_size(&reader).unwrap();
            let before = size();
            assert_eq!(output.widen(&command, &reader), !widened);
            assert_eq!(size(), before, "nothing was written yet");
            write(&mut output, &command, WIDE_FROM as usize);
            assert!(output.widen(&command, &reader));
            assert_eq!(size(), if widened { WIDE } else { before });
        }
    }

    #[test]
    fn without_any_room_small_output_is_kept_and_the_rest_is_counted() {
        let mut output = Output::new(Store::within(disk(0), 4, 4));
        let command = command(&output, 1);
        output.begins(&command);
        write(&mut output, &command, 1_000);
        assert_eq!(kept(&command), 1_000);
        write(&mut output, &command, 200_000);
        assert_eq!((kept(&command), command.end(), command.totals()), (0, 201_000, [201_000, 0]));
    }
}
