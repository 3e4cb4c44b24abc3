//! Names and meaning of the metrics.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

pub(crate) const SESSIONS: &str = "curtain_signaling_sessions";
pub(crate) const JOINS: &str = "curtain_signaling_joins_total";
pub(crate) const JOIN_SECONDS: &str = "curtain_signaling_join_seconds";
pub(crate) const MESSAGES: &str = "curtain_signaling_messages_total";
pub(crate) const MALFORMED: &str = "curtain_signaling_malformed_messages_total";
pub(crate) const CLOSES: &str = "curtain_signaling_closes_total";
pub(crate) const TWIRP: &str = "curtain_signaling_twirp_requests_total";
pub(crate) const LINK_UP: &str = "curtain_signaling_relay_link_up";
pub(crate) const CONNECTIONS: &str = "curtain_signaling_connections";
pub(crate) const CONNECTIONS_REFUSED: &str = "curtain_signaling_connections_refused_total";
pub(crate) const AUDIT_WRITTEN: &str = "curtain_signaling_audit_entries_total";
pub(crate) const AUDIT_DROPPED: &str = "curtain_signaling_audit_dropped_total";
pub(crate) const AUDIT_FAILURES: &str = "curtain_signaling_audit_failures_total";
pub(crate) const JWKS_FAILURES: &str = "curtain_signaling_jwks_failures_total";

/// Tells the recorder, if there is one, what the metrics mean.
pub(crate) fn describe() {
    describe_gauge!(SESSIONS, "Sessions of participants that are open now");
    describe_counter!(JOINS, "Attempts to join or resume, by outcome");
    describe_histogram!(JOIN_SECONDS, Unit::Seconds, "Time until the relay accepted a session");
    describe_counter!(MESSAGES, "Signal messages, by direction");
    describe_counter!(MALFORMED, "Messages of clients that could not be understood");
    describe_counter!(CLOSES, "Ended sessions, by reason");
    describe_counter!(TWIRP, "RoomService calls, by method and outcome");
    describe_gauge!(LINK_UP, "1 while the media relay can be reached");
    describe_gauge!(CONNECTIONS, "TCP connections that are open now");
    describe_counter!(CONNECTIONS_REFUSED, "TCP connections refused or dropped early, by reason");
    describe_counter!(AUDIT_WRITTEN, "Entries written to the audit trail");
    describe_counter!(AUDIT_DROPPED, "Entries that the audit trail had no room for");
    describe_counter!(AUDIT_FAILURES, "Failed attempts to write to the audit trail");
    describe_counter!(JWKS_FAILURES, "Failed attempts to read the key set");
    start_at_zero();
}

/// A counter that appears with its first event has no rate at that event: alerts on rare events would miss the first.
fn start_at_zero() {
    for name in [MALFORMED, AUDIT_WRITTEN, AUDIT_DROPPED, AUDIT_FAILURES, JWKS_FAILURES] {
        counter!(name).absolute(0);
    }
    for outcome in ["accepted", "unauthenticated", "denied", "bad_request", "relay_unavailable"] {
        counter!(JOINS, "outcome" => outcome).absolute(0);
    }
    for reason in ["limit", "tls"] {
        counter!(CONNECTIONS_REFUSED, "reason" => reason).absolute(0);
    }
    gauge!(SESSIONS).increment(0.0);
    gauge!(CONNECTIONS).increment(0.0);
}
