//! Every metric of the relay, by name, in one place.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use sfu_media::command::{CloseReason, PeerQuality};
use sfu_media::drop_reason::DropReason;
use sfu_media::stats::ShardStats;

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_gauge!("curtain_rooms", "Rooms that exist.");
    describe_gauge!("curtain_participants", "Participants in all rooms.");
    describe_gauge!("curtain_tracks", "Tracks published in all rooms.");
    describe_counter!("curtain_room_events_total", "What happened in rooms, by event.");
    describe_counter!("curtain_sessions_total", "Signalling sessions opened, by outcome.");
    describe_counter!("curtain_sessions_slow_total", "Sessions closed because the client fell behind.");
    describe_counter!("curtain_peers_closed_total", "Transports that ended by themselves, by reason.");
    describe_counter!("curtain_datagrams_total", "UDP datagrams, by shard and direction.");
    describe_counter!("curtain_bytes_total", "UDP payload bytes, by shard and direction.");
    describe_counter!(
        "curtain_rtp_packets_total",
        "RTP packets accepted (in) and forwarded (out), by shard."
    );
    describe_counter!(
        "curtain_relayed_packets_total",
        "RTP packets taken over from other shards (in) and handed to them (out), by shard."
    );
    describe_counter!("curtain_rtx_packets_total", "Retransmissions received (in) and sent (out), by shard.");
    describe_counter!(
        "curtain_nack_packets_total",
        "Packets asked for by NACK: by subscribers (in), of publishers (out)."
    );
    describe_counter!("curtain_pli_total", "Key-frame requests: of subscribers (in), to publishers (out).");
    describe_counter!("curtain_probes_total", "Bandwidth probes begun, by shard.");
    describe_counter!("curtain_padding_packets_total", "Packets of padding sent for probes, by shard.");
    describe_counter!("curtain_padding_bytes_total", "Bytes of these datagrams, by shard.");
    describe_counter!("curtain_paced_packets_total", "Packets that waited for their turn, by shard.");
    describe_counter!(
        "curtain_paced_microseconds_total",
        "How long they waited in all, in microseconds, by shard."
    );
    describe_counter!("curtain_stream_pauses_total", "Subscriptions paused because nothing fit, by shard.");
    describe_counter!("curtain_stream_resumes_total", "Subscriptions resumed after that, by shard.");
    describe_gauge!("curtain_estimated_peers", "Peers whose path is estimated, by shard.");
    describe_gauge!("curtain_estimated_bps", "Sum of these estimates in bits per second, by shard.");
    describe_counter!("curtain_data_messages_total", "Data-channel messages, by shard and direction.");
    describe_counter!("curtain_handshakes_total", "DTLS handshakes completed, by shard.");
    describe_counter!("curtain_drops_total", "Packets that went no further, by shard and reason.");
    describe_counter!(
        "curtain_send_overflow_total",
        "Datagrams that the kernel or a TCP connection did not take, by shard."
    );
    describe_gauge!("curtain_tcp_connections", "TCP connections for media.");
    describe_counter!("curtain_tcp_ended_total", "TCP connections for media that ended, by reason.");
    describe_counter!(
        "curtain_tcp_stale_total",
        "Media packets dropped because a TCP connection was too slow for them."
    );
    describe_counter!(
        "curtain_data_overflow_total",
        "Data-channel messages dropped because a room was behind."
    );
    describe_counter!("curtain_jwks_failures_total", "Failed attempts to read the key set.");
    describe_gauge!("curtain_shard_cpu_seconds", "CPU time of the shard's thread.");
    describe_counter!(
        "curtain_packets_lost_total",
        "Packets lost before repair: from publishers (up), to subscribers (down)."
    );
    describe_counter!(
        "curtain_packets_expected_total",
        "Packets that should have arrived: from publishers (up), at subscribers (down)."
    );
    describe_histogram!(
        "curtain_rtt_seconds",
        "Round-trip time to each connected peer, sampled every two seconds."
    );
    describe_histogram!(
        "curtain_jitter_seconds",
        "Interarrival jitter of each connected peer's worst stream."
    );
    start_at_zero();
}

/// A counter that appears with its first event has no rate at that event: alerts on rare events would miss the first.
fn start_at_zero() {
    for event in ["room_started", "participant_joined", "track_published"] {
        count_gauge(event, 0.0);
    }
    for outcome in ["accepted", "refused"] {
        counter!("curtain_sessions_total", "outcome" => outcome).absolute(0);
    }
    for reason in CloseReason::ALL {
        counter!("curtain_peers_closed_total", "reason" => reason.label()).absolute(0);
    }
    for reason in ["refused", "unproven", "timeout"] {
        counter!("curtain_tcp_ended_total", "reason" => reason).absolute(0);
    }
    for name in [
        "curtain_sessions_slow_total",
        "curtain_data_overflow_total",
        "curtain_tcp_stale_total",
        "curtain_jwks_failures_total",
    ] {
        counter!(name).absolute(0);
    }
    for direction in ["up", "down"] {
        counter!("curtain_packets_expected_total", "direction" => direction).absolute(0);
        counter!("curtain_packets_lost_total", "direction" => direction).absolute(0);
    }
    gauge!("curtain_tcp_connections").set(0.0);
}

fn count_gauge(event: &str, by: f64) {
    let (name, sign) = match event {
        "room_started" => ("curtain_rooms", 1.0),
        "room_finished" => ("curtain_rooms", -1.0),
        "participant_joined" => ("curtain_participants", 1.0),
        "participant_left" => ("curtain_participants", -1.0),
        "track_published" => ("curtain_tracks", 1.0),
        "track_unpublished" => ("curtain_tracks", -1.0),
        _ => return,
    };
    gauge!(name).increment(sign * by);
}

/// An entry of the event feed.
pub(crate) fn room_event(event: &str) {
    counter!("curtain_room_events_total", "event" => event.to_owned()).increment(1);
    count_gauge(event, 1.0);
}

/// A session was accepted or refused.
pub(crate) fn session(outcome: &'static str) {
    counter!("curtain_sessions_total", "outcome" => outcome).increment(1);
}

/// A session was closed because its client fell behind.
pub(crate) fn slow_session() {
    counter!("curtain_sessions_slow_total").increment(1);
}

/// A transport ended by itself.
pub(crate) fn peer_closed(reason: &'static str) {
    counter!("curtain_peers_closed_total", "reason" => reason).increment(1);
}

/// A data-channel message was dropped because its room was behind.
pub(crate) fn data_overflow() {
    counter!("curtain_data_overflow_total").increment(1);
}

/// TCP connections for media, now.
pub(crate) fn tcp_connections(count: usize) {
    gauge!("curtain_tcp_connections").set(count as f64);
}

/// A TCP connection for media ended, or was never served.
pub(crate) fn tcp_ended(reason: &'static str) {
    counter!("curtain_tcp_ended_total", "reason" => reason).increment(1);
}

/// A media packet waited too long for its TCP connection.
pub(crate) fn tcp_stale() {
    counter!("curtain_tcp_stale_total").increment(1);
}

/// The key set could not be read.
pub(crate) fn jwks_failure() {
    counter!("curtain_jwks_failures_total").increment(1);
}

/// Connection figures of peers.
pub(crate) fn quality(peers: &[PeerQuality]) {
    for peer in peers {
        counter!("curtain_packets_expected_total", "direction" => "up")
            .increment(u64::from(peer.up_expected));
        counter!("curtain_packets_lost_total", "direction" => "up").increment(u64::from(peer.up_lost));
        counter!("curtain_packets_expected_total", "direction" => "down")
            .increment(u64::from(peer.down_sent));
        counter!("curtain_packets_lost_total", "direction" => "down").increment(u64::from(peer.down_lost));
        if let Some(rtt) = peer.rtt {
            histogram!("curtain_rtt_seconds").record(rtt.as_secs_f64());
        }
        histogram!("curtain_jitter_seconds").record(peer.jitter.as_secs_f64());
    }
}

/// A shard's counters, about once a second.
pub(crate) fn shard(index: usize, stats: &ShardStats, cpu: Duration, send_overflow: u64) {
    let shard = index.to_string();
    let both = |name: &'static str, inward: u64, outward: u64| {
        counter!(name, "shard" => shard.clone(), "direction" => "in").absolute(inward);
        counter!(name, "shard" => shard.clone(), "direction" => "out").absolute(outward);
    };
    both("curtain_datagrams_total", stats.datagrams_in, stats.datagrams_out);
    both("curtain_bytes_total", stats.bytes_in, stats.bytes_out);
    both("curtain_rtp_packets_total", stats.rtp_in, stats.rtp_out);
    both("curtain_relayed_packets_total", stats.relayed_in, stats.relayed_out);
    both("curtain_rtx_packets_total", stats.rtx_in, stats.rtx_out);
    both("curtain_nack_packets_total", stats.nack_in, stats.nack_out);
    both("curtain_pli_total", stats.pli_in, stats.pli_out);
    both("curtain_data_messages_total", stats.data_in, stats.data_out);
    for (name, value) in [
        ("curtain_probes_total", stats.probes),
        ("curtain_padding_packets_total", stats.padding_packets),
        ("curtain_padding_bytes_total", stats.padding_bytes),
        ("curtain_paced_packets_total", stats.paced_packets),
        ("curtain_paced_microseconds_total", stats.paced_micros),
        ("curtain_stream_pauses_total", stats.pauses),
        ("curtain_stream_resumes_total", stats.resumes),
    ] {
        counter!(name, "shard" => shard.clone()).absolute(value);
    }
    gauge!("curtain_estimated_peers", "shard" => shard.clone()).set(stats.estimated_peers as f64);
    gauge!("curtain_estimated_bps", "shard" => shard.clone()).set(stats.estimate_bps as f64);
    counter!("curtain_handshakes_total", "shard" => shard.clone()).absolute(stats.handshakes);
    counter!("curtain_send_overflow_total", "shard" => shard.clone()).absolute(send_overflow);
    // The recorder has whole-number counters only.
    gauge!("curtain_shard_cpu_seconds", "shard" => shard.clone()).set(cpu.as_secs_f64());
    for reason in DropReason::ALL {
        counter!("curtain_drops_total", "shard" => shard.clone(), "reason" => reason.label())
            .absolute(stats.dropped(*reason));
    }
}
