//! The queue of datagrams that a shard wants sent, laid out for UDP segmentation offload.

use std::fmt;
use std::net::SocketAddr;

use crate::ids::{Remote, TcpId};

/// Most segments in one [`Transmit`]: the kernel's `UDP_MAX_SEGMENTS` was 64 before Linux 6.9.
const MAX_SEGMENTS: usize = 64;
/// Most bytes in one [`Transmit`]; UDP over IPv4 carries 65,507.
const MAX_TRANSMIT: usize = 65_000;

/// A run of datagrams to one UDP address that lie back to back in the queue's buffer.
///
/// All have `segment` bytes but the last, which may be shorter: what `UDP_SEGMENT` takes in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub dst: SocketAddr,
    /// Start in [`TxQueue::buffer`].
    pub offset: usize,
    /// Bytes of the whole run.
    pub len: usize,
    /// Bytes of each datagram but the last.
    pub segment: usize,
}

impl Transmit {
    /// Number of datagrams in the run.
    pub fn datagrams(&self) -> usize {
        self.len.div_ceil(self.segment.max(1))
    }
}

/// One datagram for a TCP connection, still without the length before it
/// ([RFC 4571 section 2](https://www.rfc-editor.org/rfc/rfc4571#section-2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    addr: SocketAddr,
    connection: TcpId,
    offset: usize,
    len: usize,
}

/// Takes what a queue holds while it is still being filled.
type Outlet = Box<dyn FnMut(&TxQueue)>;

/// Datagrams waiting to be sent. Grows to the largest batch once and is then reused without allocating.
#[derive(Default)]
pub struct TxQueue {
    buf: Vec<u8>,
    /// End of what is committed; bytes behind it are scratch.
    end: usize,
    runs: Vec<Transmit>,
    /// The last run may grow: all its datagrams have the same length. How many it has.
    open: bool,
    segments: usize,
    frames: Vec<Frame>,
    /// Bytes of each datagram, UDP and TCP, in the order of queueing.
    sizes: Vec<usize>,
    /// What went out through the outlet since the last [`TxQueue::clear`].
    relieved: (usize, usize),
    /// Where to, from so many bytes on.
    outlet: Option<(usize, Outlet)>,
}

impl fmt::Debug for TxQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TxQueue")
            .field("count", &self.count())
            .field("bytes", &self.end)
            .finish_non_exhaustive()
    }
}

impl TxQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// A queue that is emptied into `outlet` while it is being filled, whenever it has `limit` bytes. What is sent while it
    /// is still in the cache is cheaper than a whole fan-out at the end. `outlet` sends the queue's [`TxQueue::runs`].
    pub fn with_outlet(limit: usize, outlet: impl FnMut(&TxQueue) + 'static) -> Self {
        Self { outlet: Some((limit, Box::new(outlet))), ..Self::default() }
    }

    /// Empties a queue that has an outlet and much to send. To be called between receivers, as runs end here. A queue with
    /// datagrams for TCP connections is left as it is.
    pub fn relieve(&mut self) {
        if self.outlet.as_ref().is_none_or(|(limit, _)| self.end < *limit) || !self.frames.is_empty() {
            return;
        }
        let Some((limit, mut outlet)) = self.outlet.take() else { return };
        outlet(self);
        self.outlet = Some((limit, outlet));
        let relieved = self.queued();
        self.clear();
        self.relieved = relieved;
    }

    /// Datagrams and bytes queued since the last [`TxQueue::clear`], whether they still wait or not.
    pub fn queued(&self) -> (usize, usize) {
        (self.relieved.0 + self.count(), self.relieved.1 + self.end)
    }

    /// A slot of `max_len` bytes at the end. Write into it, then [`TxSlot::commit`]; dropping it leaves no trace.
    pub fn reserve(&mut self, max_len: usize) -> TxSlot<'_> {
        let want = self.end + max_len;
        if self.buf.len() < want {
            self.buf.resize(want.next_power_of_two(), 0);
        }
        TxSlot { queue: self, max_len }
    }

    /// Copies a finished datagram into the queue.
    pub fn push(&mut self, dst: impl Into<Remote>, datagram: &[u8]) {
        let mut slot = self.reserve(datagram.len());
        slot.bytes().copy_from_slice(datagram);
        slot.commit(dst, datagram.len());
    }

    /// The bytes that [`Transmit::offset`] points into.
    pub fn buffer(&self) -> &[u8] {
        &self.buf[..self.end]
    }

    /// The runs for UDP, in order.
    pub fn runs(&self) -> &[Transmit] {
        &self.runs
    }

    /// The datagrams for TCP connections, in order.
    pub fn frames(&self) -> impl Iterator<Item = (TcpId, &[u8])> {
        self.frames.iter().map(|f| (f.connection, &self.buf[f.offset..f.offset + f.len]))
    }

    /// Each datagram by itself: first those for UDP, then those for TCP, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = (Remote, &[u8])> {
        let udp = self.runs.iter().flat_map(|run| {
            let chunks = self.buf[run.offset..run.offset + run.len].chunks(run.segment.max(1));
            chunks.map(move |chunk| (run.dst.into(), chunk))
        });
        let tcp = self
            .frames
            .iter()
            .map(|f| (Remote::tcp(f.addr, f.connection), &self.buf[f.offset..f.offset + f.len]));
        udp.chain(tcp)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// Datagrams that wait.
    pub fn count(&self) -> usize {
        self.sizes.len()
    }

    /// Bytes of each datagram that waits, in the order of queueing.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.end
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.end = 0;
        self.sizes.clear();
        self.relieved = (0, 0);
        self.runs.clear();
        self.frames.clear();
    }

    fn commit(&mut self, dst: Remote, len: usize) {
        debug_assert!(len > 0);
        let offset = self.end;
        self.end += len;
        self.sizes.push(len);
        let Remote { addr: dst, tcp } = dst;
        if let Some(connection) = tcp {
            return self.frames.push(Frame { addr: dst, connection, offset, len });
        }
        if let Some(last) = self.runs.last_mut()
            && self.open
            && len <= last.segment
            && last.offset + last.len == offset
            && last.len + len <= MAX_TRANSMIT
            && self.segments < MAX_SEGMENTS
            && last.dst == dst
        {
            last.len += len;
            self.segments += 1;
            self.open = len == last.segment;
            return;
        }
        self.runs.push(Transmit { dst, offset, len, segment: len });
        self.open = true;
        self.segments = 1;
    }
}

/// Room for one datagram at the end of a [`TxQueue`].
#[derive(Debug)]
pub struct TxSlot<'a> {
    queue: &'a mut TxQueue,
    max_len: usize,
}

impl TxSlot<'_> {
    /// The room reserved.
    pub fn bytes(&mut self) -> &mut [u8] {
        let start = self.queue.end;
        &mut self.queue.buf[start..start + self.max_len]
    }

    /// Makes the first `len` bytes a datagram for `dst`. Zero bytes are no datagram and leave no trace.
    pub fn commit(self, dst: impl Into<Remote>, len: usize) {
        assert!(len <= self.max_len, "a slot holds {} bytes, not {len}", self.max_len);
        if len > 0 {
            self.queue.commit(dst.into(), len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn equal_sizes_to_one_destination_become_one_run() {
        let mut q = TxQueue::new();
        for len in [100, 100, 100, 60, 100] {
            q.push(to(1), &vec![7; len]);
        }
        q.push(to(2), &[1; 100]);
        let runs: Vec<_> = q.runs().iter().map(|t| (t.dst.port(), t.len, t.segment, t.datagrams())).collect();
        // A shorter datagram closes its run.
        assert_eq!(runs, [(1, 360, 100, 4), (1, 100, 100, 1), (2, 100, 100, 1)]);
        let sizes: Vec<_> = q.datagrams().map(|(_, d)| d.len()).collect();
        assert_eq!(sizes, [100, 100, 100, 60, 100, 100]);
        assert_eq!(q.sizes(), sizes);
    }

    #[test]
    fn a_dropped_slot_leaves_no_trace() {
        let mut q = TxQueue::new();
        q.reserve(50).bytes().fill(9);
        assert!(q.is_empty());
        q.push(to(1), b"abc");
        assert_eq!(q.datagrams().collect::<Vec<_>>(), [(to(1).into(), &b"abc"[..])]);
        q.clear();
        assert!(q.is_empty() && q.buffer().is_empty());
    }

    #[test]
    fn an_outlet_takes_all_in_order_and_the_figures_go_on() {
        let taken = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let theirs = std::rc::Rc::clone(&taken);
        let mut q = TxQueue::with_outlet(250, move |q| {
            theirs.borrow_mut().extend(q.datagrams().map(|(to, d)| (to.addr.port(), d[0])));
        });
        for n in 0..7u8 {
            q.push(to(u16::from(n) / 2), &[n; 100]);
            q.relieve();
        }
        assert_eq!(*taken.borrow(), [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 5)]);
        assert_eq!((q.count(), q.len(), q.queued()), (1, 100, (7, 700)));
        // A run does not go on behind what is gone.
        assert_eq!(q.runs().iter().map(|run| (run.offset, run.len)).collect::<Vec<_>>(), [(0, 100)]);
        q.push(Remote::tcp(to(9), TcpId(1)), &[9; 500]);
        q.relieve();
        assert_eq!(q.count(), 2, "datagrams for TCP wait for the end");
        q.clear();
        assert_eq!(q.queued(), (0, 0));
    }

    #[test]
    fn runs_stay_within_what_the_kernel_takes() {
        let mut q = TxQueue::new();
        for _ in 0..200 {
            q.push(to(1), &[0; 1200]);
        }
        assert!(q.runs().iter().all(|t| t.len <= MAX_TRANSMIT && t.datagrams() <= MAX_SEGMENTS));
        assert_eq!(q.datagrams().count(), 200);
    }

    #[test]
    fn a_frame_for_tcp_is_no_part_of_a_run() {
        let mut q = TxQueue::new();
        let (tcp, again) = (Remote::tcp(to(1), TcpId(1)), Remote::tcp(to(1), TcpId(2)));
        for dst in [to(1).into(), to(1).into(), tcp, to(1).into(), again] {
            q.push(dst, &[7; 100]);
        }
        assert_eq!(q.runs().iter().map(|t| (t.offset, t.len)).collect::<Vec<_>>(), [(0, 200), (300, 100)]);
        assert_eq!(
            q.frames().map(|(id, f)| (id, f.len())).collect::<Vec<_>>(),
            [(TcpId(1), 100), (TcpId(2), 100)]
        );
        let udp = Remote::from(to(1));
        assert_eq!(q.datagrams().map(|(dst, _)| dst).collect::<Vec<_>>(), [udp, udp, udp, tcp, again]);
        assert_eq!((q.count(), q.len()), (5, 500));
        q.clear();
        assert!(q.is_empty() && q.datagrams().next().is_none());
    }
}
