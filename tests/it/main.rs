//! Everything that crosses a socket or reads the repository, in one binary.

mod repository;

#[cfg(test)]
mod batch;
#[cfg(test)]
mod bridge;
#[cfg(test)]
mod cancel;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod crosses;
#[cfg(test)]
mod disturbed;
#[cfg(test)]
mod envelope;
#[cfg(test)]
mod eras;
#[cfg(test)]
mod failing;
#[cfg(test)]
mod health;
#[cfg(test)]
mod http;
#[cfg(feature = "tls")]
#[cfg(test)]
mod https;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod leaks;
#[cfg(test)]
mod listen;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod lossless;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod modern;
#[cfg(test)]
mod offer_lists;
#[cfg(test)]
mod offer_routes;
#[cfg(test)]
mod offers;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod paging;
#[cfg(test)]
mod parked;
#[cfg(test)]
mod property;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod rounds;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod subscribe;
#[cfg(test)]
mod support;
#[cfg(test)]
mod task_news;
#[cfg(test)]
mod tasks;
#[cfg(test)]
mod transcripts;
#[cfg(test)]
mod unasked;
#[cfg(test)]
mod views;
