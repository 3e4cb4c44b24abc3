//! The port with real connections on loopback.

use std::time::Duration;

use sfu_media::command::{Fingerprint, IceCredentials, RemoteTransport, ShardCommand};
use sfu_media::ids::PeerId;
use sfu_media::shard::ShardConfig;
use sfu_media::transport::DtlsCertificate;
use sfu_media::transport::stun::{Class, IntegrityKey, Message, MessageWriter, Role};
use sfu_udp::UdpSocketConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::frame::framed;
use super::*;
use crate::crossbar::Crossbar;
use crate::shard_thread::{ShardThread, ShardThreadConfig};

const PWD: &str = "password-of-the-relay-0123456789";

struct Relay {
    port: TcpPort,
    shard: ShardThread,
    _events: mpsc::Receiver<crate::shard_thread::TaggedEvent>,
}

impl Relay {
    fn start(total: usize) -> Self {
        let (sender, events) = mpsc::channel(1000);
        let config = ShardThreadConfig {
            index: 0,
            socket: UdpSocketConfig::new("127.0.0.1:0".parse().unwrap()),
            pin: false,
            shard: ShardConfig::new(Arc::new(DtlsCertificate::generate().unwrap())),
            seed: 1,
            crossbar: Crossbar::build(1).unwrap().remove(0),
        };
        let shard = ShardThread::spawn(config, sender).unwrap();
        let limits = TcpLimits { total, per_address: 1000 };
        let port =
            TcpPort::open("127.0.0.1:0".parse().unwrap(), limits, Arc::new([shard.tcp_inlet()])).unwrap();
        let ice = |ufrag: &str| IceCredentials { ufrag: ufrag.into(), pwd: PWD.into() };
        let peer = PeerId(1);
        let remote = RemoteTransport { ice: ice("client"), fingerprint: Fingerprint([1; 32]) };
        shard.send(&mut vec![
            ShardCommand::OpenPeer { peer, ice: ice("0/relay"), data_channels: vec![] },
            ShardCommand::SetRemote { peer, remote },
        ]);
        Self { port, shard, _events: events }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.port.local_addr()).await.unwrap()
    }
}

fn check(username: &str, pwd: &str) -> Vec<u8> {
    let writer = MessageWriter::new(Class::Request, &[7; 12]).username(username).role(Role::Controlling(1));
    let datagram = writer.use_candidate().finish(&IntegrityKey::new(pwd));
    framed(&datagram).unwrap().into_vec()
}

/// The next frame, or `None` when the relay ended the connection.
async fn receive(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let read = async {
        let len = stream.read_u16().await.ok()?;
        let mut frame = vec![0; len.into()];
        stream.read_exact(&mut frame).await.ok()?;
        Some(frame)
    };
    timeout(Duration::from_secs(5), read).await.expect("an answer or an end within 5 s")
}

async fn is_answered(stream: &mut TcpStream) -> bool {
    stream.write_all(&check("0/relay:client", PWD)).await.unwrap();
    let Some(answer) = receive(stream).await else { return false };
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.class(), Class::Success);
    assert_eq!(message.xor_mapped_address(), Some(stream.local_addr().unwrap()));
    true
}

#[tokio::test]
async fn a_check_is_answered_however_its_bytes_arrive() {
    let relay = Relay::start(10);
    let mut stream = relay.connect().await;
    assert!(is_answered(&mut stream).await);
    for byte in check("0/relay:client", PWD) {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(receive(&mut stream).await.is_some());
    let mut other = relay.connect().await;
    assert!(is_answered(&mut other).await && is_answered(&mut stream).await, "both are paths of the client");
}

#[tokio::test]
async fn what_does_not_begin_with_a_check_for_a_shard_is_closed() {
    let relay = Relay::start(10);
    let hello = b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n".to_vec();
    let dtls = framed(&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap().into_vec();
    for bytes in [hello, dtls, vec![0, 0, 0, 1, 1], check("relay:client", PWD), check("7/relay:client", PWD)]
    {
        let mut stream = relay.connect().await;
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(receive(&mut stream).await, None, "{bytes:?}");
    }
    assert!(is_answered(&mut relay.connect().await).await, "others are served");
}

#[tokio::test]
async fn a_broken_frame_ends_a_connection_that_was_served() {
    let relay = Relay::start(10);
    let mut stream = relay.connect().await;
    assert!(is_answered(&mut stream).await);
    stream.write_all(&[0xff; 64]).await.unwrap();
    assert_eq!(receive(&mut stream).await, None);
}

#[tokio::test]
async fn a_stranger_that_stays_is_closed_in_time_and_a_participant_is_not() {
    let relay = Relay::start(10);
    let mut silent = relay.connect().await;
    let mut forger = relay.connect().await;
    let mut client = relay.connect().await;
    assert!(is_answered(&mut client).await);
    forger.write_all(&check("0/relay:client", "not-the-password-0123456789")).await.unwrap();
    let end = links::PROOF_TIME + Duration::from_secs(3);
    for stranger in [&mut silent, &mut forger] {
        let read = timeout(end, stranger.read(&mut [0; 10])).await.expect("closed in time");
        assert!(matches!(read, Ok(0) | Err(_)), "nothing was answered");
    }
    assert!(is_answered(&mut client).await);
    // The participant leaves.
    relay.shard.send(&mut vec![ShardCommand::ClosePeer { peer: PeerId(1) }]);
    assert_eq!(receive(&mut client).await, None);
}

#[tokio::test]
async fn a_flood_of_strangers_does_not_keep_a_participant_out() {
    let relay = Relay::start(4);
    let mut client = relay.connect().await;
    assert!(is_answered(&mut client).await);
    let mut strangers = vec![];
    for _ in 0..50 {
        strangers.push(relay.connect().await);
    }
    assert!(is_answered(&mut relay.connect().await).await);
    assert!(is_answered(&mut client).await);
    let mut open = 0;
    for stranger in &mut strangers {
        let read = timeout(Duration::from_millis(50), stranger.read(&mut [0; 1])).await;
        open += usize::from(read.is_err());
    }
    assert!(open <= 4, "{open} strangers hold on");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let relay = Relay::start(10);
    let mut slow = relay.connect().await;
    assert!(is_answered(&mut slow).await);
    // Each check is answered; nobody reads the answers. Some megabytes of them fit nowhere.
    let many = check("0/relay:client", PWD).repeat(1000);
    for _ in 0..100 {
        slow.write_all(&many).await.unwrap();
    }
    let dropped = async {
        while relay.shard.overflow() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), dropped).await.expect("answers were dropped");
    assert!(is_answered(&mut relay.connect().await).await);
}
