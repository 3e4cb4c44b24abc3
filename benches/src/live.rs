//! The floor of a whole call: what a bare forwarder takes for each packet with live clients on loopback.
//!
//! It waits for datagrams, takes all that are there, opens each once, and sends every receiver its copies, segmented, many
//! messages in a call. No connection set-up, no history, no estimate, no timers; receivers' feedback is received and thrown
//! away. The clients are those of `loadtest bench` as far as sockets and threads show: another process with a tokio runtime
//! on each core, a packet a `sendto`, sockets that take runs as they are sent, the same packets a second.

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sfu_udp::bare::{BareReceiver, BareSender};

use crate::floor::{Cipher, Egress, HEADER, TAG, seal};

/// Frames a second of each publisher, and packets in them.
const FRAMES: u64 = 30;
const PACKETS: u64 = 260;
/// Bytes of such a packet, and of one of sound, of which there are fifty a second.
const PICTURE: usize = 1180;
const SOUND: usize = 160;
const SOUND_EVERY: Duration = Duration::from_millis(20);
/// Reports of each receiver.
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// Messages and bytes of one call.
const MESSAGES: usize = 64;
const BYTES: usize = 1 << 20;
/// Threads of the clients.
const THREADS: usize = 2;

/// Who is there.
#[derive(Debug, Clone, Copy)]
pub struct LiveShape {
    /// Rooms.
    pub rooms: usize,
    /// Of each room, those who send sound and picture ..
    pub publishers: usize,
    /// .. and those who only receive. Everybody receives what all others of the room send.
    pub watchers: usize,
}

impl LiveShape {
    fn members(self) -> usize {
        self.publishers + self.watchers
    }
}

/// What it took.
#[derive(Debug, Clone, Copy)]
pub struct LiveFloor {
    /// CPU time of the forwarding thread for each packet sent.
    pub micros_per_packet: f64,
    /// Packets sent each second, and messages that they were in.
    pub packets_per_s: f64,
    /// Messages each second.
    pub messages_per_s: f64,
    /// Times a second that the thread had to wait.
    pub wakes_per_s: f64,
}

/// Forwards for so long, with this program started again (`--clients`) as its clients.
///
/// # Errors
/// When sockets or the other process cannot be had.
pub fn run(shape: LiveShape, time: Duration) -> Result<LiveFloor> {
    let relay = UdpSocket::bind("127.0.0.1:0")?;
    let feedback = UdpSocket::bind("127.0.0.1:0")?;
    for socket in [&relay, &feedback] {
        let socket = socket2::SockRef::from(socket);
        socket.set_send_buffer_size(4 << 20)?;
        socket.set_recv_buffer_size(4 << 20)?;
    }
    relay.set_read_timeout(Some(Duration::from_secs(2)))?;
    let numbers = [shape.rooms, shape.publishers, shape.watchers, time.as_millis() as usize];
    let ports = [relay.local_addr()?.port(), feedback.local_addr()?.port()];
    let mut clients = Command::new(std::env::current_exe()?)
        .arg("--clients")
        .args(numbers.iter().map(ToString::to_string).chain(ports.iter().map(ToString::to_string)))
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the clients")?;
    let lines = BufReader::new(clients.stdout.take().context("no output of the clients")?).lines();
    let members: Vec<SocketAddrV4> =
        lines.take(shape.rooms * shape.members()).map(|line| Ok(line?.parse()?)).collect::<Result<_>>()?;
    let result = forward(shape, &relay, &feedback, &members);
    clients.wait()?;
    result
}

fn forward(
    shape: LiveShape,
    relay: &UdpSocket,
    feedback: &UdpSocket,
    members: &[SocketAddrV4],
) -> Result<LiveFloor> {
    let mut receive = BareReceiver::new(MESSAGES);
    let mut reports = BareReceiver::new(MESSAGES);
    let mut send = BareSender::new(members, MESSAGES, BYTES);
    let ingress = Cipher::new(9999)?;
    // By publisher: its room's other members, with a stream for sound and one for the picture.
    let publishers: Vec<usize> =
        (0..members.len()).filter(|member| member % shape.members() < shape.publishers).collect();
    let mut streams = Vec::new();
    for publisher in &publishers {
        let room = publisher / shape.members() * shape.members();
        let others = (room..room + shape.members()).filter(|member| member != publisher);
        let others: Vec<usize> = others.collect();
        for kind in 0..2 {
            let egress = others.iter().map(|to| Ok((*to, Egress::new(to * 31 + publisher * 2 + kind)?)));
            streams.push(egress.collect::<Result<Vec<_>>>()?);
        }
    }
    let (mut packets, mut messages, mut wakes) = (0u64, 0u64, 0u64);
    let mut batch: Vec<(usize, usize)> = Vec::new();
    // The first second warms up.
    let start = Instant::now() + Duration::from_secs(1);
    let mut measured: Option<(Instant, Duration)> = None;
    let mut last = Instant::now();
    loop {
        // Blocks until something is there.
        if relay.peek(&mut [0; 1]).is_err() {
            break;
        }
        wakes += 1;
        let count = match receive.receive(relay) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        last = Instant::now();
        if measured.is_none() && last >= start {
            measured = Some((last, sfu_udp::thread_cpu_time()));
            (packets, messages, wakes) = (0, 0, 0);
        }
        batch.clear();
        for at in 0..count {
            let packet = receive.datagram(at);
            let index = u64::from(u16::from_be_bytes([packet[2], packet[3]]));
            let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
            let (header, text) = packet.split_at_mut(HEADER);
            let nonce = ingress.nonce(ssrc, index);
            let plain = ingress.open(nonce, header, text)?;
            batch.push((ssrc as usize, HEADER + plain));
        }
        let mut end = 0;
        let mut done = 0;
        while done < count {
            // Packets of one stream that came together leave together.
            let ssrc = batch[done].0;
            let run = batch[done..].iter().take_while(|(of, _)| *of == ssrc).count();
            for (to, egress) in streams.get_mut(ssrc).context("an unknown stream")? {
                let (from, mut segment) = (end, 0);
                for (at, (_, len)) in batch.iter().enumerate().skip(done).take(run) {
                    let packet = &receive.datagram(at)[..*len];
                    segment = seal(egress, packet, &mut send.buffer()[end..])?;
                    end += segment;
                }
                send.queue(*to, from, end - from, segment);
                messages += 1;
                packets += run as u64;
                if send.queued() == MESSAGES || end > BYTES / 2 {
                    send.flush(relay)?;
                    end = 0;
                }
            }
            done += run;
        }
        send.flush(relay)?;
        // Nothing there is no error here.
        let _ = reports.receive(feedback);
    }
    let (from, cpu) = measured.context("the clients sent nothing")?;
    let (wall, cpu) = (last - from, sfu_udp::thread_cpu_time() - cpu);
    ensure!(packets > 0, "nothing was forwarded");
    let per_s = |count: u64| count as f64 / wall.as_secs_f64();
    Ok(LiveFloor {
        micros_per_packet: cpu.as_secs_f64() * 1e6 / packets as f64,
        packets_per_s: per_s(packets),
        messages_per_s: per_s(messages),
        wakes_per_s: per_s(wakes),
    })
}

/// The other process: all members of all rooms, on two threads.
///
/// # Errors
/// When sockets cannot be had.
pub fn clients(arguments: &[String]) -> Result<()> {
    let numbers: Vec<usize> = arguments.iter().map(|a| Ok(a.parse()?)).collect::<Result<_>>()?;
    let &[rooms, publishers, watchers, time, relay, feedback] = &numbers[..] else {
        anyhow::bail!("six numbers are wanted");
    };
    let shape = LiveShape { rooms, publishers, watchers };
    let relay = SocketAddr::from(([127, 0, 0, 1], relay as u16));
    let feedback = SocketAddr::from(([127, 0, 0, 1], feedback as u16));
    let until = Instant::now() + Duration::from_millis(time as u64) + Duration::from_secs(1);
    let mut threads: Vec<Vec<(usize, UdpSocket)>> = (0..THREADS).map(|_| Vec::new()).collect();
    for member in 0..rooms * shape.members() {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20)?;
        println!("{}", socket.local_addr()?);
        threads[member % THREADS].push((member, socket));
    }
    let threads: Vec<_> = threads
        .into_iter()
        .map(|members| {
            std::thread::spawn(move || -> Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let all = tokio::task::LocalSet::new();
                let buffer = Rc::new(RefCell::new(vec![0; sfu_udp::LONGEST_RUN]));
                for (member, socket) in members {
                    all.spawn_local(run_member(shape, member, socket, relay, feedback, Rc::clone(&buffer)));
                }
                runtime.block_on(all.run_until(async { tokio::time::sleep_until(until.into()).await }));
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().ok().context("a thread of the clients")??;
    }
    Ok(())
}

async fn run_member(
    shape: LiveShape,
    member: usize,
    socket: UdpSocket,
    relay: SocketAddr,
    feedback: SocketAddr,
    buffer: Rc<RefCell<Vec<u8>>>,
) -> Result<()> {
    sfu_udp::join_arrivals(&socket);
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let within = member % shape.members();
    let publishes = within < shape.publishers;
    let stream = (member / shape.members() * shape.publishers + within) * 2;
    let cipher = Cipher::new(9999)?;
    let packet = |ssrc: usize, index: u64, bytes: usize| -> Result<Vec<u8>> {
        let mut packet = vec![0; bytes - TAG];
        (packet[0], packet[1]) = (0x90, 96);
        packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        packet[8..12].copy_from_slice(&(ssrc as u32).to_be_bytes());
        packet[12..16].copy_from_slice(&[0xbe, 0xde, 0, 1]);
        let (header, text) = packet.split_at_mut(HEADER);
        let tag = cipher.seal(cipher.nonce(ssrc as u32, index & 0xffff), header, text)?;
        packet.extend(tag);
        Ok(packet)
    };
    // Nobody begins at the same instant as anybody else.
    let begin = Instant::now() + Duration::from_micros(200_000 + member as u64 * 7_919 % 50_000);
    let (mut sound, mut picture, mut report) = (begin, begin + Duration::from_millis(3), begin);
    let (mut sounds, mut frames, mut pictures) = (0u64, 0u64, 0u64);
    let raw = socket2::SockRef::from(&socket);
    loop {
        let next = if publishes { sound.min(picture).min(report) } else { report };
        tokio::select! {
            _ = socket.readable() => {
                while socket.try_recv(&mut buffer.borrow_mut()).is_ok() {}
            }
            () = tokio::time::sleep_until(next.into()) => {}
        }
        let now = Instant::now();
        if report <= now {
            let _ = raw.send_to(&[0x8f; 60], &feedback.into());
            report += REPORT_EVERY;
        }
        if publishes && sound <= now {
            let _ = raw.send_to(&packet(stream, sounds, SOUND)?, &relay.into());
            (sound, sounds) = (sound + SOUND_EVERY, sounds + 1);
        }
        if publishes && picture <= now {
            frames += 1;
            while pictures < frames * PACKETS / FRAMES {
                let _ = raw.send_to(&packet(stream + 1, pictures, PICTURE)?, &relay.into());
                pictures += 1;
            }
            picture += Duration::from_secs(1) / FRAMES as u32;
        }
    }
}
