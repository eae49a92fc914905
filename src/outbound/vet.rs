//! Which addresses an upstream may have: the gateway's defence against server-side request forgery.
//!
//! Pure. Follows the IANA special-purpose address registries (IPv4 and IPv6; RFC 6890): what they do not call globally
//! reachable — documentation and benchmarking included — is closed to [`Reach::Public`]. An IPv6 address that carries
//! an IPv4 address is judged by the one it carries. Who has which reach is decided elsewhere.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::policy::Reach;

/// An address that must not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// The address, as it was resolved or written.
    pub address: IpAddr,
    /// What it is, such as `link-local`.
    pub kind: &'static str,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address `{}` is not allowed here: {}", self.address, self.kind)
    }
}

impl Error for Forbidden {}

/// Who may connect to a range of addresses; the stricter is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Open {
    Anyone,
    Insiders,
    Nobody,
}

use Open::{Anyone, Insiders, Nobody};

/// A judgement on an address: who may connect, and what the address is.
type Verdict = (Open, &'static str);

/// Refuses an address that is not open to `reach`.
///
/// # Errors
/// [`Forbidden`], saying what the address is.
pub fn vet(address: IpAddr, reach: Reach) -> Result<(), Forbidden> {
    let (open, kind) = match address {
        IpAddr::V4(v4) => judge_v4(v4),
        IpAddr::V6(v6) => judge_v6(v6),
    };
    let allowed = match reach {
        Reach::Public => open == Anyone,
        Reach::Private => open <= Insiders,
    };
    if allowed { Ok(()) } else { Err(Forbidden { address, kind }) }
}

/// IPv4 ranges, the first that holds the address counts; addresses in none of them are public.
const V4: &[([u8; 4], u32, Verdict)] = &[
    // Services that cloud providers offer to the machines themselves, outside 169.254.0.0/16.
    ([100, 100, 100, 200], 32, (Nobody, "cloud metadata")), // Alibaba
    ([168, 63, 129, 16], 32, (Nobody, "cloud metadata")),   // Azure
    ([192, 0, 0, 192], 32, (Nobody, "cloud metadata")),     // Oracle
    ([0, 0, 0, 0], 8, (Nobody, "unspecified")),
    ([169, 254, 0, 0], 16, (Nobody, "link-local")),
    ([224, 0, 0, 0], 4, (Nobody, "multicast")),
    ([240, 0, 0, 0], 4, (Nobody, "reserved")), // and broadcast
    ([127, 0, 0, 0], 8, (Insiders, "loopback")),
    ([10, 0, 0, 0], 8, (Insiders, "private network")),
    ([172, 16, 0, 0], 12, (Insiders, "private network")),
    ([192, 168, 0, 0], 16, (Insiders, "private network")),
    ([100, 64, 0, 0], 10, (Insiders, "carrier-grade NAT")),
    ([192, 0, 0, 0], 24, (Insiders, "protocol assignment")),
    ([192, 88, 99, 0], 24, (Insiders, "6to4 relay")),
    ([198, 18, 0, 0], 15, (Insiders, "benchmarking")),
    ([192, 0, 2, 0], 24, (Insiders, "documentation")),
    ([198, 51, 100, 0], 24, (Insiders, "documentation")),
    ([203, 0, 113, 0], 24, (Insiders, "documentation")),
];

/// IPv6 ranges, the first that holds the address counts. All that is public lies in 2000::/3.
const V6: &[([u16; 8], u32, Verdict)] = &[
    ([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32, (Nobody, "cloud metadata")), // Amazon
    ([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, (Nobody, "cloud metadata")), // Google
    ([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128, (Nobody, "cloud metadata")), // Oracle
    ([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128, (Nobody, "cloud metadata")), // Scaleway
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, (Nobody, "unspecified")),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, (Nobody, "link-local")),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, (Nobody, "multicast")),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, (Insiders, "loopback")),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, (Insiders, "private network")),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, (Insiders, "site-local")),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, (Insiders, "protocol assignment")),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, (Insiders, "documentation")),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, (Insiders, "documentation")),
    ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, (Anyone, "public")),
    ([0, 0, 0, 0, 0, 0, 0, 0], 0, (Insiders, "not globally reachable")),
];

fn judge_v4(address: Ipv4Addr) -> Verdict {
    let within = |(network, length, _): &&([u8; 4], u32, Verdict)| {
        let differing = address.to_bits() ^ u32::from_be_bytes(*network);
        differing.leading_zeros() >= *length
    };
    V4.iter().find(within).map_or((Anyone, "public"), |&(_, _, verdict)| verdict)
}

/// Judges an IPv6 address by the IPv4 address it carries, by its own range, or by the stricter of both.
fn judge_v6(address: Ipv6Addr) -> Verdict {
    match address.segments() {
        // IPv4-mapped (RFC 4291 2.5.5.2), and NAT64's well-known prefix (RFC 6052 2.1)
        [0, 0, 0, 0, 0, 0xffff, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => judge_v4(v4(a, b)),
        // IPv4-compatible (RFC 4291 2.5.5.1), but not `::` and `::1`
        [0, 0, 0, 0, 0, 0, a, b] if (a, b) > (0, 1) => judge_v4(v4(a, b)),
        // 6to4 (RFC 3056 2)
        [0x2002, a, b, ..] => judge_v4(v4(a, b)),
        // Teredo (RFC 4380 4): its server, and its client inverted
        [0x2001, 0, a, b, _, _, c, d] => stricter(judge_v4(v4(a, b)), judge_v4(v4(!c, !d))),
        // NAT64 of a local network (RFC 8215)
        [0x64, 0xff9b, 1, ..] => local_nat64(address),
        // IPv4-translated (RFC 2765 2.1), and ISATAP under any prefix (RFC 5214 6.1)
        [0, 0, 0, 0, 0xffff, 0, a, b] | [_, _, _, _, 0 | 0x200, 0x5efe, a, b] => {
            stricter(judge_range(address), judge_v4(v4(a, b)))
        }
        _ => judge_range(address),
    }
}

fn judge_range(address: Ipv6Addr) -> Verdict {
    let within = |(network, length, _): &&([u16; 8], u32, Verdict)| {
        let differing = address.to_bits() ^ Ipv6Addr::from(*network).to_bits();
        differing.leading_zeros() >= *length
    };
    V6.iter().find(within).map_or((Nobody, "unknown"), |&(_, _, verdict)| verdict)
}

/// Judges an address of 64:ff9b:1::/48, where the network chose the place of the IPv4 address (RFC 6052 2.2).
///
/// The last 32 bits are the usual place. SECURITY: in the others, too, nothing is let through to a metadata service.
fn local_nat64(address: Ipv6Addr) -> Verdict {
    let [.., a, b, _, c, d, e, f, x, y, z] = address.octets();
    let usual = stricter(judge_range(address), judge_v4(Ipv4Addr::new(f, x, y, z)));
    [[a, b, c, d], [b, c, d, e], [c, d, e, f]]
        .map(|octets| judge_v4(octets.into()))
        .into_iter()
        .filter(|(_, kind)| matches!(*kind, "link-local" | "cloud metadata"))
        .fold(usual, stricter)
}

/// The verdict that opens an address to fewer; the first of two alike.
fn stricter(one: Verdict, other: Verdict) -> Verdict {
    if other.0 > one.0 { other } else { one }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(addresses: &[&str], open: Open) {
        for text in addresses {
            let address = text.parse().unwrap();
            let found = [Reach::Public, Reach::Private].map(|reach| vet(address, reach).is_ok());
            assert_eq!(found, [open == Anyone, open != Nobody], "{text}: {:?}", vet(address, Reach::Public));
        }
    }

    #[test]
    fn public_addresses_are_open_to_anyone() {
        check(&["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"], Anyone);
        check(&["126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255"], Anyone);
        check(&["172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0", "192.167.255.255"], Anyone);
        check(&["192.169.0.0", "198.17.255.255", "198.20.0.0", "203.0.114.0", "223.255.255.255"], Anyone);
        check(&["168.63.129.15", "168.63.129.17", "1.0.0.0", "192.31.196.1", "192.175.48.1"], Anyone);
        check(&["2000::", "2001:200::1", "2606:4700:4700::1111", "2a00:1450::1", "3ffe::1", "3fff:1000::"], Anyone);
    }

    #[test]
    fn private_addresses_need_private_reach() {
        check(&["127.0.0.1", "127.0.0.0", "127.255.255.255", "127.0.0.53"], Insiders);
        check(&["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255"], Insiders);
        check(&["192.168.0.0", "192.168.255.255", "100.64.0.0", "100.127.255.255", "100.100.100.199"], Insiders);
        check(&["192.0.0.0", "192.0.0.8", "192.0.0.255", "192.88.99.1", "198.18.0.0", "198.19.255.255"], Insiders);
        check(&["192.0.2.1", "198.51.100.1", "203.0.113.255"], Insiders);
        check(&["::1", "fc00::", "fc00::1", "fd12:3456::1", "fdff:ffff::1", "fec0::1", "feff::1"], Insiders);
        check(&["2001:db8::1", "3fff::1", "3fff:fff::1", "2001:2::1", "2001:10::1", "2001:1ff::1"], Insiders);
        check(&["100::1", "5f00::1", "4000::1", "1fff::1", "fe00::1"], Insiders);
    }

    #[test]
    fn metadata_and_what_is_no_host_is_closed_to_everybody() {
        check(&["0.0.0.0", "0.0.0.1", "0.255.255.255", "::"], Nobody);
        check(&["169.254.0.0", "169.254.169.254", "169.254.170.2", "169.254.255.255"], Nobody);
        check(&["100.100.100.200", "168.63.129.16", "192.0.0.192"], Nobody);
        check(&["224.0.0.1", "239.255.255.255", "240.0.0.0", "255.255.255.254", "255.255.255.255"], Nobody);
        check(&["fe80::1", "febf::1", "fe80::a9fe:a9fe", "ff02::1", "ff0e::1", "ffff::"], Nobody);
        check(&["fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42"], Nobody);
    }

    /// The ways of writing an IPv4 address as an IPv6 address that count as that address itself.
    fn carriers(v4: [u8; 4]) -> Vec<String> {
        let [a, b, c, d] = v4;
        let dotted = Ipv4Addr::from(v4);
        vec![
            format!("::ffff:{dotted}"),
            format!("::{dotted}"),
            format!("64:ff9b::{dotted}"),
            format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1"),
            format!("2001:0:{a:02x}{b:02x}:{c:02x}{d:02x}:0:0:f7f7:f7f7"),
            format!("2001:0:0808:0808:8000:63bf:{:02x}{:02x}:{:02x}{:02x}", !a, !b, !c, !d),
            format!("2606:4700::5efe:{dotted}"),
            format!("2606:4700::200:5efe:{dotted}"),
        ]
    }

    #[test]
    fn an_ipv4_address_within_ipv6_is_judged_like_itself() {
        for (v4, open) in [
            ([8, 8, 8, 8], Anyone),
            ([127, 0, 0, 1], Insiders),
            ([10, 1, 2, 3], Insiders),
            ([100, 64, 0, 1], Insiders),
            ([169, 254, 169, 254], Nobody),
            ([100, 100, 100, 200], Nobody),
            ([0, 0, 0, 2], Nobody),
            ([255, 255, 255, 255], Nobody),
        ] {
            for carrier in carriers(v4) {
                check(&[&carrier], open);
            }
        }
    }

    #[test]
    fn a_private_prefix_stays_private_whatever_it_carries() {
        check(&["fd00::5efe:8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b:1::8.8.8.8", "64:ff9b:1::10.0.0.1"], Insiders);
        check(&["64:ff9b:1:fffe::8.8.8.8", "64:ff9b:2::8.8.8.8", "64:ff9b:0:1::8.8.8.8"], Insiders);
        check(&["fe80::5efe:8.8.8.8", "fd00::5efe:169.254.169.254", "::ffff:0:169.254.169.254"], Nobody);
    }

    #[test]
    fn metadata_is_found_wherever_local_nat64_puts_it() {
        // The places of RFC 6052 2.2 for prefixes of 48, 56, 64 and 96 bits.
        check(&["64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:a9:fe:a9fe::", "64:ff9b:1:0:a9:fea9:fe00::"], Nobody);
        check(&["64:ff9b:1::169.254.169.254", "64:ff9b:1:7::100.100.100.200"], Nobody);
    }

    #[test]
    fn a_refusal_says_what_the_address_is() {
        for (address, text) in [
            ("169.254.169.254", "address `169.254.169.254` is not allowed here: link-local"),
            ("::ffff:127.0.0.1", "address `::ffff:127.0.0.1` is not allowed here: loopback"),
            ("2002:a00:1::", "address `2002:a00:1::` is not allowed here: private network"),
        ] {
            let refused = vet(address.parse().unwrap(), Reach::Public).unwrap_err();
            assert_eq!(refused.to_string(), text);
        }
    }
}
