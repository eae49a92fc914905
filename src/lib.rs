//! MCP-X
pub mod cli;
pub mod gateway;
pub mod http;
pub mod log;
pub mod outbound;
pub mod policy;
pub mod shutdown;
pub mod store;
pub mod upstream;
pub mod wire;
