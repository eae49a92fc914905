//! For probes: whether the process is alive, and whether it takes requests. Both without a token and without detail.

use hyper::{Response, StatusCode};

use super::response::{Body, json};

/// `/healthz`: whoever reads this is being answered, so the process is alive.
pub(super) fn health() -> Response<Body> {
    json(StatusCode::OK, "{\"status\":\"ok\"}")
}

/// `/readyz`: whether the gateway takes requests; a gateway exists only with a configuration, so only draining says no.
pub(super) fn ready(draining: bool) -> Response<Body> {
    match draining {
        false => json(StatusCode::OK, "{\"status\":\"ready\"}"),
        true => json(StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"draining\"}"),
    }
}
