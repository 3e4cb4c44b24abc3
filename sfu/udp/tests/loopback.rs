//! What is sent is what arrives, with and without offload.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sfu_media::tx::TxQueue;
use sfu_udp::{
    LONGEST_RUN, RecvBatch, UdpSocket, UdpSocketConfig, Waker, join_arrivals, recv_stamped, stamp_arrivals,
};

fn socket(bind: &str, offload: bool) -> UdpSocket {
    UdpSocket::bind(UdpSocketConfig { offload, ..UdpSocketConfig::new(bind.parse().unwrap()) }).unwrap()
}

fn receive(socket: &UdpSocket, waker: &Waker, want: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut batch = RecvBatch::new();
    let mut got = Vec::new();
    let end = Instant::now() + Duration::from_secs(5);
    while got.len() < want && Instant::now() < end {
        socket.wait(waker, Some(Duration::from_millis(100)), false).unwrap();
        socket.recv_batch(&mut batch).unwrap();
        got.extend(batch.datagrams().map(|(from, d)| (from, d.to_vec())));
    }
    got
}

fn round_trip(bind: &str, offload_out: bool, offload_in: bool) {
    let waker = Waker::new().unwrap();
    let mut out = socket(bind, offload_out);
    let into = socket(bind, offload_in);
    let mut queue = TxQueue::new();
    let mut want = Vec::new();
    for i in 0..300usize {
        // Runs of equal size, a shorter last one now and then, single ones between.
        let len = if i % 10 == 9 { 40 + i } else { 1000 };
        let datagram: Vec<u8> = (0..len).map(|j| (i * 7 + j) as u8).collect();
        queue.push(into.local_addr().unwrap(), &datagram);
        want.push(datagram);
    }
    let report = out.send(&queue);
    assert_eq!((report.sent, report.dropped, report.gso_disabled), (300, 0, false));
    let got = receive(&into, &waker, 300);
    assert!(got.iter().all(|(from, _)| *from == out.local_addr().unwrap()));
    assert_eq!(got.into_iter().map(|(_, d)| d).collect::<Vec<_>>(), want);
}

#[test]
fn datagrams_arrive_whole_and_in_order() {
    for (offload_out, offload_in) in [(true, true), (true, false), (false, true), (false, false)] {
        round_trip("127.0.0.1:0", offload_out, offload_in);
        round_trip("[::1]:0", offload_out, offload_in);
    }
}

#[test]
fn a_run_is_taken_in_one_with_its_time_where_that_was_asked_for() {
    let mut out = socket("127.0.0.1:0", true);
    let mut buffer = vec![0; LONGEST_RUN];
    for joined in [false, true] {
        let into = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        stamp_arrivals(&into).unwrap();
        assert!(!joined || join_arrivals(&into));
        let mut queue = TxQueue::new();
        for len in [1000, 1000, 1000, 40] {
            queue.push(into.local_addr().unwrap(), &vec![len as u8; len]);
        }
        assert_eq!(out.send(&queue).sent, 4);
        let mut got = Vec::new();
        while let Ok(stamped) = recv_stamped(&into, &mut buffer) {
            assert!(stamped.arrived.is_some());
            got.push(buffer[..stamped.len].chunks(stamped.segment).map(<[u8]>::len).collect::<Vec<_>>());
        }
        let want = if joined {
            vec![vec![1000, 1000, 1000, 40]]
        } else {
            [1000, 1000, 1000, 40].map(|len| vec![len]).to_vec()
        };
        assert_eq!(got, want);
    }
}

#[test]
fn a_dual_stack_socket_names_ipv4_peers_as_ipv4() {
    let waker = Waker::new().unwrap();
    let mut dual = socket("[::]:0", true);
    let mut four = socket("127.0.0.1:0", true);
    let dual_addr = SocketAddr::from(([127, 0, 0, 1], dual.local_addr().unwrap().port()));
    let mut queue = TxQueue::new();
    queue.push(dual_addr, b"to the dual-stack one");
    four.send(&queue);
    let got = receive(&dual, &waker, 1);
    assert_eq!(got, [(four.local_addr().unwrap(), b"to the dual-stack one".to_vec())]);
    queue.clear();
    queue.push(got[0].0, b"and back");
    assert_eq!(dual.send(&queue).sent, 1);
    assert_eq!(receive(&four, &waker, 1), [(dual_addr, b"and back".to_vec())]);
}

#[test]
fn an_unreachable_destination_costs_only_its_own_datagrams() {
    let waker = Waker::new().unwrap();
    let mut out = socket("127.0.0.1:0", true);
    let into = socket("127.0.0.1:0", true);
    let mut queue = TxQueue::new();
    queue.push(into.local_addr().unwrap(), b"before");
    // An IPv4 socket reaches no IPv6 address; a run of three asks for segmentation as well.
    for _ in 0..3 {
        queue.push("[::1]:9".parse::<SocketAddr>().unwrap(), b"nowhere");
    }
    queue.push(into.local_addr().unwrap(), b"after");
    let report = out.send(&queue);
    assert_eq!((report.sent, report.dropped, report.gso_disabled), (2, 3, false));
    assert!(out.offload());
    let got: Vec<_> = receive(&into, &waker, 2).into_iter().map(|(_, d)| d).collect();
    assert_eq!(got, [b"before".to_vec(), b"after".to_vec()]);
}

#[test]
fn a_wake_ends_the_wait_once() {
    let waker = Waker::new().unwrap();
    let socket = socket("127.0.0.1:0", true);
    let other = waker.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        other.wake();
        other.wake();
    });
    let ready = socket.wait(&waker, Some(Duration::from_secs(5)), false).unwrap();
    assert!(ready.woken && !ready.readable);
    thread.join().unwrap();
    // The second wake may have come after the first wait; after that the signal is spent.
    socket.wait(&waker, Some(Duration::from_millis(1)), false).unwrap();
    assert!(!socket.wait(&waker, Some(Duration::from_millis(1)), false).unwrap().woken);
}

#[test]
fn a_port_in_use_is_an_error() {
    let first = socket("127.0.0.1:0", true);
    let error = UdpSocket::bind(UdpSocketConfig::new(first.local_addr().unwrap())).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn datagrams_are_sorted_by_the_kernel_and_the_port_is_still_taken() {
    for bind in ["127.0.0.1:0", "[::]:0"] {
        let config = UdpSocketConfig::new(bind.parse().unwrap());
        let into = UdpSocket::bind(UdpSocketConfig { sorted: true, ..config }).unwrap();
        assert!(into.is_sorted());
        let again = UdpSocketConfig { sorted: true, ..UdpSocketConfig::new(into.local_addr().unwrap()) };
        let taken = UdpSocket::bind(again).unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse, "another relay on the port is told so");
        let out = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        out.connect(("127.0.0.1", into.local_addr().unwrap().port())).unwrap();
        // First and second byte, and where it goes: RTP with and without marker, reports and transport-wide feedback,
        // requests, STUN, DTLS, others.
        #[derive(Clone, Copy, PartialEq, Debug)]
        enum To {
            Media,
            Feedback,
            Connect,
        }
        let table = [
            (0x80, 96, To::Media),
            (0x80, 0x80 | 96, To::Media),
            (0x80, 191, To::Media),
            (0x81, 200, To::Feedback),
            (0x80, 201, To::Feedback),
            (0x8f, 205, To::Feedback),
            (0xaf, 205, To::Feedback),
            (0x81, 205, To::Media),
            (0xa1, 206, To::Media),
            (0x8f, 206, To::Media),
            (0x80, 192, To::Media),
            (0x80, 224, To::Media),
            (0x00, 1, To::Connect),
            (0x00, 200, To::Connect),
            (22, 205, To::Connect),
            (0xc0, 200, To::Connect),
        ];
        for (first, second, _) in table {
            out.send(&[first, second, 0, 1]).unwrap();
        }
        out.send(&[0x80]).unwrap();
        out.send(&[]).unwrap();
        let waker = Waker::new().unwrap();
        let mut batch = RecvBatch::new();
        let ready = into.wait(&waker, Some(Duration::from_secs(5)), true).unwrap();
        assert!(ready.feedback && ready.readable && ready.connect);
        let long = |batch: &mut RecvBatch| -> Vec<_> {
            batch.datagrams().filter(|(_, d)| d.len() > 1).map(|(_, d)| (d[0], d[1])).collect()
        };
        let want = |to| -> Vec<_> { table.iter().filter(|t| t.2 == to).map(|t| (t.0, t.1)).collect() };
        assert!(!into.recv_feedback(&mut batch).unwrap());
        assert_eq!(long(&mut batch), want(To::Feedback));
        assert!(!into.recv_batch(&mut batch).unwrap());
        assert_eq!(long(&mut batch), want(To::Media));
        let mut connect = Vec::new();
        while into.recv_connect(&mut batch, 1).unwrap() {
            connect.extend(long(&mut batch));
        }
        assert_eq!(connect, want(To::Connect));
        // What nobody waits for does not wake.
        out.send(&[0x81, 200, 0, 1]).unwrap();
        let ready = into.wait(&waker, Some(Duration::from_millis(20)), false).unwrap();
        assert!(!ready.feedback && !ready.readable);
        assert!(into.wait(&waker, Some(Duration::from_secs(5)), true).unwrap().feedback);
    }
}
