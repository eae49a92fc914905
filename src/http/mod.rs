//! The server side: from a listening socket to an answer.
//!
//! | file | holds |
//! |---|---|
//! | `server` | accept loop, threads, one wrapper around every request, drain |
//! | `connection` | one accepted socket and its time limits |
//! | `router` | (method, path) → [`router::Route`] |
//! | `request` | `Host`, `Origin`, bearer token, `Accept`, body up to the limit |
//! | `response` | [`response::Body`], and the error table |
//! | `access` | the one record of each request |
//! | `mcp` | the MCP endpoint |
//! | `api` | the REST endpoints |
//! | `openapi` | their description, for programs and for people |
//! | `ops` | `/healthz` and `/readyz` |
//! | `metrics` | what is counted of requests, and `/metrics` |

pub mod access;
pub mod api;
pub mod connection;
mod mcp;
pub mod metrics;
mod openapi;
mod ops;
pub mod request;
pub mod response;
pub mod router;
pub mod server;
