//! Addresses, hosts and origins as `[gateway]` writes them.
//!
//! Knows their notations (RFC 3986 authorities, RFC 4632 blocks, RFC 6454 origins); errors are messages for the person
//! who wrote them. Asking a resolver is nobody's business here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::http::uri::{Authority, Uri};

/// A block of addresses, as CIDR writes it; a single address is a block of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    base: Ipv6Addr,
    /// Leading bits that count, of 128.
    prefix: u32,
}

impl AddressRange {
    /// Parses `10.0.0.1`, `10.0.0.0/8` or the like in IPv6.
    ///
    /// # Errors
    /// A message.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected an address or a block like `10.0.0.0/8`, found `{}`", text.escape_debug());
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(bits), str::parse).map_err(|_| wrong())?;
        if length > bits {
            return Err(wrong());
        }
        Ok(Self { base: v6(address), prefix: 128 - bits + length })
    }

    /// Tells whether the address lies in the block; an IPv4 address mapped into IPv6 is the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = self.base.to_bits() ^ v6(address).to_bits();
        differing.leading_zeros() >= self.prefix
    }
}

/// Every address as IPv6, so that `10.0.0.1` and `::ffff:10.0.0.1` are one.
fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Parses what `listen` and `--listen` take: an IP address or `localhost`, and a port.
///
/// # Errors
/// A message.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let local = local.map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let wrong = || format!("expected an address like `127.0.0.1:9000`, found `{}`", text.escape_debug());
    local.or_else(|| text.parse().ok()).ok_or_else(wrong)
}

/// A host, perhaps with a port, in lower case.
pub(super) fn host(text: &str) -> Result<String, String> {
    let wrong = || format!("expected a host name like `mcp.example.com`, found `{}`", text.escape_debug());
    let authority: Authority = text.parse().map_err(|_| wrong())?;
    // `Authority` takes `user@host` and `host:`; no `Host` header has either.
    if authority.as_str().contains('@') || authority.host().is_empty() || text.ends_with(':') || text == "*" {
        return Err(wrong());
    }
    Ok(text.to_ascii_lowercase())
}

/// An origin as browsers send it (RFC 6454, 6.2), in lower case.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let wrong = || format!("expected an origin like `https://mcp.example.com`, found `{}`", text.escape_debug());
    let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    if uri.scheme_str().is_none() || host(authority).is_err() {
        return Err(wrong());
    }
    Ok(format!("{scheme}://{authority}").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_contain_their_addresses_and_no_others() {
        #[track_caller]
        fn check(block: &str, address: &str, expected: bool) {
            let block = AddressRange::parse(block).unwrap();
            assert_eq!(block.contains(address.parse().unwrap()), expected, "{block:?} {address}");
        }
        check("10.0.0.1", "10.0.0.1", true);
        check("10.0.0.1", "10.0.0.2", false);
        check("10.0.0.0/8", "10.255.255.255", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("::ffff:10.0.0.0/104", "10.1.2.3", true);
        check("10.1.2.3/8", "10.0.0.1", true);
        check("0.0.0.0/0", "255.0.0.1", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "::1", true);
        check("fd00::/8", "fdff::1", true);
        check("fd00::/8", "fe80::1", false);
        check("::1/128", "::1", true);
    }

    #[test]
    fn listen_takes_an_address_or_localhost_and_a_port() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            let expected: Option<SocketAddr> = expected.map(|text| text.parse().unwrap());
            assert_eq!(listen_address(text).ok(), expected, "{text}");
        }
        check("127.0.0.1:9000", Some("127.0.0.1:9000"));
        check("localhost:80", Some("127.0.0.1:80"));
        check("[::]:0", Some("[::]:0"));
        check("0.0.0.0:65535", Some("0.0.0.0:65535"));
        for wrong in ["", "9000", ":9000", "localhost", "localhost:", "127.0.0.1", "example.com:80", "127.0.0.1:65536"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn hosts_and_origins_are_lower_case() {
        assert_eq!(host("MCP.Example.com:8443").as_deref(), Ok("mcp.example.com:8443"));
        assert_eq!(host("[::1]:80").as_deref(), Ok("[::1]:80"));
        assert_eq!(origin("HTTPS://MCP.Example.com").as_deref(), Ok("https://mcp.example.com"));
        assert_eq!(origin("http://localhost:6274").as_deref(), Ok("http://localhost:6274"));
        assert!(origin("https://u@h").is_err());
        assert!(origin("https://h/").is_err());
    }
}
