//! The ways of sending and receiving over loopback: nanoseconds per datagram, into sockets whose buffer is full.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::UdpSocket as StdSocket;
use std::time::Duration;

use benches::timing::CpuClock;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sfu_media::tx::TxQueue;
use sfu_udp::{RecvBatch, UdpSocket, UdpSocketConfig};

const RECEIVERS: usize = 50;
const FRAME: usize = 8;

/// CPU time of `run` for about so many iterations of one datagram.
fn cpu(iterations: u64, mut run: impl FnMut() -> u64) -> Duration {
    let mut clock = CpuClock::new();
    let mut done = 0;
    while done < iterations {
        done += clock.measure(&mut run);
    }
    clock.take().mul_f64(iterations as f64 / done as f64)
}

fn socket(offload: bool) -> UdpSocket {
    let config = UdpSocketConfig::new("127.0.0.1:0".parse().unwrap());
    UdpSocket::bind(UdpSocketConfig { offload, ..config }).unwrap()
}

fn send(c: &mut Criterion) {
    let sinks: Vec<_> = (0..RECEIVERS)
        .map(|_| {
            let sink = StdSocket::bind("127.0.0.1:0").unwrap();
            socket2::SockRef::from(&sink).set_recv_buffer_size(1).unwrap();
            sink
        })
        .collect();
    let to: Vec<_> = sinks.iter().map(|sink| sink.local_addr().unwrap()).collect();
    let mut group = c.benchmark_group("udp_send");
    group.throughput(Throughput::Elements(1));
    for payload in [1136usize, 156] {
        let datagram = vec![7; payload];
        let mut frames = TxQueue::new();
        let mut packets = TxQueue::new();
        for to in &to {
            (0..FRAME).for_each(|_| frames.push(*to, &datagram));
        }
        for _ in 0..FRAME {
            to.iter().for_each(|to| packets.push(*to, &datagram));
        }
        let modes = [
            ("frame_gso_sendmmsg", true, &frames),
            ("packet_order_sendmmsg", true, &packets),
            ("frame_sendmmsg_no_offload", false, &frames),
        ];
        for (name, offload, queue) in modes {
            let mut out = socket(offload);
            group.bench_function(BenchmarkId::new(name, payload), |b| {
                b.iter_custom(|iterations| cpu(iterations, || out.send(queue).sent));
            });
        }
        let plain = StdSocket::bind("127.0.0.1:0").unwrap();
        group.bench_function(BenchmarkId::new("packet_order_sendto", payload), |b| {
            b.iter_custom(|iterations| {
                cpu(iterations, || {
                    to.iter().map(|to| plain.send_to(&datagram, to).unwrap().min(1) as u64).sum()
                })
            });
        });
    }
    group.finish();
}

fn receive(c: &mut Criterion) {
    let mut group = c.benchmark_group("udp_receive");
    group.throughput(Throughput::Elements(1));
    for payload in [1136usize, 156] {
        let datagram = vec![7; payload];
        // A sender with offload gives the receiver joined datagrams; one without gives them one by one.
        for (name, offload) in [("joined_recvmmsg", true), ("single_recvmmsg", false)] {
            let into = socket(true);
            let mut from = socket(offload);
            let mut queue = TxQueue::new();
            (0..32).for_each(|_| queue.push(into.local_addr().unwrap(), &datagram));
            let mut batch = RecvBatch::new();
            group.bench_function(BenchmarkId::new(name, payload), |b| {
                b.iter_custom(|iterations| {
                    let mut clock = CpuClock::new();
                    let mut done = 0;
                    while done < iterations {
                        from.send(&queue);
                        done += clock.measure(|| {
                            into.recv_batch(&mut batch).unwrap();
                            batch.datagrams().count() as u64
                        });
                    }
                    clock.take().mul_f64(iterations as f64 / done as f64)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, send, receive);
criterion_main!(benches);
