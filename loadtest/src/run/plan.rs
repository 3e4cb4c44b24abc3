//! Which bots a scenario needs, and which of them are this tester's.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::client::BotPlan;
use crate::media::speech::Dice;
use crate::scenario::Scenario;

/// A tester's part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Number of the tester, from 0.
    pub tester: u32,
    /// Number of testers.
    pub testers: u32,
    /// Names the run, so that rooms of different runs are different rooms.
    pub run: u64,
}

impl Share {
    /// All of it.
    pub fn whole() -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { tester: 0, testers: 1, run: unix.as_millis() as u64 }
    }
}

/// The bots of a share. Rooms are spread over testers bot by bot, so that one large room is everybody's work.
pub fn plans(scenario: &Scenario, share: Share) -> Vec<BotPlan> {
    let mut all = Vec::new();
    let total = scenario.participants().max(1) as f64;
    let ramp = scenario.ramp.get();
    let mut room_number = 0u64;
    for rooms in &scenario.rooms {
        let roles: Vec<_> = rooms.roles.iter().cloned().map(Arc::new).collect();
        let voices: u64 = roles.iter().filter(|r| r.audio).map(|r| u64::from(r.count)).sum();
        for _ in 0..rooms.count {
            room_number += 1;
            let mut dice = Dice::new(scenario.seed.wrapping_add(room_number.wrapping_mul(0x9e37_79b9)));
            let room_seed = dice.roll();
            let (mut member, mut voice) = (0, 0);
            for role in &roles {
                for _ in 0..role.count {
                    let nth = all.len() as f64;
                    all.push(BotPlan {
                        room: format!("loadtest-{:x}-{room_number}", share.run),
                        identity: format!("bot-{room_number}-{member}"),
                        role: role.clone(),
                        join_at: Duration::from_secs_f64(ramp.as_secs_f64() * nth / total)
                            + role.join_after.get(),
                        room_seed,
                        seed: dice.roll(),
                        voice: (voice, voices),
                    });
                    member += 1;
                    voice += u64::from(role.audio);
                }
            }
        }
    }
    let (mine, of) = (share.tester as usize, share.testers.max(1) as usize);
    all.into_iter().skip(mine).step_by(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Resolution, Role};

    #[test]
    fn shares_make_up_the_whole_and_agree_on_the_rooms_schedule() {
        let scenario = Scenario::simple(3, vec![Role::speaking(4, Some(Resolution::P720), true)]);
        let share = |tester, testers| plans(&scenario, Share { tester, testers, run: 9 });
        let whole = share(0, 1);
        assert_eq!(whole.len(), 12);
        assert!(whole.windows(2).all(|pair| pair[0].join_at < pair[1].join_at));
        let mut parts: Vec<_> = [share(0, 2), share(1, 2)].concat();
        parts.sort_by(|a, b| a.identity.cmp(&b.identity));
        let of = |plans: &[BotPlan]| -> Vec<_> {
            plans.iter().map(|p| (p.identity.clone(), p.room.clone(), p.room_seed, p.voice)).collect()
        };
        let mut expected = of(&whole);
        expected.sort();
        assert_eq!(of(&parts), expected);
    }
}
