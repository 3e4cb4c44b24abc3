//! How many bits a second each layer of a stream takes.

use std::time::{Duration, Instant};

/// Spatial layers inside one stream, and temporal layers, at most.
const LAYERS: usize = 4;
/// Steps in which bytes are forgotten.
const BUCKET: Duration = Duration::from_millis(100);
/// A layer without packets for so many of them is not there any more.
const GONE_AFTER: u64 = 10;
/// A rate counts when it was measured for so long: the key frame at the start says little.
const KNOWN_AFTER: Duration = Duration::from_millis(500);

/// Bytes of one tenth of a second by spatial and temporal layer.
type Bytes = [[u32; LAYERS]; LAYERS];

/// The rates of the layers inside one stream over the last so many tenths of a second.
#[derive(Debug)]
pub struct LayerRates<const TENTHS: usize> {
    buckets: [Bytes; TENTHS],
    sum: Bytes,
    /// The tenth of a second, counted from `since`, that the newest bucket is of.
    newest: u64,
    /// Until which one each layer counts as being there.
    there_until: [[u64; LAYERS]; LAYERS],
    /// When the first packet came after a silence.
    since: Option<Instant>,
}

impl<const TENTHS: usize> Default for LayerRates<TENTHS> {
    fn default() -> Self {
        Self {
            buckets: [Bytes::default(); TENTHS],
            sum: Bytes::default(),
            newest: 0,
            there_until: Default::default(),
            since: None,
        }
    }
}

impl<const TENTHS: usize> LayerRates<TENTHS> {
    /// Counts a packet of a layer by what it takes on the wire.
    pub fn record(&mut self, spatial: u8, temporal: u8, bytes: usize, now: Instant) {
        self.advance(now);
        if self.since.is_none() {
            self.since = Some(now);
            self.newest = 0;
        }
        let (spatial, temporal) =
            (usize::from(spatial).min(LAYERS - 1), usize::from(temporal).min(LAYERS - 1));
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let place = (self.newest % TENTHS as u64) as usize;
        for counter in [&mut self.buckets[place], &mut self.sum] {
            counter[spatial][temporal] = counter[spatial][temporal].saturating_add(bytes);
        }
        self.there_until[spatial][temporal] = self.newest + GONE_AFTER;
    }

    /// What everything up to this layer takes, in bits per second. `None` before half a second of packets.
    pub fn up_to(&mut self, spatial: u8, temporal: u8, now: Instant) -> Option<u64> {
        self.advance(now);
        let span = now.saturating_duration_since(self.since?);
        if span < KNOWN_AFTER {
            return None;
        }
        let up_to = |layer: u8| usize::from(layer).min(LAYERS - 1);
        let rows = self.sum[..=up_to(spatial)].iter();
        let bytes: u64 = rows.flat_map(|row| &row[..=up_to(temporal)]).map(|bytes| u64::from(*bytes)).sum();
        // The newest bucket is not over yet.
        let into = span.as_nanos() as u64 % BUCKET.as_nanos() as u64;
        let whole = (TENTHS as u64 - 1) * BUCKET.as_nanos() as u64 + into;
        Some(bytes * 8 * 1_000_000_000 / whole.min(span.as_nanos() as u64).max(1))
    }

    /// Whether nothing came in the last second.
    pub fn is_silent(&mut self, now: Instant) -> bool {
        self.highest(now).is_none()
    }

    /// The highest spatial layer with packets in the last second, and the highest temporal layer of any; `None` when
    /// nothing came.
    pub fn highest(&mut self, now: Instant) -> Option<(u8, u8)> {
        self.advance(now);
        highest(|spatial, temporal| self.there_until[spatial][temporal] > self.newest)
    }

    /// The same of as long as rates are measured.
    pub fn highest_of_late(&mut self, now: Instant) -> Option<(u8, u8)> {
        self.advance(now);
        highest(|spatial, temporal| self.sum[spatial][temporal] > 0)
    }

    /// Empties the buckets whose time is over.
    fn advance(&mut self, now: Instant) {
        let Some(since) = self.since else { return };
        // In 64 bits: each packet comes here.
        let at = now.saturating_duration_since(since).as_nanos() as u64 / BUCKET.as_nanos() as u64;
        if at >= self.newest + TENTHS as u64 {
            *self = Self::default();
            return;
        }
        if self.newest == at {
            return;
        }
        while self.newest < at {
            self.newest += 1;
            let old = std::mem::take(&mut self.buckets[(self.newest % TENTHS as u64) as usize]);
            for (sum, old) in self.sum.iter_mut().flatten().zip(old.iter().flatten()) {
                *sum = sum.saturating_sub(*old);
            }
        }
        if self.sum == Bytes::default() {
            *self = Self::default();
        }
    }
}

/// The highest spatial and the highest temporal layer that are there.
fn highest(is_there: impl Fn(usize, usize) -> bool) -> Option<(u8, u8)> {
    let spatial = (0..LAYERS).rfind(|spatial| (0..LAYERS).any(|temporal| is_there(*spatial, temporal)))?;
    let temporal = (0..LAYERS).rfind(|temporal| (0..LAYERS).any(|spatial| is_there(spatial, *temporal)))?;
    Some((spatial as u8, temporal as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_steady_stream_has_its_rate_by_layer() {
        let t = crate::sim::clock::epoch();
        let mut rates = LayerRates::<20>::default();
        assert_eq!((rates.up_to(0, 0, t), rates.highest(t)), (None, None));
        // 40 frames a second, every other one in the upper temporal layer: 500 and 250 bytes.
        for frame in 0..200u64 {
            let temporal = (frame % 2) as u8;
            let now = t + ms(25 * frame);
            rates.record(0, temporal, if temporal == 0 { 500 } else { 250 }, now);
            if frame < 20 {
                assert_eq!(rates.up_to(0, 0, now), None);
            } else {
                let (base, all) = (rates.up_to(0, 0, now).unwrap(), rates.up_to(3, 3, now).unwrap());
                // Exactly 80 and 120 kbit/s but for where a frame falls.
                assert!(
                    (76_000..90_000).contains(&base) && (114_000..132_000).contains(&all),
                    "{base} {all}"
                );
            }
        }
        assert_eq!(rates.highest(t + ms(5000)), Some((0, 1)));
        assert_eq!(rates.highest(t + ms(6000)), None, "a silent stream has none");
        assert_eq!(rates.up_to(0, 0, t + ms(7000)), None);
    }

    #[test]
    fn a_layer_that_pauses_is_known_for_as_long_as_rates_are_measured() {
        let t = crate::sim::clock::epoch();
        let mut rates = LayerRates::<30>::default();
        for at in 0..1000u64 {
            rates.record(0, (at % 2) as u8, 125, t + ms(at));
        }
        assert!(!rates.is_silent(t + ms(1800)));
        let later = t + ms(2800);
        assert!(rates.is_silent(later));
        assert_eq!((rates.highest(later), rates.highest_of_late(later)), (None, Some((0, 1))));
        // A second of a megabit, and nearly two of nothing.
        assert!((340_000..380_000).contains(&rates.up_to(0, 1, later).unwrap()));
        assert_eq!(rates.highest_of_late(t + ms(4100)), None);
    }

    #[test]
    fn a_rate_follows_within_its_window_and_starts_afresh_after_silence() {
        let t = crate::sim::clock::epoch();
        let mut rates = LayerRates::<20>::default();
        for at in 0..3000u64 {
            rates.record(1, 0, if at < 1000 { 125 } else { 25 }, t + ms(at));
        }
        let now = t + ms(2999);
        assert!((195_000..205_000).contains(&rates.up_to(1, 0, now).unwrap()));
        assert_eq!(rates.up_to(0, 3, now), Some(0));
        rates.record(0, 0, 1, t + ms(9000));
        assert_eq!(rates.highest(t + ms(9000)), Some((0, 0)));
        // Layers beyond the table count with the highest in it.
        rates.record(9, 9, 1000, t + ms(9001));
        assert_eq!(rates.highest(t + ms(9001)), Some((3, 3)));
    }
}
