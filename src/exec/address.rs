//! Which addresses may be reached: the public internet, and what the configuration opens. Pure.
//!
//! A spelling is never judged, only the address it stands for: whoever writes `http://0x7f.1/` or a name that resolves to
//! `::ffff:169.254.169.254` is judged by what the packet's destination would be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(head: [u16; 4], bits: u8) -> Ipv6Net {
    let [a, b, c, d] = head;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), bits)
}

/// What is not the public internet (IANA special-purpose registry, RFC 6890 and later), and where clouds keep metadata.
const CLOSED_V4: [(Ipv4Net, &str); 18] = [
    (v4(0, 0, 0, 0, 8), "this network"),
    (v4(10, 0, 0, 0, 8), "a private network"),
    (v4(100, 64, 0, 0, 10), "a carrier's network"),
    (v4(127, 0, 0, 0, 8), "this machine"),
    (v4(168, 63, 129, 16, 32), "a cloud's metadata"),
    (v4(169, 254, 0, 0, 16), "link-local, where clouds keep metadata"),
    (v4(172, 16, 0, 0, 12), "a private network"),
    (v4(192, 0, 0, 0, 24), "protocol assignments"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 31, 196, 0, 24), "special purpose"),
    (v4(192, 52, 193, 0, 24), "special purpose"),
    (v4(192, 88, 99, 0, 24), "a relay of another protocol"),
    (v4(192, 168, 0, 0, 16), "a private network"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// Of the global unicast space, what is none; everything outside `2000::/3` is closed by itself.
const CLOSED_V6: [(Ipv6Net, &str); 5] = [
    (v6([0x2001, 0, 0, 0], 23), "protocol assignments and tunnels"),
    (v6([0x2001, 0xdb8, 0, 0], 32), "documentation"),
    (v6([0x2002, 0, 0, 0], 16), "a tunnel (6to4)"),
    (v6([0x3fff, 0, 0, 0], 20), "documentation"),
    (v6([0x2620, 0x4f, 0x8000, 0], 48), "special purpose"),
];

const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0], 3);
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0], 96);

/// The address that a packet to `address` ends at, as far as can be told: IPv4 in its IPv6 forms is IPv4.
pub(super) fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    if let Some(four) = six.to_ipv4_mapped() {
        return four.into();
    }
    if NAT64.contains(&six) {
        let [.., a, b, c, d] = six.octets();
        return Ipv4Addr::new(a, b, c, d).into();
    }
    address
}

/// Why an address is closed to calls, unless the configuration opens it; `None` for the public internet.
pub(super) fn closed(address: IpAddr) -> Option<&'static str> {
    match plain(address) {
        IpAddr::V4(four) => CLOSED_V4.iter().find(|(net, _)| net.contains(&four)).map(|(_, why)| *why),
        IpAddr::V6(six) if six.is_loopback() => Some("this machine"),
        IpAddr::V6(six) if !GLOBAL_V6.contains(&six) => Some("not a public address"),
        IpAddr::V6(six) => CLOSED_V6.iter().find(|(net, _)| net.contains(&six)).map(|(_, why)| *why),
    }
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Whom {
    Net(IpNet),
    Name(String),
    /// Names that end so, with the dot.
    Under(String),
}

/// One entry of `http.allow` or `http.only`: `10.0.0.0/8`, `127.0.0.1:8080`, `[::1]:80`, `api.example.com`,
/// `*.internal:443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    whom: Whom,
    port: Option<u16>,
}

impl Rule {
    /// Reads a rule; the error says what would do.
    ///
    /// # Errors
    /// It is none of the forms above.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is no rule: ADDRESS, NETWORK/BITS, NAME or *.NAME, each with or without :PORT")
        };
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                (host, port.strip_prefix(':'))
            }
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(|port| port.parse::<u16>().map_err(|_| wrong())).transpose()?;
        let net = host.parse::<IpNet>().or_else(|_| host.parse::<IpAddr>().map(IpNet::from));
        let whom = match net {
            Ok(net) => Whom::Net(net.trunc()),
            Err(_) => {
                let (name, under) = host.strip_prefix("*.").map_or((host, false), |name| (name, true));
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                // `10.0.0/8`, `1.2.3`: meant to be an address.
                let numeric = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                if name.is_empty() || numeric || !name.bytes().all(fits) {
                    return Err(wrong());
                }
                let name = name.to_ascii_lowercase();
                if under { Whom::Under(format!(".{name}")) } else { Whom::Name(name) }
            }
        };
        Ok(Self { whom, port })
    }

    /// May this be about a call to `host`, whatever its name stands for?
    pub(super) fn may_name(&self, host: &str, port: u16) -> bool {
        let whom = match &self.whom {
            Whom::Net(_) => true,
            Whom::Name(name) => host.eq_ignore_ascii_case(name),
            Whom::Under(end) => host.to_ascii_lowercase().ends_with(end.as_str()),
        };
        whom && self.port.is_none_or(|own| own == port)
    }

    /// Is this about a call to `host` at `address`?
    pub(super) fn covers(&self, host: &str, address: IpAddr, port: u16) -> bool {
        let whom = match &self.whom {
            Whom::Net(net) => net.contains(&plain(address)) || net.contains(&address),
            Whom::Name(name) => host.eq_ignore_ascii_case(name),
            Whom::Under(end) => host.to_ascii_lowercase().ends_with(end.as_str()),
        };
        whom && self.port.is_none_or(|own| own == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_public_internet_is_open() {
        for open in [
            "1.1.1.1",
            "8.8.8.8",
            "93.184.216.34",
            "172.32.0.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(closed(of(open)), None, "{open}");
        }
        for shut in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2001::1",
            "100::1",
            "3fff::1",
        ] {
            assert!(closed(of(shut)).is_some(), "{shut}");
        }
    }

    #[test]
    fn rules_open_what_they_name_and_nothing_else() {
        let covers = |rule: &str, host: &str, address: &str, port| {
            Rule::parse(rule).unwrap().covers(host, of(address), port)
        };
        assert!(covers("127.0.0.1:8080", "127.0.0.1", "127.0.0.1", 8080));
        assert!(!covers("127.0.0.1:8080", "127.0.0.1", "127.0.0.1", 8081));
        assert!(covers("127.0.0.1", "x", "::ffff:127.0.0.1", 1), "in its other forms too");
        assert!(covers("10.0.0.0/8", "db", "10.9.8.7", 5432));
        assert!(covers("[::1]:80", "localhost", "::1", 80));
        assert!(covers("fd00::/8", "x", "fd12::1", 9));
        assert!(covers("Api.Example.com:443", "api.example.com", "10.0.0.1", 443));
        assert!(!covers("api.example.com", "evil-api.example.com", "10.0.0.1", 443));
        assert!(covers("*.internal", "a.b.internal", "10.0.0.1", 80));
        assert!(!covers("*.internal", "internal", "10.0.0.1", 80));
        for wrong in
            ["", "10.0.0/8", "1.2.3", "a b", "host:port", "http://x", "[::1", "127.0.0.1:99999", "*."]
        {
            assert!(Rule::parse(wrong).unwrap_err().contains("is no rule"), "{wrong}");
        }
    }
}
