//! Who may see and call what.
//!
//! Pure functions of a [`Registry`]: no I/O, no clock, no async, no randomness, no log. The default answer is
//! no. Wire formats are left to `wire`, and what happens after a yes to `gateway` and `upstream`.

pub mod access;
pub mod auth;
pub mod edit;
pub mod fnmatch;
pub mod registry;

pub use access::{Decider, Decision, Permit, Rule, Target};
pub use auth::{AuthError, Caller, authenticate};
pub use edit::{Draft, Edit, EditError};
pub use registry::{ClientId, Reach, Registry, Server, ServerId, ServerKey};
