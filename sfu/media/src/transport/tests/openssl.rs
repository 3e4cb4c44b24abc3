//! The handshake against OpenSSL's `s_client`, which offers what it is told to: each SRTP profile, or no certificate.
//!
//! The one place here with sockets, on loopback, because the program brings its own. Needs `openssl` in the path.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the other end is a program on a socket"
)]

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;

use super::super::stun::{Class, IntegrityKey, MessageWriter, Role};
use super::super::*;
use super::pair::{client_contexts, client_description, credentials, relay_certificate};
use crate::srtp::{SrtpOpen, SrtpSeal};

/// Ends the program with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments).stderr(Stdio::null());
    command
}

/// A key and a certificate as files, and the certificate's fingerprint.
fn certificate(directory: &Path) -> Fingerprint {
    let (key, certificate) = (directory.join("key.pem"), directory.join("certificate.pem"));
    let (key, certificate) = (key.to_str().unwrap(), certificate.to_str().unwrap());
    let made = openssl(&["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/CN=client", "-days", "2", "-keyout", key, "-out", certificate])
        .status()
        .expect("this test needs the program `openssl`");
    assert!(made.success());
    let der = openssl(&["x509", "-in", certificate, "-outform", "DER"]).output().unwrap().stdout;
    Fingerprint(digest::digest(&digest::SHA256, &der).as_ref().try_into().unwrap())
}

struct Outcome {
    relay: Transport,
    events: Vec<TransportEvent>,
    /// What the program says it exported.
    keys: Option<Vec<u8>>,
}

/// Runs the program against a transport until `done` or for ten seconds.
fn run(
    fingerprint: Fingerprint,
    arguments: &[&str],
    done: impl Fn(&[TransportEvent], Option<&[u8]>) -> bool,
) -> Outcome {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let mut program = openssl(&["s_client", "-dtls1_2", "-connect", &address, "-noservername"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs the program `openssl`");
    let output = BufReader::new(program.stdout.take().unwrap());
    let _program = Running(program);
    let (lines_in, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let _ = lines_in.send(line);
        }
    });

    let start = Instant::now();
    let config = TransportConfig {
        ice: credentials("relay"),
        certificate: relay_certificate(),
        data_channels: Vec::new(),
        timeouts: TransportTimeouts::default(),
    };
    let mut outcome = Outcome { relay: Transport::new(config, start), events: Vec::new(), keys: None };
    outcome.relay.set_remote(RemoteTransport { fingerprint, ..client_description() }, start);
    let mut tx = TxQueue::new();
    let mut datagram = [0; 2048];
    while !done(&outcome.events, outcome.keys.as_deref()) && start.elapsed() < Duration::from_secs(10) {
        if let Ok((len, from)) = socket.recv_from(&mut datagram) {
            let from = Remote::from(from);
            if !outcome.relay.accepts(from) {
                check(&mut outcome.relay, from, start);
            }
            let _ = outcome.relay.handle_dtls(from, &mut datagram[..len], &mut tx, Instant::now());
        }
        outcome.relay.handle_timeout(Instant::now(), &mut tx);
        for (to, datagram) in tx.datagrams() {
            socket.send_to(datagram, to.addr).unwrap();
        }
        tx.clear();
        outcome.events.extend(std::iter::from_fn(|| outcome.relay.poll_event()));
        while let Ok(line) = lines.try_recv() {
            if let Some(hex) = line.trim().strip_prefix("Keying material: ") {
                let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                outcome.keys = Some((0..hex.len()).step_by(2).map(byte).collect());
            }
        }
    }
    outcome
}

/// The program knows no ICE: the test does the check for it.
fn check(relay: &mut Transport, from: Remote, now: Instant) {
    let check = MessageWriter::new(Class::Request, &[1; 12])
        .username("relay:client")
        .role(Role::Controlling(1))
        .use_candidate()
        .finish(&IntegrityKey::new(&credentials("relay").pwd));
    relay.handle_stun(from, &check, &mut TxQueue::new(), now).unwrap();
}

/// What one side sealed the other opens.
fn assert_keys_match(relay: &mut Transport, client: &mut (SrtpOpen, SrtpSeal)) {
    let report = [0x80, 201, 0, 1, 0, 0, 0, 7];
    let mut packet = [0; 64];
    let len = client.1.seal_rtcp(&report, &mut packet).unwrap();
    assert_eq!(relay.open_rtcp(&mut packet[..len]), Ok(report.len()));
    let (seal, _) = relay.seal_and_addr().unwrap();
    let len = seal.seal_rtcp(&report, &mut packet).unwrap();
    assert_eq!(client.0.open_rtcp(&mut packet[..len]), Ok(report.len()));
}

fn scratch(name: &str) -> std::path::PathBuf {
    let directory = std::env::temp_dir().join(format!("curtain-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

#[test]
fn each_profile_exports_the_keys_that_openssl_exports() {
    let directory = scratch("profiles");
    let fingerprint = certificate(&directory);
    let (key, certificate) = (directory.join("key.pem"), directory.join("certificate.pem"));
    for (offered, profile) in [
        ("SRTP_AES128_CM_SHA1_80", SrtpProfile::AES128_CM_SHA1_80),
        ("SRTP_AEAD_AES_128_GCM", SrtpProfile::AEAD_AES_128_GCM),
        ("SRTP_AEAD_AES_256_GCM", SrtpProfile::AEAD_AES_256_GCM),
        ("SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_128_GCM:SRTP_AEAD_AES_256_GCM", SrtpProfile::AEAD_AES_256_GCM),
    ] {
        let len = profile.keying_material_len().to_string();
        let arguments =
            ["-use_srtp", offered, "-keymatexport", "EXTRACTOR-dtls_srtp", "-keymatexportlen", &len];
        let files = ["-cert", certificate.to_str().unwrap(), "-key", key.to_str().unwrap()];
        let mut outcome = run(fingerprint, &[&arguments[..], &files].concat(), |_, keys| keys.is_some());
        assert_eq!(outcome.events, [TransportEvent::Connected], "{offered}");
        let keys = outcome.keys.unwrap_or_else(|| panic!("{offered}: openssl exported nothing"));
        assert_keys_match(&mut outcome.relay, &mut client_contexts(&keys, profile));
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let directory = scratch("anonymous");
    let fingerprint = certificate(&directory);
    let outcome = run(fingerprint, &["-use_srtp", "SRTP_AEAD_AES_128_GCM"], |events, _| !events.is_empty());
    assert_eq!(outcome.events, [TransportEvent::Closed(CloseReason::HandshakeFailed)]);
    std::fs::remove_dir_all(directory).unwrap();
}

/// A client without SRTP has data channels only.
#[test]
fn a_client_without_srtp_connects_and_has_no_media() {
    let directory = scratch("data-only");
    let fingerprint = certificate(&directory);
    let (key, certificate) = (directory.join("key.pem"), directory.join("certificate.pem"));
    let files = ["-cert", certificate.to_str().unwrap(), "-key", key.to_str().unwrap()];
    let mut outcome = run(fingerprint, &files, |events, _| !events.is_empty());
    assert_eq!(outcome.events, [TransportEvent::Connected]);
    assert!(outcome.relay.seal_and_addr().is_none());
    assert_eq!(outcome.relay.open_rtcp(&mut [0; 40]), Err(DropReason::SrtpNotReady));
    std::fs::remove_dir_all(directory).unwrap();
}
