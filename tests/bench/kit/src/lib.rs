//! What the benchmarks' server (`bench-upstream`) and load generator (`bench-load`) have in common.
//!
//! Both are one thread, and both insist on the protocol: the server refuses requests that a real one would refuse, the
//! generator reads every answer whole. A fast gateway that is wrong shows as errors, not as speed.

pub mod mcp;
pub mod options;
