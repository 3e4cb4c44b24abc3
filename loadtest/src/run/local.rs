//! Which of this machine's addresses media comes from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::http::uri::Authority;

/// Local addresses of the media sockets: one, and where there is one of the other family (IPv4, IPv6), that for servers that
/// offer media there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    first: IpAddr,
    other: Option<IpAddr>,
}

impl Local {
    /// What the operator asked for.
    ///
    /// # Errors
    /// None, more than one of a family, or one that is no address of this machine.
    pub fn asked(addresses: &[IpAddr]) -> anyhow::Result<Self> {
        let local = match *addresses {
            [first] => Self::from(first),
            [first, other] if first.is_ipv4() != other.is_ipv4() => Self { first, other: Some(other) },
            _ => bail!("--local takes one address of IPv4, one of IPv6, or one of each"),
        };
        for address in addresses {
            ensure!(!address.is_unspecified(), "--local {address} is no address that a server could send to");
            UdpSocket::bind((*address, 0)).with_context(|| {
                format!("--local {address} is not an address of this machine (see `ip address`)")
            })?;
        }
        Ok(local)
    }

    /// The one that sockets begin with.
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// The one for servers that offer the other family.
    pub const fn other(self) -> Option<IpAddr> {
        self.other
    }

    pub(crate) fn is_loopback(self) -> bool {
        self.first.is_loopback()
    }
}

impl From<IpAddr> for Local {
    fn from(first: IpAddr) -> Self {
        Self { first, other: None }
    }
}

impl From<Ipv4Addr> for Local {
    fn from(first: Ipv4Addr) -> Self {
        IpAddr::from(first).into()
    }
}

/// The addresses from which the system sends to a server, by the server's `ws://` or `wss://` address: IPv4 first, where the
/// server has both.
///
/// # Errors
/// No such address, a name that DNS does not know, or no route.
pub fn local_towards(url: &str) -> anyhow::Result<Local> {
    let uri: Uri = url.parse().ok().filter(|uri: &Uri| uri.host().is_some()).with_context(|| {
        format!("--url {url} is no address: write ws://HOST:PORT or wss://HOST, an IPv6 address in brackets")
    })?;
    let host = uri.host().unwrap_or_default();
    let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
    ensure!(
        uri.port_u16().is_some() || authority.ends_with(host),
        "the port in --url {url} is none of 1 to 65535"
    );
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let usual = if uri.scheme_str() == Some("ws") { 80 } else { 443 };
    let port = uri.port_u16().unwrap_or(usual);
    let addresses = (name, port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = addresses
        .with_context(|| format!("{name} is not known to DNS: is the name in --url right, and DNS up?"))?
        .collect();
    let mut why = None;
    let mut towards = |family: fn(&SocketAddr) -> bool| {
        let to = addresses.iter().find(|address| family(address))?;
        source(*to).map_err(|error| why = Some(error)).ok()
    };
    let (v4, v6) = (towards(SocketAddr::is_ipv4), towards(SocketAddr::is_ipv6));
    match (v4, v6, why) {
        (Some(first), other, _) | (None, other @ Some(first), _) => {
            Ok(Local { first, other: other.filter(|other| *other != first) })
        }
        (None, None, Some(error)) => Err(error).with_context(|| {
            format!("there is no route to {name}: is the address right, and this machine's network up?")
        }),
        (None, None, None) => bail!("{name} has no address"),
    }
}

/// The address from which the system sends to another.
fn source(to: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Connecting a UDP socket sends nothing.
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_towards_a_server_is_of_its_family() {
        let v4: IpAddr = Ipv4Addr::LOCALHOST.into();
        let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
        let first = |url: &str| local_towards(url).unwrap().first();
        assert_eq!(first("ws://127.0.0.1:7880"), v4);
        assert_eq!(first("wss://127.0.0.1/"), v4);
        assert_eq!(first("ws://[::1]:7880"), v6);
        assert_eq!(first("wss://[::1]"), v6);
        assert_eq!(local_towards("ws://[::1]").unwrap().other(), None);
        for (url, why) in [
            ("ws://::1:7880", "in brackets"),
            ("ws://", "no address"),
            ("ws://127.0.0.1:99999", "the port in --url ws://127.0.0.1:99999 is none of 1 to 65535"),
            ("ws://127.0.0.1:", "is none of 1 to 65535"),
            ("ws://no-such-host.invalid", "is not known to DNS"),
        ] {
            let error = format!("{:#}", local_towards(url).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn one_address_of_each_family_may_be_asked_for() {
        let [v4, v6]: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        assert_eq!(Local::asked(&[v6]).unwrap(), v6.into());
        assert_eq!(Local::asked(&[v6, v4]).unwrap(), Local { first: v6, other: Some(v4) });
        for (addresses, why) in [
            (&[][..], "one of each"),
            (&[v4, v4], "one of each"),
            (&["192.0.2.1".parse().unwrap()], "is not an address of this machine"),
            (&["0.0.0.0".parse().unwrap()], "no address that a server could send to"),
        ] {
            let error = format!("{:#}", Local::asked(addresses).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }
}
