//! The relay's own figures: from its `/metrics`, or from its process where that is on this machine.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::os::process_use;

/// Where the relay's figures come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelaySource {
    /// Address of its Prometheus metrics.
    pub metrics: Option<String>,
    /// Its process id on this machine.
    pub pid: Option<u32>,
    /// Read them where the window begins and ends only, not each second: a relay that does little is busy with that for as long as
    /// with a hundred packets.
    pub at_ends: bool,
}

/// The relay's counters at one moment; what is not known is `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelaySample {
    /// Seconds since the first sample.
    pub at_s: f64,
    /// CPU time in seconds of the whole process.
    pub cpu_s: Option<f64>,
    /// CPU time in seconds of the busiest media thread.
    pub shard_cpu_s: Option<f64>,
    /// Resident memory in bytes.
    pub memory: Option<f64>,
    /// How often its threads slept and were woken.
    pub wakes: Option<f64>,
    /// RTP packets received, and sent.
    pub packets_in: Option<f64>,
    /// See `packets_in`.
    pub packets_out: Option<f64>,
    /// UDP payload bytes sent.
    pub bytes_out: Option<f64>,
    /// Datagrams that the kernel did not take.
    pub overflow: Option<f64>,
}

pub(super) struct RelayWatch {
    source: RelaySource,
    http: reqwest::Client,
    first: Option<Instant>,
}

impl RelayWatch {
    pub(super) fn new(source: RelaySource) -> Self {
        Self { source, http: reqwest::Client::new(), first: None }
    }

    /// Whether a sample is wanted at a look within the window, which is the first one, the last one or one in between.
    pub(super) fn is_due(&self, first: bool, last: bool) -> bool {
        !self.source.at_ends || first || last
    }

    /// Reads the figures; `None` where no source was named.
    pub(super) async fn sample(&mut self, now: Instant) -> anyhow::Result<Option<RelaySample>> {
        if self.source.metrics.is_none() && self.source.pid.is_none() {
            return Ok(None);
        }
        let first = *self.first.get_or_insert(now);
        let mut sample =
            RelaySample { at_s: now.saturating_duration_since(first).as_secs_f64(), ..Default::default() };
        if let Some(url) = &self.source.metrics {
            let text = async {
                let request = self.http.get(url).timeout(Duration::from_secs(2)).send();
                request.await?.error_for_status()?.text().await
            };
            let text = text.await.with_context(|| {
                format!(
                    "the relay's metrics at {url} cannot be read: name the relay's own page of metrics \
                     (http://HOST:PORT/metrics), or leave --relay-metrics out"
                )
            })?;
            sample.read_metrics(&text);
            let nothing = RelaySample { at_s: sample.at_s, ..Default::default() };
            ensure!(
                sample != nothing,
                "at {url} there is none of the metrics that this tool knows (process_cpu_seconds_total and others): is it the \
                 relay's own page of metrics? --relay-pid reads a process on this machine instead"
            );
        }
        if let Some(pid) = self.source.pid {
            let Some(used) = process_use(pid) else {
                bail!("there is no process {pid} on this machine, or it is another user's")
            };
            sample.cpu_s = Some(used.cpu.as_secs_f64());
            sample.memory = Some(used.memory as f64);
            sample.wakes = Some(used.wakes as f64);
        }
        Ok(Some(sample))
    }
}

impl RelaySample {
    /// Curtain's names, LiveKit's, and those that Prometheus clients give every process.
    fn read_metrics(&mut self, text: &str) {
        let add = |to: &mut Option<f64>, value: f64| *to = Some(to.unwrap_or(0.0) + value);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.trim_end().rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let inward = labels.contains("direction=\"in\"") || labels.contains("direction=\"incoming\"");
            match name {
                "curtain_shard_cpu_seconds" => {
                    self.shard_cpu_s = Some(self.shard_cpu_s.unwrap_or(0.0).max(value));
                }
                "process_cpu_seconds_total" => self.cpu_s = Some(value),
                "process_resident_memory_bytes" => self.memory = Some(value),
                "curtain_rtp_packets_total" | "livekit_packet_total" if inward => {
                    add(&mut self.packets_in, value);
                }
                "curtain_rtp_packets_total" | "livekit_packet_total" => add(&mut self.packets_out, value),
                "curtain_bytes_total" | "livekit_packet_bytes" if !inward => add(&mut self.bytes_out, value),
                "curtain_send_overflow_total" => add(&mut self.overflow, value),
                _ => {}
            }
        }
    }
}

/// The relay's use over a window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayUse {
    /// Cores used by the whole process.
    pub cpu_cores: Option<f64>,
    /// Share of a core used by the busiest media thread.
    pub shard_cpu: Option<f64>,
    /// Highest resident memory in bytes.
    pub memory: Option<f64>,
    /// How often a second its threads slept and were woken.
    pub wakes: Option<f64>,
    /// RTP packets a second, received and sent.
    pub packets_in: Option<f64>,
    /// See `packets_in`.
    pub packets_out: Option<f64>,
    /// Bits a second sent.
    pub bits_out: Option<f64>,
    /// Datagrams that the kernel did not take.
    pub overflow: Option<f64>,
}

/// How much a counter grew. Servers begin to export some of them when there is something to count.
pub fn grown(first: &RelaySample, last: &RelaySample, of: fn(&RelaySample) -> Option<f64>) -> Option<f64> {
    Some(of(last)? - of(first).unwrap_or(0.0))
}

/// What the samples say of the whole window; `None` with fewer than two.
pub fn relay_use(samples: &[RelaySample]) -> Option<RelayUse> {
    let (first, last) = (samples.first()?, samples.last()?);
    let time = last.at_s - first.at_s;
    if time <= 0.0 {
        return None;
    }
    let grown = |of: fn(&RelaySample) -> Option<f64>| grown(first, last, of);
    let rate = |of| grown(of).map(|grown: f64| grown / time);
    Some(RelayUse {
        cpu_cores: rate(|s| s.cpu_s),
        shard_cpu: rate(|s| s.shard_cpu_s),
        memory: samples.iter().filter_map(|s| s.memory).reduce(f64::max),
        wakes: rate(|s| s.wakes),
        packets_in: rate(|s| s.packets_in),
        packets_out: rate(|s| s.packets_out),
        bits_out: rate(|s| s.bytes_out).map(|bytes| bytes * 8.0),
        overflow: grown(|s| s.overflow),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_added_up_over_shards() {
        let text = "# HELP curtain_rtp_packets_total RTP\n# TYPE curtain_rtp_packets_total counter\n\
            curtain_rtp_packets_total{shard=\"0\",direction=\"in\"} 10\n\
            curtain_rtp_packets_total{shard=\"1\",direction=\"in\"} 20\n\
            curtain_rtp_packets_total{shard=\"0\",direction=\"out\"} 300\n\
            curtain_bytes_total{shard=\"0\",direction=\"out\"} 1000\n\
            curtain_shard_cpu_seconds{shard=\"0\"} 1.5\ncurtain_shard_cpu_seconds{shard=\"1\"} 2.5\nodd\n";
        let mut first = RelaySample::default();
        first.read_metrics(text);
        assert_eq!((first.packets_in, first.packets_out), (Some(30.0), Some(300.0)));
        assert_eq!((first.shard_cpu_s, first.memory), (Some(2.5), None));
        let mut last = RelaySample { at_s: 10.0, ..RelaySample::default() };
        last.read_metrics(&text.replace(" 300", " 800").replace(" 2.5", " 7.5").replace(" 1000", " 6000"));
        let used = relay_use(&[first.clone(), last]).unwrap();
        assert_eq!((used.packets_in, used.packets_out), (Some(0.0), Some(50.0)));
        assert_eq!((used.shard_cpu, used.bits_out, used.cpu_cores), (Some(0.5), Some(4000.0), None));
        assert_eq!(relay_use(&[first]), None);
    }

    #[test]
    fn a_relay_that_is_not_to_be_disturbed_is_read_at_the_ends() {
        let due = |at_ends| {
            let watch = RelayWatch::new(RelaySource { at_ends, ..RelaySource::default() });
            [(true, false), (false, false), (false, true)].map(|(first, last)| watch.is_due(first, last))
        };
        assert_eq!((due(false), due(true)), ([true, true, true], [true, false, true]));
    }

    #[test]
    fn a_counter_that_was_not_there_yet_was_at_zero() {
        let first = RelaySample { cpu_s: Some(3.0), ..RelaySample::default() };
        let last =
            RelaySample { at_s: 2.0, cpu_s: Some(4.0), packets_out: Some(500.0), ..RelaySample::default() };
        let used = relay_use(&[first, last]).unwrap();
        assert_eq!((used.cpu_cores, used.packets_out, used.shard_cpu), (Some(0.5), Some(250.0), None));
    }

    #[test]
    fn a_livekit_server_is_read_by_its_own_names() {
        let text = "livekit_packet_total{direction=\"incoming\",node_id=\"N\",transmission=\"initial\"} 70\n\
            livekit_packet_total{direction=\"incoming\",node_id=\"N\",transmission=\"retransmit\"} 5\n\
            livekit_packet_total{direction=\"outgoing\",node_id=\"N\",transmission=\"initial\"} 500\n\
            livekit_packet_bytes{direction=\"outgoing\",node_id=\"N\",transmission=\"initial\"} 9e+06\n\
            process_cpu_seconds_total 12.5\nprocess_resident_memory_bytes 5.2e+07\n";
        let mut sample = RelaySample::default();
        sample.read_metrics(text);
        assert_eq!(
            (sample.packets_in, sample.packets_out, sample.bytes_out),
            (Some(75.0), Some(500.0), Some(9e6))
        );
        assert_eq!((sample.cpu_s, sample.memory, sample.shard_cpu_s), (Some(12.5), Some(5.2e7), None));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_for_metrics(text in "(curtain_rtp_packets_total|[a-z{}=\" \n])*[ 0-9.e+-]*") {
            RelaySample::default().read_metrics(&text);
        }
    }
}
