//! Where a request really comes from, and how often somebody registers from there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName};

use crate::wire::config::AddressRange;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const MINUTE: Duration = Duration::from_secs(60);
/// Addresses that are remembered before those without a recent registration are forgotten.
const REMEMBERED: usize = 10_000;

/// The address a request comes from: the peer, or what the nearest proxy that is trusted says it had as its peer.
///
/// SECURITY: `X-Forwarded-For` is read from its end, where the proxies next to us write; what stands before the first
/// address that is no trusted proxy is the client's own invention.
pub(super) fn address_of(peer: IpAddr, headers: &HeaderMap, trusted: &[AddressRange]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|range| range.contains(address));
    let lines: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().map(|v| v.to_str().unwrap_or_default()).collect();
    let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    let mut address = peer.to_canonical();
    while is_trusted(address) {
        let Some(before) = hops.next().and_then(|hop| hop.trim().parse::<IpAddr>().ok()) else { break };
        address = before.to_canonical();
    }
    address
}

/// When clients registered themselves, by the address they came from.
#[derive(Default)]
pub(in crate::http) struct Registrations(Mutex<HashMap<IpAddr, Vec<Duration>>>);

impl Registrations {
    /// Notes a registration.
    ///
    /// # Errors
    /// How many seconds to wait, if there were `most` from this address within the last minute.
    pub(super) fn note(&self, address: IpAddr, now: Duration, most: usize) -> Result<(), u64> {
        let is_recent = |at: &Duration| *at + MINUTE > now;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.retain(|_, times| times.iter().any(is_recent));
        }
        let times = all.entry(network(address)).or_default();
        times.retain(is_recent);
        match times.first() {
            Some(oldest) if times.len() >= most => Err((*oldest + MINUTE).saturating_sub(now).as_secs() + 1),
            _ => {
                times.push(now);
                Ok(())
            }
        }
    }
}

/// What counts as one address: of IPv6 the first 64 bits, because one machine has all of the rest.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn only_trusted_proxies_are_believed() {
        #[track_caller]
        fn check(peer: &str, forwarded: &[&'static str], trusted: &[&str], expected: &str) {
            let mut headers = HeaderMap::new();
            for line in forwarded {
                headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
            }
            let trusted: Vec<_> = trusted.iter().map(|range| AddressRange::parse(range).unwrap()).collect();
            let found = address_of(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        }
        check("1.1.1.1", &[], &[], "1.1.1.1");
        check("1.1.1.1", &["2.2.2.2"], &[], "1.1.1.1");
        check("1.1.1.1", &["2.2.2.2"], &["10.0.0.0/8"], "1.1.1.1");
        check("10.0.0.1", &["2.2.2.2"], &["10.0.0.0/8"], "2.2.2.2");
        check("::ffff:10.0.0.1", &["2.2.2.2"], &["10.0.0.0/8"], "2.2.2.2");
        check("10.0.0.1", &["6.6.6.6, 2.2.2.2"], &["10.0.0.0/8"], "2.2.2.2");
        check("10.0.0.1", &["6.6.6.6, 2.2.2.2, 10.0.0.2"], &["10.0.0.0/8"], "2.2.2.2");
        check("10.0.0.1", &["6.6.6.6", "2.2.2.2,10.0.0.2"], &["10.0.0.0/8"], "2.2.2.2");
        check("10.0.0.1", &["10.0.0.3"], &["10.0.0.0/8"], "10.0.0.3");
        check("10.0.0.1", &["unknown"], &["10.0.0.0/8"], "10.0.0.1");
        check("10.0.0.1", &[""], &["10.0.0.0/8"], "10.0.0.1");
    }

    #[test]
    fn a_minute_takes_so_many_from_one_address() {
        let registrations = Registrations::default();
        let note = |address: &str, at| registrations.note(address.parse().unwrap(), Duration::from_secs(at), 2);
        assert_eq!([note("1.1.1.1", 0), note("1.1.1.1", 10)], [Ok(()), Ok(())]);
        assert_eq!(note("1.1.1.1", 20), Err(41));
        assert_eq!(note("1.1.1.2", 20), Ok(()));
        assert_eq!(note("1.1.1.1", 60), Ok(()));
        assert_eq!(note("1.1.1.1", 60), Err(11));
        assert_eq!([note("2001:db8::1", 0), note("2001:db8::2:1", 0)], [Ok(()), Ok(())]);
        assert!(note("2001:db8::3", 0).is_err());
        assert_eq!(note("2001:db8:0:1::3", 0), Ok(()));
    }
}
