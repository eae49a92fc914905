//! (method, path) → [`Route`].

use hyper::Method;

use super::api::Endpoint;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The MCP endpoint.
    Mcp,
    /// Whether the process is alive.
    Health,
    /// Whether the configuration is loaded and the gateway is not draining.
    Ready,
    /// What is counted, for Prometheus.
    Metrics,
    /// A REST endpoint.
    Api(Endpoint),
    /// The description of the REST endpoints.
    OpenApi,
    /// The same for people, and the files of that page.
    Docs,
}

impl Route {
    /// Every route but the REST endpoints.
    pub const PLAIN: [Self; 6] = [Self::Mcp, Self::Health, Self::Ready, Self::Metrics, Self::OpenApi, Self::Docs];

    /// The path; of those that begin alike, the beginning.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Mcp => "/mcp",
            Self::Health => "/healthz",
            Self::Ready => "/readyz",
            Self::Metrics => "/metrics",
            Self::OpenApi => "/openapi.json",
            Self::Docs => "/docs",
            Self::Api(endpoint) => endpoint.path(),
        }
    }

    /// The route of a path; a slash at the end of `/mcp/` makes no difference.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        match path {
            "/mcp" | "/mcp/" => Some(Self::Mcp),
            "/healthz" => Some(Self::Health),
            "/readyz" => Some(Self::Ready),
            "/metrics" => Some(Self::Metrics),
            "/openapi.json" => Some(Self::OpenApi),
            "/docs" => Some(Self::Docs),
            _ if path.starts_with("/docs/") => Some(Self::Docs),
            _ => Endpoint::ALL.iter().find(|(known, _)| *known == path).map(|(_, endpoint)| Self::Api(*endpoint)),
        }
    }

    /// The methods that the route takes, as the `Allow` header lists them.
    #[must_use]
    pub fn allow(self) -> &'static str {
        match self {
            Self::Mcp => "GET, POST, DELETE",
            Self::Api(endpoint) if endpoint.changes() => "POST",
            Self::Health | Self::Ready | Self::Metrics | Self::Api(_) | Self::OpenApi | Self::Docs => "GET, HEAD",
        }
    }

    /// Whether the route takes this method.
    #[must_use]
    pub fn takes(self, method: &Method) -> bool {
        match self {
            Self::Mcp => matches!(*method, Method::GET | Method::POST | Method::DELETE),
            Self::Api(endpoint) if endpoint.changes() => *method == Method::POST,
            Self::Health | Self::Ready | Self::Metrics | Self::Api(_) | Self::OpenApi | Self::Docs => {
                matches!(*method, Method::GET | Method::HEAD)
            }
        }
    }

    /// Whether the `Host` header is checked. Probes of orchestrators name the container's address, and learn nothing.
    #[must_use]
    pub fn checks_host(self) -> bool {
        !matches!(self, Self::Health | Self::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_routes() {
        assert_eq!(Route::of("/mcp"), Some(Route::Mcp));
        assert_eq!(Route::of("/mcp/"), Some(Route::Mcp));
        assert_eq!(Route::of("/healthz"), Some(Route::Health));
        assert_eq!(Route::of("/docs"), Some(Route::Docs));
        assert_eq!(Route::of("/docs/swagger-ui.css"), Some(Route::Docs));
        assert_eq!(Route::of("/explain"), Some(Route::Api(Endpoint::Explain)));
        let endpoints = Endpoint::ALL.iter().map(|(_, endpoint)| Route::Api(*endpoint));
        for route in Route::PLAIN.into_iter().chain(endpoints) {
            assert_eq!(Route::of(route.path()), Some(route));
        }
        for path in ["", "/", "/explain/", "/Explain", "/docsx", "/mcp//", "/MCP", "/mcp/x", "//mcp", "/healthz/", "*"]
        {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }

    #[test]
    fn only_the_allowed_methods_are_taken() {
        assert!(Route::Mcp.takes(&Method::POST) && Route::Mcp.takes(&Method::DELETE));
        assert!(Route::Mcp.takes(&Method::GET) && !Route::Mcp.takes(&Method::PUT) && !Route::Mcp.takes(&Method::HEAD));
        assert!(Route::Api(Endpoint::UpdateAccess).takes(&Method::POST));
        assert!(!Route::Api(Endpoint::UpdateAccess).takes(&Method::GET));
        assert!(Route::Api(Endpoint::GetTools).takes(&Method::HEAD));
        assert!(Route::Health.takes(&Method::GET) && !Route::Health.takes(&Method::POST));
        let endpoints = Endpoint::ALL.iter().map(|(_, endpoint)| Route::Api(*endpoint));
        for route in Route::PLAIN.into_iter().chain(endpoints) {
            for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
                let listed = route.allow().split(", ").any(|allowed| allowed == method.as_str());
                assert_eq!(route.takes(&method), listed, "{route:?} {method}");
            }
        }
    }
}
