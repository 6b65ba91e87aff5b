//! gzip (RFC 1952) on several threads, the way `pigz` does it: the input is cut into blocks, each is compressed by itself
//! with the end of the one before as its dictionary and ends at a byte's boundary (a sync flush), and the pieces put
//! together are one stream that any gunzip reads.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::{Source, threads};

/// zlib-rs' level 2 gives 5 % smaller archives than `pigz -1` at its speed; its level 1 gives 20 % larger ones. (A tar of
/// 16,631 source files, 314 MB.)
const LEVEL: u32 = 2;

/// Bytes that are compressed at a time, as in pigz.
const BLOCK: usize = 128 << 10;

/// How far deflate looks back.
const WINDOW: usize = 32 << 10;

/// Blocks that each thread has before it, besides the one it works on.
const AHEAD: usize = 2;

/// Deflate, nothing known of the file's name and time, an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses what `source` writes.
///
/// # Errors
/// The source's and the writer's.
pub(crate) fn gzip(out: &mut dyn Write, source: impl Source) -> io::Result<()> {
    out.write_all(&HEADER)?;
    // The threads end when the channels to them do, with `blocks`.
    let crc = thread::scope(|scope| {
        let mut blocks = Blocks {
            out,
            start: |jobs, done| _ = scope.spawn(move || work(&jobs, &done)),
            workers: Vec::new(),
            given: 0,
            taken: 0,
            block: Vec::with_capacity(BLOCK),
            window: Vec::new(),
            crc: Crc::new(),
        };
        source(&mut blocks)?;
        blocks.finish()
    })?;
    out.write_all(&crc.sum().to_le_bytes())?;
    out.write_all(&crc.amount().to_le_bytes())
}

/// A block to compress.
struct Job {
    block: Vec<u8>,
    /// The bytes before it.
    window: Vec<u8>,
    last: bool,
}

/// A compressed block, and the sum of what it was.
type Done = io::Result<(Vec<u8>, Crc)>;

struct Worker {
    jobs: SyncSender<Job>,
    done: Receiver<Done>,
}

/// Gathers blocks, hands them to the threads in turn, and writes what they make in the same turn.
struct Blocks<'a, F> {
    out: &'a mut dyn Write,
    /// Starts a thread. None is started before there is a second block.
    start: F,
    workers: Vec<Worker>,
    given: usize,
    taken: usize,
    block: Vec<u8>,
    window: Vec<u8>,
    crc: Crc,
}

impl<F: Fn(Receiver<Job>, SyncSender<Done>)> Blocks<'_, F> {
    fn finish(mut self) -> io::Result<Crc> {
        if self.workers.is_empty() {
            let job = self.next(true);
            let done = compress(&mut Compress::new(Compression::new(LEVEL), false), &job);
            self.write(done)?;
        } else {
            self.give(true)?;
            while self.taken < self.given {
                self.take()?;
            }
        }
        Ok(self.crc)
    }

    fn next(&mut self, last: bool) -> Job {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(if last { 0 } else { BLOCK }));
        let window = block[block.len().saturating_sub(WINDOW)..].to_vec();
        Job { block, window: std::mem::replace(&mut self.window, window), last }
    }

    fn give(&mut self, last: bool) -> io::Result<()> {
        if self.workers.is_empty() {
            for _ in 0..threads() {
                let (jobs, their_jobs) = sync_channel(AHEAD);
                let (their_done, done) = sync_channel(AHEAD);
                (self.start)(their_jobs, their_done);
                self.workers.push(Worker { jobs, done });
            }
        }
        if self.given - self.taken == self.workers.len() * AHEAD {
            self.take()?;
        }
        let job = self.next(last);
        let turn = self.given % self.workers.len();
        self.given += 1;
        self.workers[turn].jobs.send(job).map_err(|_| ended())
    }

    fn take(&mut self) -> io::Result<()> {
        let turn = self.taken % self.workers.len();
        self.taken += 1;
        let done = self.workers[turn].done.recv().map_err(|_| ended())?;
        self.write(done)
    }

    fn write(&mut self, done: Done) -> io::Result<()> {
        let (bytes, crc) = done?;
        self.crc.combine(&crc);
        self.out.write_all(&bytes)
    }
}

impl<F: Fn(Receiver<Job>, SyncSender<Done>)> Write for Blocks<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            self.give(false)?;
        }
        let length = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One thread: compresses until there is nothing more, or nobody wants it.
fn work(jobs: &Receiver<Job>, done: &SyncSender<Done>) {
    let mut deflate = Compress::new(Compression::new(LEVEL), false);
    while let Ok(job) = jobs.recv() {
        if done.send(compress(&mut deflate, &job)).is_err() {
            return;
        }
    }
}

fn compress(deflate: &mut Compress, job: &Job) -> Done {
    deflate.reset();
    if !job.window.is_empty() {
        deflate.set_dictionary(&job.window)?;
    }
    let mut crc = Crc::new();
    crc.update(&job.block);
    let flush = if job.last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut out = Vec::with_capacity(job.block.len() / 2 + 1024);
    loop {
        let read = usize::try_from(deflate.total_in()).unwrap_or(usize::MAX).min(job.block.len());
        let status = deflate.compress_vec(&job.block[read..], &mut out, flush)?;
        // With room left over, everything that was asked for is there.
        let is_done = if job.last { status == Status::StreamEnd } else { out.len() < out.capacity() };
        if is_done {
            return Ok((out, crc));
        }
        out.reserve(BLOCK / 4);
    }
}

fn ended() -> io::Error {
    io::Error::other("a thread that compresses has ended in a panic")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Bytes that compress, but not to nothing.
    fn bytes(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'a' + (state >> 28) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn compressed(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut out = Vec::new();
        gzip(&mut out, |to: &mut dyn Write| bytes.chunks(piece).try_for_each(|piece| to.write_all(piece))).unwrap();
        out
    }

    #[test]
    fn one_member_comes_out_whatever_the_length() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 20 * BLOCK + 17] {
            let (bytes, mut back) = (bytes(length), Vec::new());
            let out = compressed(&bytes, 10_000);
            // A reader of one member only: pieces that were members of their own would end it early.
            flate2::read::GzDecoder::new(&out[..]).read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{length}");
            assert_eq!(out[out.len() - 4..], u32::try_from(length).unwrap().to_le_bytes());
        }
    }

    #[test]
    fn bytes_that_do_not_compress_survive_too() {
        let mut random = vec![0; 3 * BLOCK + 5];
        getrandom::fill(&mut random).unwrap();
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&compressed(&random, BLOCK)[..]).read_to_end(&mut back).unwrap();
        assert!(back == random);
    }

    #[test]
    fn blocks_know_what_came_before_them() {
        // The same 20,000 random bytes again and again: without a look back, each block would hold them anew.
        let mut random = vec![0; 20_000];
        getrandom::fill(&mut random).unwrap();
        let repeated = random.repeat(100);
        let length = compressed(&repeated, BLOCK).len();
        assert!(length < 60_000, "{length}");
    }

    #[test]
    fn failures_of_either_side_end_it() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let much = bytes(50 * BLOCK);
        let result = gzip(&mut Full(100_000), |to: &mut dyn Write| to.write_all(&much));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        let result = gzip(&mut Vec::new(), |to: &mut dyn Write| {
            to.write_all(&much)?;
            Err(io::ErrorKind::NotFound.into())
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
