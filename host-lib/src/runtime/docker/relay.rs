//! A connection to a port inside, through the engine: `corehold-agent relay`, started by exec, and its frames
//! ([`corehold_types::relay`]) over its standard input and output.
//!
//! For engines whose containers this machine reaches neither at their own addresses nor at ports that are published: those of another
//! machine or network namespace. An exec is a process inside, which ends with its input, and that with the connection that this was.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, ready},
};

use bollard::{
    container::LogOutput,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
};
use bytes::{Buf as _, Bytes, BytesMut};
use corehold_types::relay::{END, FRAME_BYTES, GREETING, HEADER_BYTES, header};
use futures_util::{Stream, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::RwLock,
};

use super::{connection::Connection, inject::AGENT_PATH};
use crate::{
    blocking::cut_off,
    error::{Error, ErrorKind, Result},
};

/// Bytes of the relay's own words that are kept: it says one line.
const WORDS_BYTES: usize = 1024;
/// Bytes read from the engine at once: what it passes on in one piece.
const OUTPUT_BYTES: usize = 32 << 10;

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// Keeps beginnings of relays and pauses of the same container apart. Docker (seen with 20.10) lets a container be frozen while a process is
/// on its way into it: that never arrives, whoever looks at the container waits for it, and whoever resumes the container for them.
/// Of other processes' relays nobody here knows.
#[derive(Clone, Default)]
pub(super) struct Beginnings(Arc<Mutex<HashMap<String, Weak<RwLock<()>>>>>);

impl Beginnings {
    fn of(&self, container: &str) -> Arc<RwLock<()>> {
        // Nothing panics while it is held.
        let mut containers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        containers.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = containers.get(container).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        containers.insert(container.to_owned(), Arc::downgrade(&lock));
        lock
    }

    /// Pauses a container while no relay begins in it.
    pub(super) async fn paused<T>(&self, container: &str, pause: impl Future<Output = T>) -> T {
        // Across the await on purpose: others wait for it.
        let _alone = self.of(container).write_owned().await;
        pause.await
    }
}

/// Opens a connection. Whoever stops waiting closes what was opened by then, and the relay ends.
pub(super) async fn connect(
    connection: &Connection,
    beginnings: &Beginnings,
    container: &str,
    port: u16,
) -> Result<Relayed> {
    let begins = beginnings.of(container).read_owned().await;
    let (connection, container) = (connection.clone(), container.to_owned());
    // In a task, which ends with its calls: the engine goes on with a beginning that nobody waits for.
    let opening = tokio::spawn(async move {
        let relayed = open(&connection, &container, port).await;
        drop(begins);
        relayed
    });
    opening.await.map_err(|error| cut_off("connecting through the engine", error))?
}

async fn open(connection: &Connection, container: &str, port: u16) -> Result<Relayed> {
    let what = format!("connecting to port {port} of the container");
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(false),
        cmd: Some(vec![AGENT_PATH.to_owned(), "relay".to_owned(), port.to_string()]),
        ..CreateExecOptions::default()
    };
    let call = connection.client.create_exec(container, options);
    let exec = connection.call(&what, call).await?;
    let options = StartExecOptions { output_capacity: Some(OUTPUT_BYTES), ..StartExecOptions::default() };
    let call = connection.client.start_exec(&exec.id, Some(options));
    let StartExecResults::Attached { output, input } = connection.call(&what, call).await? else {
        return Err(Error::new(ErrorKind::Engine, format!("{what}: the engine attached nobody to the relay")));
    };
    let mut relayed = Relayed::new(output, input);
    let greeted = async { Ok(relayed.greeting().await) };
    match connection.call(&what, greeted).await? {
        Ok(()) => Ok(relayed),
        Err(error) => Err(refused(&relayed.said(), &error).context(what)),
    }
}

/// Why there was no greeting.
fn refused(said: &str, error: &io::Error) -> Error {
    let line = said.lines().next().unwrap_or_default().trim();
    let line = line.strip_prefix("corehold-agent: ").unwrap_or(line);
    if said.contains("are not understood")
        || said.contains("no such file")
        || said.contains("executable file not found")
    {
        return Error::new(
            ErrorKind::Unsupported,
            format!("the agent in it opens no connections through the engine: {line}"),
        )
        .hint("it is of an earlier version: build the image anew (`corehold image build`)");
    }
    let why = if line.is_empty() { error.to_string() } else { line.to_owned() };
    Error::new(ErrorKind::AgentUnavailable, why)
}

/// The connection. Dropping it ends the relay, and so, with a reset, what wasn't ended before.
pub(super) struct Relayed {
    output: Output,
    input: Input,
    /// What of the engine's last piece isn't looked at yet.
    piece: Bytes,
    /// The first byte of a length whose second one isn't there yet.
    half: Option<u8>,
    /// Bytes left of the frame.
    left: usize,
    /// The port has said all.
    ended: bool,
    /// A frame on its way to the engine.
    frame: BytesMut,
    /// It was told that we have said all.
    shut: bool,
    /// What the relay said on its error output.
    words: Vec<u8>,
}

impl Relayed {
    fn new(output: Output, input: Input) -> Self {
        Self {
            output,
            input,
            piece: Bytes::new(),
            half: None,
            left: 0,
            ended: false,
            frame: BytesMut::with_capacity(HEADER_BYTES + FRAME_BYTES),
            shut: false,
            words: Vec::new(),
        }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.words).into_owned()
    }

    /// Waits for the relay to have connected.
    async fn greeting(&mut self) -> io::Result<()> {
        let mut expected = GREETING;
        while !expected.is_empty() {
            std::future::poll_fn(|context| self.poll_piece(context)).await?;
            let length = expected.len().min(self.piece.len());
            if self.piece[..length] != expected[..length] {
                return Err(misunderstood());
            }
            self.piece.advance(length);
            expected = &expected[length..];
        }
        Ok(())
    }

    /// Has something of the relay's output at hand, or fails: it never ends without having said so before.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.piece.is_empty() {
            match ready!(self.output.poll_next_unpin(context)) {
                Some(Ok(LogOutput::StdOut { message })) => self.piece = message,
                Some(Ok(LogOutput::StdErr { message })) => {
                    let room = WORDS_BYTES.saturating_sub(self.words.len());
                    self.words.extend_from_slice(&message[..message.len().min(room)]);
                }
                Some(Ok(_)) => return Poll::Ready(Err(misunderstood())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => {
                    let said = self.said();
                    let why = said.lines().next().unwrap_or("the connection through the engine broke off");
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, why)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Has the frame gone to the engine.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.frame.is_empty() {
            let written = ready!(self.input.as_mut().poll_write(context, &self.frame))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.frame.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

fn misunderstood() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the engine passed on is not what the relay says")
}

impl AsyncRead for Relayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.left == 0 && !this.ended {
            ready!(this.poll_piece(context))?;
            let byte = this.piece.get_u8();
            match this.half.take() {
                None => this.half = Some(byte),
                Some(first) => {
                    let length = [first, byte];
                    this.ended = length == END;
                    this.left = u16::from_be_bytes(length).into();
                }
            }
        }
        if this.ended || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_piece(context))?;
        let length = this.piece.len().min(this.left).min(buffer.remaining());
        buffer.put_slice(&this.piece[..length]);
        this.piece.advance(length);
        this.left -= length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Relayed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_frame(context))?;
        if this.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = bytes.len().min(FRAME_BYTES);
        // Nothing is no frame: it would be the end.
        let Some(header) = header(length) else { return Poll::Ready(Ok(0)) };
        this.frame.extend_from_slice(&header);
        this.frame.extend_from_slice(&bytes[..length]);
        // It has been taken; what doesn't go now goes with the next write or flush.
        match this.poll_frame(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(length)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_frame(context))?;
        self.input.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_frame(context))?;
        if !self.shut {
            self.shut = true;
            self.frame.extend_from_slice(&END);
        }
        self.poll_flush(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_pause_waits_for_what_begins_and_holds_up_what_would() {
        use futures_util::FutureExt as _;

        let beginnings = Beginnings::default();
        let begins = beginnings.of("one").read_owned().await;
        assert!(beginnings.of("one").try_read_owned().is_ok(), "several may begin at once");
        let mut pause = Box::pin(beginnings.paused("one", std::future::ready(())));
        assert!(pause.as_mut().now_or_never().is_none());
        assert!(beginnings.paused("other", std::future::ready(())).now_or_never().is_some());
        assert!(beginnings.of("one").try_read_owned().is_err(), "it comes after the pause");
        drop(begins);
        pause.await;
        assert!(beginnings.of("one").try_read_owned().is_ok());
    }

    fn relayed(pieces: Vec<LogOutput>) -> (Relayed, tokio::io::DuplexStream) {
        let (input, relay) = tokio::io::duplex(7);
        let output = stream::iter(pieces.into_iter().map(Ok));
        (Relayed::new(Box::pin(output), Box::pin(input)), relay)
    }

    fn pieces(bytes: &[u8], size: usize) -> Vec<LogOutput> {
        bytes.chunks(size).map(|piece| LogOutput::StdOut { message: Bytes::copy_from_slice(piece) }).collect()
    }

    fn words(text: &'static str) -> LogOutput {
        LogOutput::StdErr { message: Bytes::from_static(text.as_bytes()) }
    }

    #[tokio::test]
    async fn frames_are_read_however_the_engine_cuts_them() {
        let said = [GREETING, b"\0\x05hello\0\x01 \0\x05world\0\0"].concat();
        for size in 1..=said.len() {
            let (mut relayed, _relay) = relayed(pieces(&said, size));
            relayed.greeting().await.unwrap();
            let mut read = String::new();
            relayed.read_to_string(&mut read).await.unwrap();
            assert_eq!(read, "hello world", "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_end() {
        let said = [GREETING, b"\0\x05hello\0\0"].concat();
        for length in GREETING.len()..said.len() {
            let (mut relayed, _relay) = relayed(pieces(&said[..length], 3));
            relayed.greeting().await.unwrap();
            let error = relayed.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "after {length} bytes");
        }
        let mut broken = pieces(&said[..GREETING.len() + 4], 100);
        broken.push(words("corehold-agent: the connection broke: reset\n"));
        let (mut relayed, _relay) = relayed(broken);
        relayed.greeting().await.unwrap();
        let error = relayed.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert!(error.to_string().contains("the connection broke: reset"), "{error}");
    }

    #[tokio::test]
    async fn what_is_written_goes_in_frames_and_its_end_is_one() {
        let (mut relayed, mut relay) = relayed(Vec::new());
        let content = vec![7; FRAME_BYTES + 1];
        let expected = [&header(FRAME_BYTES).unwrap()[..], &content[1..], &header(1).unwrap(), &[7], &END].concat();
        let writing = async {
            relayed.write_all(&content).await.unwrap();
            assert_eq!(relayed.write(b"").await.unwrap(), 0, "nothing is not the end");
            relayed.shutdown().await.unwrap();
            relayed.shutdown().await.unwrap();
            assert_eq!(relayed.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            drop(relayed);
        };
        let mut written = Vec::new();
        let ((), read) = tokio::join!(writing, relay.read_to_end(&mut written));
        read.unwrap();
        assert!(written == expected, "{} bytes", written.len());
    }

    #[tokio::test]
    async fn who_does_not_greet_is_not_taken_for_a_connection() {
        for (said, kind, why) in [
            (
                vec![words("corehold-agent: nothing listens on port 4 (connection refused)\n")],
                ErrorKind::AgentUnavailable,
                "nothing listens on port 4 (connection refused)",
            ),
            (
                vec![words("corehold-agent: these arguments are not understood: [\"relay\", \"4\"]\n\nThe resident")],
                ErrorKind::Unsupported,
                "these arguments are not understood",
            ),
            (pieces(b"HTTP/1.1 200 OK\r\n", 5), ErrorKind::AgentUnavailable, "not what the relay says"),
            (Vec::new(), ErrorKind::AgentUnavailable, "broke off"),
        ] {
            let (mut relayed, _relay) = relayed(said);
            let error = relayed.greeting().await.unwrap_err();
            let error = refused(&relayed.said(), &error);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
