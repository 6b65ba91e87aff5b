//! Standard input on its way to a command inside, as it comes.

use std::{
    io::{self, Read as _},
    thread,
};

use corehold_host::{Error, Workspace, types::Code};
use tokio::sync::mpsc;

/// Bytes that go in one request.
const CHUNK: usize = 256 << 10;
/// Chunks that are read before the command has taken those before them.
const AHEAD: usize = 2;

/// Hands all of standard input to a command, and then its end; comes back early when the command takes no more.
///
/// # Errors
/// Standard input can't be read, or the agent can't be reached.
pub(crate) async fn feed(workspace: Workspace, id: String) -> anyhow::Result<()> {
    let mut chunks = read();
    let sent = async {
        while let Some(chunk) = chunks.recv().await {
            workspace.send_input(&id, chunk?).await?;
        }
        workspace.end_input(&id).await?;
        anyhow::Ok(())
    };
    match sent.await {
        // It has ended, or closed its input: as for a pipe in a shell, that is its own affair.
        Err(error) if is_closed(&error) => Ok(()),
        sent => sent,
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    let problem = error.downcast_ref::<Error>().and_then(Error::problem);
    problem.is_some_and(|problem| problem.code == Code::InputClosed)
}

/// Reads on a thread of its own, which nobody waits for: a read of a terminal can't be given up.
fn read() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            let chunk = match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(buffer[..length].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = chunk.is_err();
            if sender.blocking_send(chunk).is_err() || failed {
                return;
            }
        }
    });
    receiver
}
