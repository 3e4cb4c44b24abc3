//! A UDP proxy between clients and the relay that delays, drops and holds back datagrams as told. It shares no code with
//! what measures.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::machine::{Away, NAP};

/// What happens to datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub struct Harm {
    /// Delay of each, each way.
    pub delay: Duration,
    /// Every so manieth packet of sound towards clients is dropped; 0 for none.
    pub drop_sound_nth: u64,
    /// Every so manieth packet of pictures towards clients is dropped, the first time that it is sent; 0 for none.
    pub drop_pictures_nth: u64,
    /// What is sent again is dropped, too.
    pub drop_repeats: bool,
    /// Every so manieth packet of sound towards each client is so much later; 0 for none.
    pub late_nth: u64,
    /// See `late_nth`.
    pub late: Duration,
    /// No datagram of DTLS goes through.
    pub drop_dtls: bool,
    /// No media of a client goes through towards the relay for so long after its first; then all of it at once.
    pub hold_first: Duration,
}

/// No media goes through towards the relay for a while, again and again; then all of it at once. (Held back on the other
/// side, the relay would take the path for a full one, and send less for a while.)
#[derive(Debug, Clone, Copy)]
pub struct Holds {
    /// From the beginning of one to the beginning of the next.
    pub every: Duration,
    /// How long, by turns.
    pub lengths: [Duration; 2],
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    sound: AtomicU64,
    pictures: AtomicU64,
    dropped: AtomicU64,
    holding: Mutex<Option<(Instant, Holds)>>,
    held: Mutex<Vec<Duration>>,
    away: Mutex<Away>,
}

pub struct Proxy {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A packet of sound: version 2 and the payload type that SDKs give Opus.
fn is_sound(datagram: &[u8]) -> bool {
    datagram.len() > 12 && datagram[0] >> 6 == 2 && datagram[1] & 0x7f == 111
}

/// A packet of a picture: the payload type that the relay gives VP8, and the one for what is sent again.
fn is_picture(datagram: &[u8], again: bool) -> bool {
    datagram.len() > 12 && datagram[0] >> 6 == 2 && datagram[1] & 0x7f == if again { 97 } else { 96 }
}

/// RTP; RTCP has the types 192 to 223 (RFC 5761 section 4).
fn is_media(datagram: &[u8]) -> bool {
    datagram.len() > 12 && datagram[0] >> 6 == 2 && !(192..=223).contains(&datagram[1])
}

impl Proxy {
    /// Listens at `named` and stands before the relay at `media`.
    pub fn start(named: SocketAddr, media: SocketAddr, harm: Harm) -> Self {
        let shared = Arc::new(Shared::default());
        let front = UdpSocket::bind(named).unwrap();
        front.set_nonblocking(true).unwrap();
        let state = shared.clone();
        let thread = std::thread::spawn(move || run(&front, media, harm, &state));
        Self { shared, thread: Some(thread) }
    }

    /// Starts the holds: the first begins one `every` from now.
    pub fn begin_holds(&self, holds: Holds) {
        *self.shared.holding.lock().unwrap() = Some((Instant::now(), holds));
    }

    /// How long each hold was in fact: this thread wakes when the machine lets it.
    pub fn held(&self) -> Vec<Duration> {
        self.shared.held.lock().unwrap().clone()
    }

    /// How the proxy was away from its sockets: what passes may be later by so much.
    pub fn away(&self) -> Away {
        self.shared.away.lock().unwrap().clone()
    }

    /// Packets of sound towards clients so far, and how many of them were dropped.
    pub fn sound(&self) -> (u64, u64) {
        (self.shared.sound.load(Ordering::Relaxed), self.shared.dropped.load(Ordering::Relaxed))
    }

    /// Packets of pictures towards clients so far, each once, and how many packets were dropped.
    pub fn pictures(&self) -> (u64, u64) {
        (self.shared.pictures.load(Ordering::Relaxed), self.shared.dropped.load(Ordering::Relaxed))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Client {
    address: SocketAddr,
    upstream: UdpSocket,
    sound: u64,
    first_media: Option<Instant>,
    /// Held back since the first.
    early: Vec<Vec<u8>>,
}

fn run(front: &UdpSocket, media: SocketAddr, harm: Harm, state: &Shared) {
    let mut clients: Vec<Client> = Vec::new();
    let mut index: HashMap<SocketAddr, usize> = HashMap::new();
    let mut up: VecDeque<(Instant, usize, Vec<u8>)> = VecDeque::new();
    let mut held_back: VecDeque<(usize, Vec<u8>)> = VecDeque::new();
    let mut down: Vec<VecDeque<(Instant, Vec<u8>)>> = Vec::new();
    let mut buffer = [0; 2048];
    let mut holding_since: Option<Instant> = None;
    let mut before = Instant::now();
    while !state.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        state.away.lock().unwrap().round(now - before);
        before = now;
        while let Ok((length, from)) = front.recv_from(&mut buffer) {
            let client = *index.entry(from).or_insert_with(|| {
                let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
                upstream.set_nonblocking(true).unwrap();
                clients.push(Client {
                    address: from,
                    upstream,
                    sound: 0,
                    first_media: None,
                    early: Vec::new(),
                });
                down.push(VecDeque::new());
                clients.len() - 1
            });
            // RFC 7983 section 7.
            if !harm.drop_dtls || !(20..=63).contains(&buffer[0]) {
                up.push_back((Instant::now() + harm.delay, client, buffer[..length].to_vec()));
            }
        }
        for (client, queue) in clients.iter_mut().zip(&mut down) {
            while let Ok((length, _)) = client.upstream.recv_from(&mut buffer) {
                let datagram = &buffer[..length];
                let mut due = Instant::now() + harm.delay;
                if is_sound(datagram) {
                    client.sound += 1;
                    let nth = state.sound.fetch_add(1, Ordering::Relaxed) + 1;
                    if harm.drop_sound_nth > 0 && nth.is_multiple_of(harm.drop_sound_nth) {
                        state.dropped.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    if harm.late_nth > 0 && client.sound.is_multiple_of(harm.late_nth) {
                        due += harm.late;
                    }
                }
                if is_picture(datagram, false) {
                    let nth = state.pictures.fetch_add(1, Ordering::Relaxed) + 1;
                    if harm.drop_pictures_nth > 0 && nth.is_multiple_of(harm.drop_pictures_nth) {
                        state.dropped.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                }
                if harm.drop_repeats && is_picture(datagram, true) {
                    continue;
                }
                let place = queue.partition_point(|(other, _)| *other <= due);
                queue.insert(place, (due, datagram.to_vec()));
            }
        }
        let held = state.holding.lock().unwrap().is_some_and(|(since, holds)| {
            let rounds = now.saturating_duration_since(since).as_secs_f64() / holds.every.as_secs_f64();
            let length = holds.lengths[(rounds as usize + 1) % 2];
            rounds >= 1.0 && rounds.fract() * holds.every.as_secs_f64() < length.as_secs_f64()
        });
        if held {
            holding_since = holding_since.or(Some(now));
        } else if let Some(since) = holding_since.take() {
            for (client, datagram) in held_back.drain(..) {
                let _ = clients[client].upstream.send_to(&datagram, media);
            }
            state.held.lock().unwrap().push(since.elapsed());
        }
        for client in &mut clients {
            if client.first_media.is_some_and(|first| now >= first + harm.hold_first) {
                for datagram in client.early.drain(..) {
                    let _ = client.upstream.send_to(&datagram, media);
                }
            }
        }
        while up.front().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, client, datagram)) = up.pop_front() else { break };
            if is_media(&datagram) && !harm.hold_first.is_zero() {
                let here = &mut clients[client];
                let first = *here.first_media.get_or_insert(now);
                if now < first + harm.hold_first {
                    here.early.push(datagram);
                    continue;
                }
            }
            if held && is_media(&datagram) {
                held_back.push_back((client, datagram));
            } else {
                let _ = clients[client].upstream.send_to(&datagram, media);
            }
        }
        for (client, queue) in clients.iter().zip(&mut down) {
            while queue.front().is_some_and(|(due, _)| *due <= now) {
                let Some((_, datagram)) = queue.pop_front() else { break };
                let _ = front.send_to(&datagram, client.address);
            }
        }
        std::thread::sleep(NAP);
    }
}
