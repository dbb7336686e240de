//! Where the launcher listens, and by which addresses workers reach it.
//!
//! The launcher cannot know which of its networks a worker's host shares with it, nor whether its name is
//! known there. So it offers all of them, and a worker tries them in turn.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, listen, socket_with};

use crate::LaunchError;

/// Connections that may wait to be taken: all workers may knock at once.
const WAITING: i32 = 4096;
/// Addresses offered at most; a worker waits seconds for each that leads nowhere.
const MOST: usize = 16;

/// An address that a person gives for the control connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlAddress {
    /// Name or address of the launcher's host, as workers know it.
    pub host: String,
    /// Port to listen at; `None`: any.
    pub port: Option<u16>,
}

/// Addresses as a person types them: `HOST` or `HOST:PORT`, several with commas between them; an IPv6 address
/// with a port stands in brackets.
///
/// # Errors
///
/// [`LaunchError::ControlAddress`].
pub fn parse_control_addresses(text: &str) -> Result<Vec<ControlAddress>, LaunchError> {
    let wrong = |word: &str| LaunchError::ControlAddress { found: word.to_owned() };
    let mut addresses = Vec::new();
    for word in text.split(',').map(str::trim) {
        let (host, port) = match (word.strip_prefix('['), word.parse::<Ipv6Addr>()) {
            (_, Ok(_)) => (word, None),
            (Some(rest), _) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| wrong(word))?;
                host.parse::<Ipv6Addr>().map_err(|_| wrong(word))?;
                let port = port.strip_prefix(':').or(if port.is_empty() { None } else { Some("") });
                (host, port)
            }
            (None, _) => {
                word.split_once(':').map_or((word, None), |(host, port)| (host, Some(port)))
            }
        };
        let port = port.map(|port| port.parse::<u16>().ok().filter(|port| *port > 0));
        let is_host = |letter: char| letter.is_ascii_alphanumeric() || ".-_:".contains(letter);
        if host.is_empty() || !host.chars().all(is_host) || port == Some(None) {
            return Err(wrong(word));
        }
        addresses.push(ControlAddress { host: host.to_owned(), port: port.flatten() });
    }
    Ok(addresses)
}

/// Where workers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// On this host alone.
    Here,
    /// Elsewhere too; they reach this host by what a person named, or else by any of its addresses.
    Everywhere(Vec<ControlAddress>),
}

/// Listens, and says at which addresses, `HOST:PORT` with commas between them.
pub(crate) fn bind(reach: &Reach) -> io::Result<(Vec<TcpListener>, String)> {
    let named = match reach {
        Reach::Here => {
            let loopback = listen_at(Ipv4Addr::LOCALHOST.into(), 0)
                .or_else(|_| listen_at(Ipv6Addr::LOCALHOST.into(), 0))?;
            let address = loopback.local_addr()?.to_string();
            return Ok((vec![loopback], address));
        }
        Reach::Everywhere(named) => named,
    };
    let mut sockets: Vec<(Option<u16>, TcpListener)> = Vec::new();
    let mut port_of = |asked: Option<u16>| -> io::Result<u16> {
        if let Some((_, socket)) = sockets.iter().find(|(known, _)| *known == asked) {
            return Ok(socket.local_addr()?.port());
        }
        let wanted = asked.unwrap_or(0);
        // One socket for both protocols, where the system has both.
        let socket = listen_at(Ipv6Addr::UNSPECIFIED.into(), wanted)
            .or_else(|_| listen_at(Ipv4Addr::UNSPECIFIED.into(), wanted))?;
        let port = socket.local_addr()?.port();
        sockets.push((asked, socket));
        Ok(port)
    };
    let mut offered = Vec::new();
    if named.is_empty() {
        let port = port_of(None)?;
        let addresses = ordered(interfaces()).into_iter().take(MOST);
        offered.extend(addresses.map(|address| SocketAddr::new(address, port).to_string()));
        offered.push(format!("{}:{port}", host_name()));
    }
    for ControlAddress { host, port } in named {
        let port = port_of(*port)?;
        offered.push(match host.parse::<Ipv6Addr>() {
            Ok(host) => format!("[{host}]:{port}"),
            Err(_) => format!("{host}:{port}"),
        });
    }
    Ok((sockets.into_iter().map(|(_, socket)| socket).collect(), offered.join(",")))
}

/// Listens at one address; at that for any IPv6 address, for IPv4 too.
fn listen_at(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, !address.is_unspecified())?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(address, port))?;
    listen(&socket, WAITING)?;
    Ok(socket.into())
}

/// An address of this host.
#[derive(Debug, Clone)]
struct Interface {
    name: String,
    address: IpAddr,
}

/// The addresses of all interfaces that are up, but those that reach no further than this host.
fn interfaces() -> Vec<Interface> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    let up = all.filter(|one| {
        one.flags.contains(InterfaceFlags::IFF_UP)
            && !one.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    let found = up.filter_map(|one| {
        let address = one.address?;
        let of_four = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let of_six = || address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        Some(Interface { name: one.interface_name, address: of_four.or_else(of_six)? })
    });
    found.collect()
}

/// Interfaces between this host and its own containers and virtual machines, whose addresses other hosts have too.
const OF_CONTAINERS: [&str; 11] = [
    "docker", "br-", "veth", "virbr", "vnet", "cni", "flannel", "cali", "lxc", "podman", "nerdctl",
];

/// The addresses in the order in which they are worth trying: IPv4 before IPv6, then those of containers' bridges,
/// and link-local ones last.
fn ordered(found: Vec<Interface>) -> Vec<IpAddr> {
    let worth = |one: &Interface| {
        let is_link_local = match one.address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(_) => false,
        };
        let is_of_containers = OF_CONTAINERS.iter().any(|start| one.name.starts_with(start));
        (is_link_local, is_of_containers, one.address.is_ipv6())
    };
    let mut offered: Vec<Interface> = found
        .into_iter()
        .filter(|one| match one.address {
            // On another host this means the link of that host.
            IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
            IpAddr::V4(address) => !address.is_loopback(),
        })
        // The services of a Kubernetes cluster, which every node has.
        .filter(|one| !one.name.starts_with("kube-ipvs"))
        .collect();
    offered.sort_by_key(worth);
    offered.into_iter().map(|one| one.address).collect()
}

/// Name of this host.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_spelling() {
        let parsed =
            parse_control_addresses("head, 10.0.0.1:4000,fd00::1,[fd00::2]:5,[::3]").unwrap();
        let parsed: Vec<_> = parsed.iter().map(|one| (one.host.as_str(), one.port)).collect();
        let expected = [
            ("head", None),
            ("10.0.0.1", Some(4000)),
            ("fd00::1", None),
            ("fd00::2", Some(5)),
            ("::3", None),
        ];
        assert_eq!(parsed, expected);
        for text in ["", "a,,b", "a:", "a:0", "a:70000", "[fd00::1", "[a]:1", "a b", "[::1]x", ":1"]
        {
            let problem = parse_control_addresses(text).unwrap_err().to_string();
            assert!(problem.contains("HOST or HOST:PORT"), "{text}: {problem}");
        }
    }

    #[test]
    fn what_leads_nowhere_from_most_hosts_is_offered_last() {
        let found = [
            ("docker0", "172.17.0.1"),
            ("eth1", "169.254.3.4"),
            ("eth0", "fe80::1"),
            ("eth0", "fd00::1"),
            ("lo", "127.0.0.2"),
            ("kube-ipvs0", "10.96.0.1"),
            ("eth0", "10.0.0.1"),
            ("ib0", "192.168.1.1"),
        ];
        let interface = |(name, address): (&str, &str)| Interface {
            name: name.into(),
            address: address.parse().unwrap(),
        };
        let offered = ordered(found.into_iter().map(interface).collect());
        let offered: Vec<String> = offered.iter().map(IpAddr::to_string).collect();
        assert_eq!(offered, ["10.0.0.1", "192.168.1.1", "fd00::1", "172.17.0.1", "169.254.3.4"]);
    }

    #[test]
    fn workers_of_this_host_alone_need_the_loopback_alone() {
        let (sockets, addresses) = bind(&Reach::Here).unwrap();
        let port = sockets[0].local_addr().unwrap().port();
        assert_eq!((sockets.len(), addresses), (1, format!("127.0.0.1:{port}")));
    }

    #[test]
    fn others_reach_every_address_and_those_that_a_person_names() {
        let (sockets, addresses) = bind(&Reach::Everywhere(Vec::new())).unwrap();
        assert_eq!(sockets.len(), 1);
        let port = sockets[0].local_addr().unwrap().port();
        assert!(addresses.ends_with(&format!("{}:{port}", host_name())), "{addresses}");
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();

        let free = sockets[0].local_addr().unwrap().port();
        drop(sockets);
        let named = parse_control_addresses(&format!("head:{free},other,[::1]:{free}")).unwrap();
        let (sockets, addresses) = bind(&Reach::Everywhere(named)).unwrap();
        let ports: Vec<u16> =
            sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert_eq!(ports[0], free);
        assert_eq!(addresses, format!("head:{free},other:{},[::1]:{free}", ports[1]));
    }
}
