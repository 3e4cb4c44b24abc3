//! Packets that left together as one, so that pacing and interrupts do not look like delay: libwebrtc's
//! `InterArrivalDelta`.

/// Packets that left within this of the first are one group, in µs.
const GROUP_SPAN: i64 = 5_000;
/// Packets that arrive this close to each other after they queued are one burst, in µs..
const BURST_GAP: i64 = 5_000;
/// .. if the burst lasts no longer than this, in µs.
const MAX_BURST: i64 = 100_000;
/// A jump of the receiver's clock by more than this starts over, in µs.
const MAX_JUMP: i64 = 3_000_000;
/// Groups that arrive before the one before, until the clock is held to have jumped.
const MAX_REORDERED: u32 = 3;

/// How two groups in a row differ, in µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupDelta {
    /// Between their last packets' leaving.
    pub(super) sent: i64,
    /// Between their last packets' arrival.
    pub(super) arrived: i64,
    /// When the later one was complete.
    pub(super) arrived_at: i64,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    first_sent: i64,
    last_sent: i64,
    first_arrived: i64,
    last_arrived: i64,
}

/// Cuts the stream of acknowledged packets into groups.
#[derive(Debug, Default)]
pub(super) struct PacketGroups {
    current: Option<Group>,
    previous: Option<Group>,
    reordered: u32,
}

impl PacketGroups {
    /// A packet that left at `sent` arrived at `arrived` (µs, each of its own clock). The difference of the last two
    /// complete groups, when this packet begins a new one.
    pub(super) fn on_packet(&mut self, sent: i64, arrived: i64) -> Option<GroupDelta> {
        let Some(current) = &mut self.current else {
            self.current = Some(Group::new(sent, arrived));
            return None;
        };
        if sent < current.first_sent {
            // Reordered into an older group.
            return None;
        }
        if current.takes(sent, arrived) {
            current.last_sent = current.last_sent.max(sent);
            current.last_arrived = current.last_arrived.max(arrived);
            return None;
        }
        let complete = *current;
        self.current = Some(Group::new(sent, arrived));
        let previous = self.previous.replace(complete)?;
        let delta = GroupDelta {
            sent: complete.last_sent - previous.last_sent,
            arrived: complete.last_arrived.saturating_sub(previous.last_arrived),
            arrived_at: complete.last_arrived,
        };
        if delta.arrived.saturating_sub(delta.sent).saturating_abs() > MAX_JUMP {
            *self = Self::default();
            return None;
        }
        if delta.arrived < 0 {
            self.reordered += 1;
            if self.reordered >= MAX_REORDERED {
                *self = Self::default();
            }
            return None;
        }
        self.reordered = 0;
        Some(delta)
    }
}

impl Group {
    fn new(sent: i64, arrived: i64) -> Self {
        Self { first_sent: sent, last_sent: sent, first_arrived: arrived, last_arrived: arrived }
    }

    fn takes(&self, sent: i64, arrived: i64) -> bool {
        let sent_delta = sent - self.last_sent;
        let arrived_delta = arrived.saturating_sub(self.last_arrived);
        // Packets that a queue let out in one go arrive closer together than they left.
        let burst = arrived_delta < sent_delta
            && arrived_delta <= BURST_GAP
            && arrived.saturating_sub(self.first_arrived) < MAX_BURST;
        burst || sent - self.first_sent <= GROUP_SPAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_left_together_are_one_group() {
        let mut groups = PacketGroups::default();
        for (sent, arrived) in
            [(0, 50_000), (1000, 50_100), (5000, 50_200), (20_000, 70_000), (21_000, 71_500)]
        {
            assert_eq!(groups.on_packet(sent, arrived), None);
        }
        let want = GroupDelta { sent: 16_000, arrived: 21_300, arrived_at: 71_500 };
        assert_eq!(groups.on_packet(40_000, 90_000), Some(want));
    }

    #[test]
    fn a_burst_out_of_a_queue_is_one_group() {
        let mut groups = PacketGroups::default();
        for n in 0..5 {
            assert_eq!(groups.on_packet(n * 20_000, 500_000 + n * 1000), None);
        }
        assert_eq!(groups.on_packet(200_000, 700_000), None);
        assert_eq!(groups.on_packet(220_000, 730_000).map(|d| (d.sent, d.arrived)), Some((120_000, 196_000)));
    }

    #[test]
    fn a_jump_of_the_clock_starts_over() {
        let mut groups = PacketGroups::default();
        groups.on_packet(0, 0);
        groups.on_packet(20_000, 20_000);
        groups.on_packet(40_000, 900_000_000);
        assert_eq!(groups.on_packet(60_000, 900_020_000), None);
        assert_eq!(groups.on_packet(80_000, 900_040_000), None);
        assert_eq!(groups.on_packet(100_000, i64::MIN), None);
        assert_eq!(groups.on_packet(120_000, i64::MAX), None);
    }
}
