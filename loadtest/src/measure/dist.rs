//! A distribution of measured values that can be merged, written to JSON and read back.

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Largest value that is told apart: 60 s in microseconds. Larger ones count as that.
const MAX: u64 = 60_000_000;

/// Values in microseconds, kept to three digits.
#[derive(Debug, Clone)]
pub struct Dist(Option<Box<Histogram<u64>>>, u8);

impl Default for Dist {
    fn default() -> Self {
        Self(None, 3)
    }
}

impl Dist {
    /// Kept to one digit (a twentieth or so): small enough for each of thousands of streams.
    pub fn coarse() -> Self {
        Self(None, 1)
    }

    fn histogram(&mut self) -> &mut Histogram<u64> {
        self.0.get_or_insert_with(|| {
            let digits = self.1;
            let mut histogram = Histogram::new_with_bounds(1, 1000, digits)
                .expect("1 to 1000 with three digits at most are valid bounds");
            histogram.auto(true);
            Box::new(histogram)
        })
    }

    /// Adds a value.
    pub fn record(&mut self, micros: u64) {
        self.record_n(micros, 1);
    }

    /// Adds a value several times.
    pub fn record_n(&mut self, micros: u64, count: u64) {
        let recorded = self.histogram().record_n(micros.clamp(1, MAX), count);
        debug_assert!(recorded.is_ok(), "the histogram grows to 60 s");
    }

    /// Adds another's values.
    pub fn merge(&mut self, other: &Dist) {
        for (value, count) in other.values() {
            self.record_n(value, count);
        }
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |h| h.len())
    }

    /// The value that this share of the values does not exceed; `None` where there are none.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        self.0.as_ref().filter(|h| !h.is_empty()).map(|h| h.value_at_quantile(q))
    }

    /// The same in milliseconds; 0 where there are no values.
    pub fn ms(&self, q: f64) -> f64 {
        self.quantile(q).unwrap_or(0) as f64 / 1000.0
    }

    /// Largest value in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.0.as_ref().map_or(0.0, |h| h.max() as f64 / 1000.0)
    }

    /// Mean in milliseconds.
    pub fn mean_ms(&self) -> f64 {
        self.0.as_ref().filter(|h| !h.is_empty()).map_or(0.0, |h| h.mean() / 1000.0)
    }

    /// The values with how often each occurred.
    pub fn values(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let of = |h: &'_ Histogram<u64>| -> Vec<(u64, u64)> {
            h.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect()
        };
        self.0.as_deref().map(of).unwrap_or_default().into_iter()
    }
}

impl PartialEq for Dist {
    fn eq(&self, other: &Self) -> bool {
        self.values().eq(other.values())
    }
}

impl Serialize for Dist {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.values())
    }
}

impl<'de> Deserialize<'de> for Dist {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut dist = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            dist.record_n(value, count);
        }
        Ok(dist)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_thousandth_and_survive_json() {
        let mut dist = Dist::default();
        assert_eq!((dist.count(), dist.quantile(0.5)), (0, None));
        (1..=100_000).for_each(|v| dist.record(v));
        for (q, value) in [(0.5, 50_000.0), (0.95, 95_000.0), (0.99, 99_000.0)] {
            let measured = dist.quantile(q).unwrap() as f64;
            assert!((measured / value - 1.0).abs() < 0.001, "{q}: {measured}");
        }
        let back: Dist = serde_json::from_str(&serde_json::to_string(&dist).unwrap()).unwrap();
        assert_eq!(back.count(), dist.count());
        assert!((back.ms(0.99) / dist.ms(0.99) - 1.0).abs() < 0.001);
        let mut twice = dist.clone();
        twice.merge(&dist);
        assert_eq!(twice.count(), 200_000);
        dist.record(u64::MAX);
        assert!((dist.max_ms() - 60_000.0).abs() < 60.0, "{}", dist.max_ms());
    }
}
