//! A host as a process of its own that asks for an owner's workspace whenever it is told to. For tests that run several of them.
//!
//! Arguments: the home folder, a label's value for its containers, and the owner. Of each line of its input it answers with one line:
//!
//! | line | what is done | answer |
//! |---|---|---|
//! | `ask` | gets or creates the owner's workspace, and reads its file | `got <id> <the file, or ->` |
//! | `write <text>` | writes the file | `done` |
//! | `sleep`, `remove` | to the workspace that it got last | `done` |

use std::{
    io::{BufRead as _, Write as _},
    time::Duration,
};

use corehold_host::{CreateWorkspace, Host, Workspace, types::Code};

const FILE: &str = "kept";

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [home, mark, owner] = arguments.as_slice() else { panic!("{arguments:?}") };
    let host = Host::builder().home(home).label(corehold_e2e::corehold::POOL_MARK, mark).build();
    let host = host.await.expect("the host starts");
    let (lines, mut told) = tokio::sync::mpsc::channel(1);
    // A thread of its own, which may wait: it ends with the input.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            lines.blocking_send(line.expect("the test writes lines")).expect("the host lives");
        }
    });
    let mut got: Option<Workspace> = None;
    while let Some(line) = told.recv().await {
        let known = || got.clone().expect("it was asked for before");
        let (verb, text) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match verb {
            "ask" => {
                let workspace = host.get_or_create(owner, CreateWorkspace::empty()).await.expect("it is got or made");
                let content = match workspace.read_file(FILE).await {
                    Ok(content) => String::from_utf8_lossy(&content).into_owned(),
                    Err(error) if error.problem().is_some_and(|problem| problem.code == Code::NotFound) => {
                        "-".to_owned()
                    }
                    Err(error) => panic!("{error}"),
                };
                let answer = format!("got {} {content}\n", workspace.id());
                got = Some(workspace);
                answer
            }
            "write" => {
                known().write_file(FILE, text.to_owned()).await.expect("it is written");
                "done\n".to_owned()
            }
            "sleep" => {
                known().sleep(Duration::ZERO).await.expect("it sleeps");
                "done\n".to_owned()
            }
            "remove" => {
                known().remove().await.expect("it is removed");
                "done\n".to_owned()
            }
            other => panic!("{other:?}"),
        };
        std::io::stdout().lock().write_all(answer.as_bytes()).expect("somebody reads");
    }
}
