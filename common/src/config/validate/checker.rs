//! The checker: turns single raw values into validated ones, and collects what is wrong with them.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Component, PathBuf};

use crate::config::field_path::FieldPath;
use crate::config::raw::Number;
use crate::flow::{Address, Endpoint};

/// Longest name for people, bytes.
const NAME_BYTES_MAX: usize = 63;
/// Longest name of a network interface, bytes: Linux's `IFNAMSIZ` without the terminating zero.
const INTERFACE_BYTES_MAX: usize = 15;

/// Something that is wrong, before it is placed in the text.
pub(super) struct Complaint {
    pub path: FieldPath,
    pub found: String,
    pub expected: String,
    pub remedy: String,
}

/// What an address is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Local,
    Vip,
    RealServer,
    OwnSync,
    PeerSync,
}

/// Collects complaints, and what must be compared across fields. A value that is wrong is replaced by some value in range,
/// which nobody sees: with a complaint there is no configuration.
#[derive(Default)]
pub(super) struct Checker {
    pub complaints: Vec<Complaint>,
    /// Every well-formed address, where it stands and what for.
    pub addresses: Vec<(Address, FieldPath, Role)>,
    /// Every lcore id in range and where it stands.
    pub lcores: Vec<(u16, FieldPath)>,
    /// Every address that a process listens on over TCP, and where it stands.
    pub listeners: Vec<(SocketAddr, FieldPath)>,
}

impl Checker {
    pub(super) fn complain(
        &mut self,
        path: &FieldPath,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.complaints.push(Complaint {
            path: path.clone(),
            found: found.into(),
            expected: expected.into(),
            remedy: remedy.into(),
        });
    }

    /// A number within `range`, which lies within `T`.
    pub(super) fn number<T>(&mut self, path: &FieldPath, value: Number, range: RangeInclusive<Number>) -> T
    where
        T: TryFrom<Number> + Default,
    {
        if !range.contains(&value) {
            let remedy = if value < *range.start() { "raise it" } else { "lower it" };
            self.complain(path, value.to_string(), format!("{}..={}", range.start(), range.end()), remedy);
        }
        T::try_from(value.clamp(*range.start(), *range.end())).unwrap_or_default()
    }

    /// A power of two within `range`.
    pub(super) fn power_of_two<T>(
        &mut self,
        path: &FieldPath,
        value: Number,
        range: RangeInclusive<Number>,
    ) -> T
    where
        T: TryFrom<Number> + Default,
    {
        if range.contains(&value) && value & (value - 1) != 0 {
            let above = (value as u64).next_power_of_two();
            self.complain(
                path,
                value.to_string(),
                "a power of two",
                format!("write {} or {above}", above / 2),
            );
        }
        self.number(path, value, range)
    }

    pub(super) fn lcore(&mut self, path: &FieldPath, value: Number) -> u16 {
        let before = self.complaints.len();
        let lcore = self.number(path, value, 0..=127);
        if self.complaints.len() == before {
            self.lcores.push((lcore, path.clone()));
        }
        lcore
    }

    /// A unicast address, noted with its role.
    pub(super) fn address(&mut self, path: &FieldPath, text: &str, role: Role) -> IpAddr {
        let address = match text.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) => {
                let expected = "an IPv4 or IPv6 address, for example \"192.0.2.1\" or \"2001:db8::1\"";
                self.complain(
                    path,
                    format!("\"{text}\""),
                    expected,
                    "write an address, without a prefix length or port",
                );
                return IpAddr::from([0; 4]);
            }
        };
        if self.usable(path, address) {
            self.addresses.push((address.into(), path.clone(), role));
        }
        address
    }

    /// A unicast address with a port, noted with its role.
    pub(super) fn endpoint(&mut self, path: &FieldPath, text: &str, role: Role) -> Endpoint {
        let socket = match text.parse::<SocketAddr>() {
            Ok(SocketAddr::V6(v6)) if v6.scope_id() != 0 => {
                self.complain(path, format!("\"{text}\""), "an address without a zone", "take `%…` away");
                return Endpoint::default();
            }
            Ok(socket) => socket,
            Err(_) => {
                let expected = "address and port, for example \"192.0.2.1:80\" or \"[2001:db8::1]:80\"";
                self.complain(
                    path,
                    format!("\"{text}\""),
                    expected,
                    "write both; an IPv6 address goes in brackets",
                );
                return Endpoint::default();
            }
        };
        if socket.port() == 0 {
            self.complain(path, "port 0", "a port 1..=65535", "write the service's port");
        }
        if self.usable(path, socket.ip()) {
            self.addresses.push((socket.ip().into(), path.clone(), role));
        }
        socket.into()
    }

    /// An address and a port of the kernel's to listen on.
    pub(super) fn listener(&mut self, path: &FieldPath, text: &str) -> SocketAddr {
        match text.parse::<SocketAddr>() {
            Ok(socket) if socket.port() != 0 => {
                self.listeners.push((socket, path.clone()));
                socket
            }
            _ => {
                let expected = "address and port, for example \"127.0.0.1:9909\" or \"[::1]:9909\"";
                self.complain(path, format!("\"{text}\""), expected, "write both, the port 1..=65535");
                SocketAddr::from(([0; 4], 0))
            }
        }
    }

    /// Whether traffic can be sent to and from an address through a router.
    fn usable(&mut self, path: &FieldPath, address: IpAddr) -> bool {
        let kind = match address {
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => {
                    let remedy = format!("write it as {v4}");
                    self.complain(path, format!("the IPv4-mapped address {v6}"), "a plain address", remedy);
                    return false;
                }
                None if v6.is_unicast_link_local() => Some("link-local"),
                None => None,
            },
            IpAddr::V4(v4) => (v4.is_broadcast() || v4.octets()[0] == 0).then_some("special"),
        };
        let kind = match kind {
            None if address.is_unspecified() => Some("unspecified"),
            None if address.is_multicast() => Some("multicast"),
            None if address.is_loopback() => Some("loopback"),
            kind => kind,
        };
        if let Some(kind) = kind {
            self.complain(
                path,
                format!("the {kind} address {address}"),
                "a routable unicast address",
                "write another",
            );
        }
        kind.is_none()
    }

    /// A link-layer address, `02:ba:70:00:00:01`: unicast, not all zeros.
    pub(super) fn mac(&mut self, path: &FieldPath, text: &str) -> [u8; 6] {
        let digits = |part: &str| {
            let well_formed = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            well_formed.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(digits).collect();
        match bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()) {
            Some(mac) if mac[0] & 1 == 0 && mac != [0; 6] => mac,
            Some(_) => {
                let remedy = "choose one whose first byte is even, for example 02:…";
                self.complain(path, format!("\"{text}\""), "a unicast link-layer address", remedy);
                [0; 6]
            }
            None => {
                let expected = "six bytes in hex, for example \"02:ba:70:00:00:01\"";
                self.complain(path, format!("\"{text}\""), expected, "write the address so");
                [0; 6]
            }
        }
    }

    /// A name for people: not empty, of one line.
    pub(super) fn name(&mut self, path: &FieldPath, text: &str) -> String {
        if text.is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
            let expected = format!("1..={NAME_BYTES_MAX} bytes without control characters");
            self.complain(path, format!("{text:?} ({} bytes)", text.len()), expected, "choose another name");
        }
        text.to_owned()
    }

    /// The name of a network interface.
    pub(super) fn interface(&mut self, path: &FieldPath, text: &str) -> String {
        let well_formed = !text.is_empty()
            && text.len() <= INTERFACE_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte))
            && ![".", ".."].contains(&text);
        if !well_formed {
            let expected =
                format!("an interface name of 1..={INTERFACE_BYTES_MAX} bytes, no blank, '/', ':' or '%'");
            self.complain(path, format!("{text:?} ({} bytes)", text.len()), expected, "choose another name");
        }
        text.to_owned()
    }

    /// A name that becomes part of file names: letters, digits, `-` and `_`.
    pub(super) fn file_name(&mut self, path: &FieldPath, text: &str) -> String {
        let well_formed = (1..=INTERFACE_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !well_formed {
            let expected = format!("1..={INTERFACE_BYTES_MAX} letters, digits, '-' or '_'");
            self.complain(path, format!("{text:?}"), expected, "choose another name");
        }
        text.to_owned()
    }

    /// An absolute path of a directory other than `/`, without `.` and `..`.
    pub(super) fn directory(&mut self, path: &FieldPath, text: &str) -> PathBuf {
        self.absolute(path, text, "a directory", "/run/baton")
    }

    /// An absolute path of a file, without `.` and `..`.
    pub(super) fn file(&mut self, path: &FieldPath, text: &str) -> PathBuf {
        self.absolute(path, text, "a file", "/etc/baton/sync.key")
    }

    fn absolute(&mut self, path: &FieldPath, text: &str, noun: &str, example: &str) -> PathBuf {
        let absolute = PathBuf::from(text);
        let mut components = absolute.components();
        let plain = components.next() == Some(Component::RootDir)
            && components.clone().next().is_some()
            && components.all(|component| matches!(component, Component::Normal(_)));
        if !plain {
            let expected = format!("an absolute path of {noun} below /, without `..`");
            let remedy = format!("write the whole path, for example \"{example}\"");
            self.complain(path, format!("{text:?}"), expected, remedy);
        }
        absolute.components().collect()
    }

    /// At most so many elements.
    pub(super) fn count(&mut self, path: &FieldPath, found: usize, range: RangeInclusive<usize>, noun: &str) {
        if found < *range.start() {
            self.complain(path, format!("{found} {noun}"), format!("at least {}", range.start()), "add one");
        } else if found > *range.end() {
            let remedy = "take some away";
            self.complain(path, format!("{found} {noun}"), format!("at most {}", range.end()), remedy);
        }
    }
}
