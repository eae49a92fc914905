//! Everything that crosses a socket or reads the repository, in one binary.

mod repository;
