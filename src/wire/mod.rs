//! Bytes ↔ types. Pure: no I/O, no clock, no async, no log. The only place with serde derives.

pub mod canonical;
pub mod changes;
pub mod config;
pub mod endpoint;
pub mod gather;
pub mod headers;
pub mod hex;
pub mod json;
pub mod jsonrpc;
pub mod jwt;
pub mod mcp;
pub mod question;
pub mod rest;
pub mod rewrite;
pub mod seal;
pub mod skim;
pub mod splice;
pub mod sse;
pub mod uri_template;
mod words;
