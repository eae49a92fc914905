//! MCP-X
pub mod log;
pub mod shutdown;
pub mod wire;
