//! Why there is no signalling, or no more, in words that name the cause and what to do.
//!
//! They do not differ from bot to bot, so that they can be counted.

use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use rustls::{AlertDescription, CertificateError};
use tokio_tungstenite::tungstenite::error::{ProtocolError, TlsError, UrlError};
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::{self, Error};

/// Tokens begin to hold so long before they are made; a server's clock that is further behind refuses them.
pub(crate) const CLOCK_SPARE: Duration = Duration::from_secs(30);

/// Why there is no signalling, or no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignalError {
    /// The token is not accepted; the clocks differ by so much.
    #[error("{}", token_refused(*ahead))]
    Token {
        /// Seconds that the server's clock is ahead of ours, where that is known and much.
        ahead: Option<i64>,
    },
    /// The service refused with an HTTP status.
    #[error("{}", refused(*.0))]
    Refused(u16),
    /// The connection could not be made or broke.
    #[error("{0}")]
    Connection(String),
    /// The connection broke while it was in use.
    #[error("the signalling connection was lost: did the server stop, or something in between?")]
    Lost,
    /// The service closed the connection.
    #[error("the server closed the signalling connection")]
    Closed,
    /// The service sent something that is not a signal message.
    #[error("the server sent something that is no signal message: does it speak LiveKit's protocol?")]
    Protocol(#[from] prost::DecodeError),
}

impl SignalError {
    /// Of a connection that has been in use: what would explain that it cannot be made does not explain its end.
    pub(super) fn later(error: Error) -> Self {
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => SignalError::Closed,
            Error::Io(_) | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => SignalError::Lost,
            other => SignalError::from(other),
        }
    }
}

impl From<tungstenite::Error> for SignalError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            Error::Http(response) => match response.status().as_u16() {
                401 => SignalError::Token { ahead: clock_ahead(response.headers(), SystemTime::now()) },
                status => SignalError::Refused(status),
            },
            Error::ConnectionClosed | Error::AlreadyClosed => SignalError::Closed,
            other => SignalError::Connection(connection(&other)),
        }
    }
}

fn token_refused(ahead: Option<i64>) -> String {
    match ahead {
        None => "the server refused the token (401): are the API key and secret the server's, and has a token of your own not \
                 expired?"
            .to_owned(),
        Some(seconds) => format!(
            "the server refused the token (401), and its clock is {} s {} this machine's: set both clocks (timedatectl \
             set-ntp true)",
            seconds.abs(),
            if seconds > 0 { "ahead of" } else { "behind" }
        ),
    }
}

fn refused(status: u16) -> String {
    match status {
        200..=299 => {
            return format!(
                "what listens there answers as a web server ({status}) and opens no WebSocket: is --url the address of the \
                 signalling service, and does a proxy in between pass `Upgrade` on?"
            );
        }
        300..=399 => {
            return format!(
                "what listens there sends clients elsewhere ({status}): does it want TLS (wss://), or another name in --url?"
            );
        }
        _ => {}
    }
    let what = match status {
        403 => "what the token asks for: may the API key grant joining, publishing and subscribing?",
        404 => {
            "the address: is it a server of LiveKit's protocol that listens there, and does --url end before /rtc?"
        }
        400 => "the request: does it want TLS (wss://), or a newer client protocol?",
        429 => "more connections for now: raise its limit for the test, or spread the joins (--ramp)",
        502..=504 => {
            "the connection: is its media relay up (/readyz says so), and is a proxy in between set right?"
        }
        _ => "the connection: its log says why",
    };
    format!("the server refused ({status}) {what}")
}

/// How far the server's clock is ahead, by the `Date` of its answer, in whole tens of seconds; `None` where tokens bear it.
fn clock_ahead(headers: &HeaderMap, now: SystemTime) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get("date")?.to_str().ok()?).ok()?;
    let seconds = |time: SystemTime| Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs() as i64);
    let ahead = seconds(date)?.checked_sub(seconds(now)?)?;
    (ahead.unsigned_abs() > CLOCK_SPARE.as_secs()).then_some(ahead / 10 * 10)
}

fn connection(error: &tungstenite::Error) -> String {
    let tls = match error {
        Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        Error::Tls(TlsError::Rustls(error)) => Some(&**error),
        _ => None,
    };
    if let Some(error) = tls {
        return format!("no TLS with the server: {}", untrusted(error));
    }
    let what = match error {
        Error::Io(error) => return unreachable(error),
        Error::Url(UrlError::UnableToConnect(_)) => "is it running, and the address right?".to_owned(),
        Error::HttpFormat(_) => "the address or the token has characters that it may not have".to_owned(),
        Error::Protocol(error) => {
            format!(
                "{error}: does it want TLS (wss://), or does something else than signalling listen there?"
            )
        }
        other => other.to_string(),
    };
    format!("cannot reach the server: {what}")
}

fn unreachable(error: &std::io::Error) -> String {
    let what = match error.kind() {
        ErrorKind::ConnectionRefused => "nobody listens there. Is it running, and the port right?".to_owned(),
        ErrorKind::TimedOut => "no answer. Is a firewall in between?".to_owned(),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            "there is no route. Is the address right?".to_owned()
        }
        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => {
            "it broke the connection off. Does it want the other of ws:// and wss://, or is it overloaded?"
                .to_owned()
        }
        // EMFILE and EADDRNOTAVAIL have no stable kind.
        _ if error.raw_os_error() == Some(24) => "this process has no file descriptors left".to_owned(),
        _ if error.raw_os_error() == Some(99) => {
            "this machine has no local ports left: widen net.ipv4.ip_local_port_range, or use more machines"
                .to_owned()
        }
        _ => error.to_string(),
    };
    format!("cannot reach the server: {what}")
}

fn untrusted(error: &rustls::Error) -> String {
    use CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer | Bad::BadSignature => {
                "nobody whom this machine trusts signed its certificate. Name the authority's file with \
                                   --ca"
                    .to_owned()
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "its certificate is for another name. Use that name in --url".to_owned()
            }
            Bad::Expired | Bad::ExpiredContext { .. } => {
                "its certificate has expired. Renew it, or set this machine's clock".to_owned()
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "its certificate is not valid yet. Set this machine's clock".to_owned()
            }
            Bad::Other(why) if why.to_string().contains("CaUsedAsEndEntity") => {
                "its certificate is an authority's own (CA:TRUE), which no server may show. Make it with basicConstraints \
                 CA:FALSE"
                    .to_owned()
            }
            other => format!("its certificate is not accepted ({other}). Give it one that browsers accept"),
        },
        rustls::Error::InvalidMessage(_) => "it does not speak TLS there. Try ws://".to_owned(),
        rustls::Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "it knows no certificate for the name in --url".to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_show_in_the_date_of_a_refusal() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let at = |seconds: i64| {
            let date = if seconds < 0 {
                now - Duration::from_secs(seconds.unsigned_abs())
            } else {
                now + Duration::from_secs(seconds.unsigned_abs())
            };
            let headers = [("date".parse().unwrap(), httpdate::fmt_http_date(date).parse().unwrap())];
            clock_ahead(&HeaderMap::from_iter(headers), now)
        };
        assert_eq!((at(0), at(30), at(-30)), (None, None, None));
        assert_eq!((at(31), at(-3607)), (Some(30), Some(-3600)));
        assert_eq!(clock_ahead(&HeaderMap::new(), now), None);
        let said = SignalError::Token { ahead: at(-3607) }.to_string();
        assert!(said.contains("3600 s behind") && said.contains("timedatectl"), "{said}");
    }

    #[test]
    fn certificates_and_sockets_are_told_apart() {
        let tls = |bad| connection(&Error::Io(std::io::Error::other(rustls::Error::InvalidCertificate(bad))));
        assert!(tls(CertificateError::UnknownIssuer).contains("--ca"));
        assert!(tls(CertificateError::NotValidForName).contains("another name"));
        assert!(tls(CertificateError::Expired).contains("expired"));
        let io = |code| connection(&Error::Io(std::io::Error::from_raw_os_error(code)));
        assert!(io(111).contains("nobody listens"), "{}", io(111));
        assert!(io(110).contains("firewall"), "{}", io(110));
        assert!(io(24).contains("file descriptors") && io(99).contains("ip_local_port_range"));
    }
}
