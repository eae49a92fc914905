//! An upstream's URL, parsed once into the parts that a connection and a request need.
//!
//! Knows `http` and `https` URLs as RFC 3986 writes them; resolves nothing and connects to nothing.
//! Used by the configuration (what the operator wrote) and by `outbound` (where to connect).

use std::fmt;
use std::net::IpAddr;

/// Where an upstream lives: scheme, host, port and request target.
///
/// Made by [`Endpoint::parse`]; two equal endpoints are the same place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Whether the connection is TLS.
    pub https: bool,
    /// Host name in lower case, or an IP literal without brackets.
    pub host: String,
    /// Port, 80 or 443 when the URL names none.
    pub port: u16,
    /// What goes into the `Host` header: host (IPv6 in brackets), and the port unless it is the scheme's own.
    pub authority: String,
    /// Path and query as sent in the request line, at least `/`.
    pub target: String,
    /// Whether the URL had no path at all (`http://host:1`), so that `/mcp` may be tried too.
    pub bare: bool,
}

/// Why a text is not the URL of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointError {
    /// Not a URL of the form `scheme://host…`.
    NotAUrl,
    /// A scheme other than `http` and `https`.
    Scheme,
    /// No host, or one with characters no host has.
    Host,
    /// `user:password@` before the host.
    Credentials,
    /// `#fragment` at the end.
    Fragment,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAUrl => "expected a URL like `http://host:port/mcp`",
            Self::Scheme => "expected an `http` or `https` URL",
            Self::Host => "expected a host name or IP address in the URL",
            Self::Credentials => "expected no user name or password in the URL (use `headers`)",
            Self::Fragment => "expected no `#fragment` in the URL",
        })
    }
}

impl std::error::Error for EndpointError {}

impl Endpoint {
    /// Parses an absolute `http` or `https` URL.
    ///
    /// # Errors
    /// [`EndpointError`], naming the first thing that is wrong.
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        // A fragment is lost in `Uri`, and white space or controls would end up in a request line.
        if url.contains('#') {
            return Err(EndpointError::Fragment);
        }
        let uri: hyper::Uri = url.parse().map_err(|_| EndpointError::NotAUrl)?;
        let https = match uri.scheme_str() {
            Some(s) if s.eq_ignore_ascii_case("http") => false,
            Some(s) if s.eq_ignore_ascii_case("https") => true,
            Some(_) => return Err(EndpointError::Scheme),
            None => return Err(EndpointError::NotAUrl),
        };
        let authority = uri.authority().ok_or(EndpointError::NotAUrl)?;
        if authority.as_str().contains('@') {
            return Err(EndpointError::Credentials);
        }
        let host = host(authority.host())?;
        let default_port = if https { 443 } else { 80 };
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().len() == authority.host().len() => default_port,
            None => return Err(EndpointError::Host),
        };
        let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let after_scheme = url.split_once("://").map_or("", |(_, rest)| rest);
        Ok(Self {
            https,
            authority: if port == default_port { shown } else { format!("{shown}:{port}") },
            host,
            port,
            // Not `path_and_query`, which has no `/` in `http://h?a=b`.
            target: uri.query().map_or_else(|| uri.path().to_owned(), |query| format!("{}?{query}", uri.path())),
            bare: !after_scheme.contains(['/', '?']),
        })
    }

    /// The same place with another request target, such as `/mcp`.
    #[must_use]
    pub fn with_target(&self, target: &str) -> Self {
        Self { target: target.to_owned(), bare: false, ..self.clone() }
    }

    /// Scheme, host and port: what must stay the same when a redirect is followed.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }
}

/// Writes the URL for people and logs.
///
/// SECURITY: a query shows as `?…`, because many servers take their key in it.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, query) = match self.target.split_once('?') {
            Some((path, _)) => (path, "?…"),
            None => (self.target.as_str(), ""),
        };
        write!(f, "{}{}{query}", self.origin(), if self.bare { "" } else { path })
    }
}

/// The host in lower case and without brackets, if it is an IP address or looks like a DNS name.
fn host(raw: &str) -> Result<String, EndpointError> {
    if let Some(literal) = raw.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let address: std::net::Ipv6Addr = literal.parse().map_err(|_| EndpointError::Host)?;
        return Ok(address.to_string());
    }
    let host = raw.to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(EndpointError::Host);
    }
    // SECURITY: `127.1`, `0x7f000001` and `017700000001` are addresses to getaddrinfo; the connector vets what they
    // resolve to, and here they are refused so that nobody reads them as names.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    if numeric && host.parse::<IpAddr>().is_err() {
        return Err(EndpointError::Host);
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Result<(&str, u16, &str, &str), EndpointError>) {
        let found = Endpoint::parse(url);
        let found =
            found.as_ref().map(|e| (e.host.as_str(), e.port, e.authority.as_str(), e.target.as_str())).map_err(|e| *e);
        assert_eq!(found, expected, "{url}");
    }

    #[test]
    fn urls_of_servers_are_taken_apart() {
        check("http://localhost:9100/mcp", Ok(("localhost", 9100, "localhost:9100", "/mcp")));
        check("http://LOCALHOST:80/mcp/", Ok(("localhost", 80, "localhost", "/mcp/")));
        check("https://mcp.example.com/a?b=c", Ok(("mcp.example.com", 443, "mcp.example.com", "/a?b=c")));
        check("https://h:80", Ok(("h", 80, "h:80", "/")));
        check("http://[::1]:9/x", Ok(("::1", 9, "[::1]:9", "/x")));
        check("http://127.0.0.1", Ok(("127.0.0.1", 80, "127.0.0.1", "/")));
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        check("", Err(EndpointError::NotAUrl));
        check("not a url", Err(EndpointError::NotAUrl));
        check("/mcp", Err(EndpointError::NotAUrl));
        check("localhost:9100", Err(EndpointError::NotAUrl));
        check("ftp://h/x", Err(EndpointError::Scheme));
        check("http:///mcp", Err(EndpointError::NotAUrl));
        check("http://u:p@h/", Err(EndpointError::Credentials));
        check("http://h/#x", Err(EndpointError::Fragment));
        check("http://0x7f000001/", Err(EndpointError::Host));
        check("http://127.1/", Err(EndpointError::Host));
        check("http://2130706433/", Err(EndpointError::Host));
        check("http://[::g]/", Err(EndpointError::Host));
        check("http://h:70000/", Err(EndpointError::Host));
    }

    #[test]
    fn a_query_is_sent_but_not_shown() {
        #[track_caller]
        fn check(url: &str, target: &str, shown: &str) {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!((endpoint.target.as_str(), endpoint.to_string().as_str()), (target, shown), "{url}");
        }
        check("https://h/mcp?api_key=hunter2", "/mcp?api_key=hunter2", "https://h/mcp?…");
        check("https://h?hunter2", "/?hunter2", "https://h/?…");
        check("https://h:1/a?b=1?hunter2", "/a?b=1?hunter2", "https://h:1/a?…");
        check("https://h/mcp?", "/mcp?", "https://h/mcp?…");
        check("https://h/mcp", "/mcp", "https://h/mcp");
    }

    #[test]
    fn a_url_without_a_path_is_marked() {
        assert!(Endpoint::parse("http://h:1").is_ok_and(|e| e.bare));
        assert!(Endpoint::parse("http://h:1/").is_ok_and(|e| !e.bare));
        assert_eq!(Endpoint::parse("http://h:1").map(|e| e.to_string()).as_deref(), Ok("http://h:1"));
    }
}
