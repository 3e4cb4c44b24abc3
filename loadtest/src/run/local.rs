//! Which of this machine's addresses media comes from.

use std::net::Ipv4Addr;

use anyhow::{Context, bail};

/// The address from which the system sends to a server, by the server's `ws://` or `wss://` address.
///
/// # Errors
/// A name that DNS does not know, or no route.
pub fn local_towards(url: &str) -> anyhow::Result<Ipv4Addr> {
    use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:443") };
    let addresses = with_port.to_socket_addrs().with_context(|| format!("{host} is not known to DNS"))?;
    let Some(address) = addresses.into_iter().find(|a| a.is_ipv4()) else {
        bail!("{host} has no IPv4 address")
    };
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Connecting a UDP socket sends nothing.
    socket.connect(address).with_context(|| format!("there is no route to {host}"))?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => bail!("the local address towards {host} is not IPv4"),
    }
}
