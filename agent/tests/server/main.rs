//! The agent's HTTP surface, in process: what each route answers to good input and to bad.

mod access; // tokens, scopes, origins
mod archive_copies; // archives out and in again: nothing is lost; replace and exclude
mod archive_corpus; // archives that are refused, and that nothing is left of them
mod archive_oddities; // archives that are odd and yet taken
mod archives; // what comes out of archives that are taken
mod asking; // what is asked of all that takes a path, and what of the outside would show
mod audit; // auditRead
mod audit_contents; // what a record says of content and of commands
mod bad_input; // every field of every tool, and bodies that are no JSON, from the committed schemas
mod bodies; // HTTP byte by byte: what ends early, crawls, lies about its length, has no end
mod bounds; // each bound of the committed schemas is what the agent checks
mod claim; // who wins, who is refused, what commands see
mod commands; // the command tools: terminals, viewers, floods, bad input
mod confinement; // every tool and route, while directories become links to the outside
mod connections; // over a real socket: time-outs, shutdown, callers that go away
mod edits; // edit, write, stat, mkdir, move, copy, remove
mod files; // GET, HEAD, PUT, DELETE /v1/files
mod hostile; // what is no request, to every tool on every surface of a real agent
mod incoming; // callers who send a lot, in bounded memory
mod mcp; // POST /mcp
mod memory; // callers who do not read, in bounded memory
mod metrics; // GET /metrics
mod own_names; // names of the agent's own in the workspace, to every tool and route
mod own_process; // the binary in a process of its own, for these and other tests
mod random_trees; // every tool and route, on random trees of links that are raced, with and without openat2
mod refusals; // what is turned away, and what of it is recorded
mod repeats; // Idempotency-Key
mod repeats_of_all; // Idempotency-Key, on each tool and route that changes something
mod requests; // bodies, problems, request ids, streams
mod schemas; // the committed schemas, and requests made from them
mod searches; // search and find
mod served; // an agent behind a real socket
mod socket_abuse; // GET /v1/ws with clients who mean it badly
mod socket_input; // what a client types over GET /v1/ws
mod sockets; // GET /v1/ws: calls, events, credit, tokens, refusals
mod support; // an agent, requests, answers
mod tars; // archives to order
mod transport; // requests that come as none, to every tool on every surface
mod tunnel; // GET /v1/tunnel: bytes both ways, ends, refusals
mod unread; // callers who stop reading, and slow ones
mod watches; // watch: streams, slow readers, callers who leave
