//! MCP-X: a multi-client MCP gateway with per-tool access control.
//!
//! Many clients, each with a bearer token, connect to one `/mcp` endpoint. Each client can bring its own MCP servers and
//! share chosen tools, prompts and resources of them, by fnmatch pattern, with other clients. Who may do what is said in
//! one `config.toml`.
//!
//! This page is the map. Read the modules in the order in which they stand below and you have read the gateway from its
//! bytes up to its command line.
//!
//! # Layers
//!
//! A module may use only modules of a lower rank; `tests/it/repository.rs` reads the sources and fails on anything else.
//!
//! | rank | module | what it knows | I/O |
//! |---|---|---|---|
//! | 0 | [`alarm`] | time limits of requests, and the thread that watches over them | none |
//! | 0 | [`shutdown`], [`time`] | the stop signal; points in time, written | none |
//! | 0 | [`metrics`] | counters, gauges, histograms, and their text; the process itself | `/proc/self` |
//! | 1 | [`budget`] | bytes held in buffers by all requests together, and their limit | none |
//! | 1 | [`log`] | one-line records | stderr |
//! | 1 | [`wire`] | bytes ↔ types: JSON-RPC, MCP, SSE, REST bodies, tokens, sealed values, `config.toml` and its edits | none |
//! | 2 | [`policy`] | who may see, call and change what: [`policy::Registry`], [`policy::Decision`], [`policy::Permit`], [`policy::Draft`] | none |
//! | 3 | [`outbound`] | outgoing HTTP(S): connector, address vetting, idle connections | sockets |
//! | 4 | [`store`] | where configuration, secrets, sessions and what servers offered last are kept | files |
//! | 4 | [`upstream`] | the client side of MCP: sessions, calls, catalogues, breakers | through `outbound` |
//! | 5 | [`gateway`] | the use cases: snapshot, view, call, question, task, explain, session, change | through rank 4 |
//! | 6 | [`http`] | the server side: accept loop, checks, the MCP endpoint, the REST endpoints, `/metrics` | listening socket |
//! | 7 | [`cli`] | arguments, and one file a subcommand | process |
//!
//! # One `tools/call`
//!
//! 1. [`http::server`] accepts. One wrapper around every request takes the clock, makes a request id and writes the one
//!    record of the request when its answer is over.
//! 2. [`http::router`] says where it goes; [`http::request`] checks `Host` and `Origin` and finds the bearer token, which
//!    [`gateway::Gateway::sign_in`] turns into a [`gateway::Principal`]: by [`policy::authenticate`], or from this thread's
//!    memory of what that found under the same registry. Only then is the body read, up to the limit.
//! 3. [`gateway::Gateway::snapshot`] gives the one registry under which the request is served to its end.
//! 4. [`wire::jsonrpc::Envelope`] reads the message in one pass, without a tree; `http::mcp` decides its era, and what the
//!    message comes to, before anything is waited for.
//! 5. [`gateway::View`] knows what the caller sees: it finds the tool's server and the [`policy::Permit`] that
//!    [`policy::Registry::decide`] gave when the view was made.
//! 6. [`upstream::Upstream::call`] takes the permit and sends the message in the dialect that the server speaks, with the
//!    gateway's own id and progress token and the server's own name for the tool, everything else byte for byte
//!    ([`wire::rewrite`], [`wire::splice`]).
//! 7. [`gateway::Relay`] hands the answer back message by message as it arrives, with the client's id and token, and as
//!    the client's era has it.
//!
//! `prompts/get`, `resources/read` and `completion/complete` go the same way: [`wire::mcp::Operation`] says what a request asks
//! for, [`gateway::Subject`] what it is about. So do `tasks/get`, `tasks/update` and `tasks/cancel`, but that no view is asked:
//! the task's id says which server's tool it was begun for, and [`gateway::Gateway::task`] has that decided anew.
//!
//! # One question of a server
//!
//! 1. While it serves a call a server asks for something of the client's: a request on the call's stream or on the session's
//!    ([`upstream`] hears both), or a result that says what is needed first. What the client has not declared is refused.
//! 2. A legacy client gets a request with an id of its session's own; its answer comes by another POST, and is delivered to the
//!    call, which alone talks to the server.
//! 3. A modern client gets a result that asks for input, and comes back with its answer and a sealed state. If the server was
//!    a legacy one it still waits: the call is parked meanwhile, looked after by a task of its own, and handed to the request
//!    that comes back for it, once.
//!
//! # One change of a list
//!
//! 1. A server says unasked that it offers something else, on a stream that [`upstream`] keeps open to each; or it is found
//!    out when the catalogue is fetched again, which is done in either case. Or another registry is put in force.
//! 2. One task of [`gateway`] is woken, waits some milliseconds for more, and makes the views of the clients that listen: by
//!    GET in a legacy session, by `subscriptions/listen` in the modern era.
//! 3. Whoever sees another list than it was told of last gets a flag in the outbox of its stream, and is told; nobody else.
//!
//! What a server says of a resource goes the same way to those who have subscribed to it.
//!
//! # What makes it cheap
//!
//! - One thread per core that serves, each with its own connections; a request, its client's connection and its server's
//!   stay on one.
//! - What is the same for many requests is made once: what a client sees, the bytes of its lists, whether a token or a
//!   session id is good (per thread), the headers of every request to a server.
//! - Whether a client may call a tool was decided when its view was made; a call looks up one name. Only a resource that no
//!   server lists is decided about when it is read.
//! - No task is made for a request, and what is rare is boxed, so that the future of a connection is small. Time limits are
//!   [`alarm`]s, which hardly ever ring, instead of timers of the runtime.
//! - Events that have come together leave together.
//!
//! `tests/bench` has the measurements: `cargo bench`, `tests/bench/counts`, `tests/bench/compare`.
//!
//! # One change of the configuration
//!
//! One thread makes all of them ([`gateway::writer::Writer`]). It notices that the file changed and reads it
//! ([`store::ConfigFile`]); [`wire::config`] finds what stands where, [`policy::Registry::load`] what it means, and both
//! report every problem at once. Without an error the new registry replaces the old one between two requests; with one
//! the old registry stays.
//!
//! A change over REST is an [`policy::Edit`] that waits for the same thread: the newest text of the file is read, a
//! [`policy::Draft`] says whether the rules allow it and what it comes to, [`wire::config::edit`] changes those bytes of
//! the text and no others, the result is read like any other configuration, stored so that it survives the loss of power,
//! and published; then the client is answered.
//!
//! # One restart
//!
//! A session id says by its seal what it takes to serve the session, so a client goes on with the gateway that comes next.
//! What its session has behind it is appended to a journal when it comes to be ([`store::Journal`]): the sessions with
//! servers ([`upstream::SessionKeeper`]), the log level, the subscriptions, the end. The next process reads that before it
//! listens; a server that has forgotten a session meanwhile says so, and is called in a new one.
//!
//! # What you will not find
//!
//! - An allowed default: where no rule says yes, the answer is no.
//! - A way to an upstream without a [`policy::Permit`], but for the fetching of catalogues, which leave only through a view.
//! - A clock below [`http`], but for timers; `async`, randomness or logging in [`wire`] and [`policy`].
//! - A JSON tree of a message that passes through.
//! - Global state (but for musl's allocator), `unsafe` code, or a lock held across an await, but for the turn to ask a
//!   server for its era or to open a session with it, which those who come meanwhile wait for.

pub mod alarm;
pub mod shutdown;
pub mod time;

pub mod metrics;

pub mod budget;

pub mod log;

pub mod wire;

pub mod policy;

pub mod outbound;

pub mod store;

pub mod upstream;

pub mod gateway;

pub mod http;

pub mod cli;
