//! The names that a server may be asked by.
//!
//! A page of another site can have its own name lead to this machine, and then ask a server here as if it were that site. The name
//! that it asks by gives it away.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::HOST;
use axum::http::{HeaderMap, StatusCode, Uri};

use crate::refusal::Refusal;

/// Which names are answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hosts {
    Any,
    /// These, and this machine's own addresses.
    Named(Vec<String>),
}

impl Hosts {
    /// Those of a server that listens at `address`.
    pub(crate) fn of(address: Option<SocketAddr>, names: &[String]) -> Self {
        let is_own = address.is_some_and(|address| address.ip().is_loopback());
        match is_own || !names.is_empty() {
            true => Self::Named(names.iter().map(|name| plain(name).to_owned()).collect()),
            false => Self::Any,
        }
    }

    /// Refuses a request that asks by another name.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let Self::Named(names) = self else { return Ok(()) };
        let header = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
        let Some(host) = uri.host().or(header.map(without_port)) else { return Ok(()) };
        let host = plain(host);
        let is_own = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            || host.eq_ignore_ascii_case("localhost");
        match is_own || names.iter().any(|name| host.eq_ignore_ascii_case(name)) {
            true => Ok(()),
            false => Err(Refusal::new(
                StatusCode::MISDIRECTED_REQUEST,
                format!(
                    "the server has no name {host:?}: start it with --host for each name that it has"
                ),
            )),
        }
    }
}

/// The host of `host:port`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// A name without what it may have around it: the brackets of an address, the point of a whole name.
fn plain(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(host).trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(hosts: &Hosts, host: &str) -> bool {
        let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
        hosts.check(&Uri::from_static("/"), &headers).is_ok()
    }

    #[test]
    fn this_machine_is_asked_by_its_own_names_alone() {
        let own = Hosts::of(Some("127.0.0.1:80".parse().unwrap()), &["Models.Example".to_owned()]);
        let taken = [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:9",
            "[::1]:80",
            "127.3.2.1",
            "models.example.:1",
        ];
        for host in taken {
            assert!(is_taken(&own, host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:80", "10.0.0.1", "localhost.evil.example", "", "[::2]"]
        {
            assert!(!is_taken(&own, host), "{host}");
        }
        let uri = "http://evil.example/".parse().unwrap();
        assert!(own.check(&uri, &HeaderMap::new()).is_err());
        assert!(own.check(&Uri::from_static("/"), &HeaderMap::new()).is_ok(), "HTTP/1.0");
        assert_eq!(Hosts::of(Some("0.0.0.0:80".parse().unwrap()), &[]), Hosts::Any);
        let named = Hosts::of(Some("0.0.0.0:80".parse().unwrap()), &["a.example".to_owned()]);
        assert!(is_taken(&named, "a.example") && !is_taken(&named, "10.0.0.1"));
    }
}
