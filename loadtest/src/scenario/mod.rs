//! What the fleet does: rooms, who is in them, and for how long.

mod ready;
mod span;

use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

pub use self::ready::{READY, ready};
pub use self::span::Span;
use crate::client::LinkSpec;
use crate::report::Objectives;

/// Participants of one run: more than any number of testers drives, and few enough to be counted out.
const MOST: u64 = 100_000;

/// A run's plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name, for reports.
    #[serde(default)]
    pub name: String,
    /// How long is measured, once everybody had time to join.
    #[serde(default = "defaults::duration")]
    pub duration: Span,
    /// Over how long the joins are spread.
    #[serde(default = "defaults::ramp")]
    pub ramp: Span,
    /// Time after the last join before measuring starts.
    #[serde(default = "defaults::settle")]
    pub settle: Span,
    /// Measure from the first join on: what a join storm does to those who are there already is the question.
    #[serde(default)]
    pub measure_joining: bool,
    /// Frames are encrypted end to end.
    #[serde(default = "defaults::yes")]
    pub e2ee: bool,
    /// The random choices follow from it.
    #[serde(default)]
    pub seed: u64,
    /// What is demanded of the relay where that is not the usual.
    #[serde(default, skip_serializing_if = "Objectives::is_usual")]
    pub objectives: Objectives,
    /// Kinds of rooms.
    pub rooms: Vec<Rooms>,
}

/// Rooms of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rooms {
    /// How many.
    #[serde(default = "defaults::one")]
    pub count: u32,
    /// Who is in each.
    pub roles: Vec<Role>,
}

/// Participants of a room that do the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// How many in each room.
    #[serde(default = "defaults::one")]
    pub count: u32,
    /// Size of the camera's picture; none for no camera.
    #[serde(default)]
    pub video: Option<Resolution>,
    /// Send the picture in several sizes.
    #[serde(default = "defaults::yes")]
    pub simulcast: bool,
    /// Bits a second of the picture's largest size, in place of the usual.
    #[serde(default)]
    pub bitrate: Option<u32>,
    /// Send the same from second to second in place of what people and cameras do.
    #[serde(default)]
    pub steady: Option<Steady>,
    /// Has a microphone.
    #[serde(default)]
    pub audio: bool,
    /// Share of the time outside of its turns for which the microphone is off, 0 to 1.
    #[serde(default = "defaults::muted")]
    pub muted: f64,
    /// How its page shows the others.
    #[serde(default)]
    pub layout: Layout,
    /// How many of the others its page shows at most.
    #[serde(default = "defaults::tiles")]
    pub tiles: usize,
    /// How much later than the ramp has it, it joins.
    #[serde(default)]
    pub join_after: Span,
    /// How long it stays (on average, at random) before it leaves; without it, to the end.
    #[serde(default)]
    pub stay: Option<Span>,
    /// How long it is away before it joins again.
    #[serde(default)]
    pub away: Span,
    /// Its access network, where that is a bad one.
    #[serde(default)]
    pub link: Option<LinkSpec>,
}

/// Streams that do not vary, to compare relays by: a picture of one size, and a microphone that always hears speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steady {
    /// Packets of the picture a second.
    pub packets: u32,
    /// RTP payload of each, in bytes.
    pub payload: u16,
}

/// How a page shows the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// All of one size.
    #[default]
    Grid,
    /// Who speaks large, the others small.
    Speaker,
}

/// Size of a camera's picture, with the layers that LiveKit's SDKs send for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// 320x180.
    #[serde(rename = "180p")]
    P180,
    /// 640x360.
    #[serde(rename = "360p")]
    P360,
    /// 1280x720.
    #[serde(rename = "720p")]
    P720,
    /// 1920x1080.
    #[serde(rename = "1080p")]
    P1080,
}

/// One encoding of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Bits a second.
    pub bitrate: u32,
    /// Frames a second.
    pub fps: u32,
}

impl Layer {
    const P180: Self = Self { width: 320, height: 180, bitrate: 160_000, fps: 20 };
    const P360: Self = Self { width: 640, height: 360, bitrate: 450_000, fps: 20 };
    const P720: Self = Self { width: 1280, height: 720, bitrate: 1_700_000, fps: 30 };
    const P1080: Self = Self { width: 1920, height: 1080, bitrate: 3_000_000, fps: 30 };
}

impl Resolution {
    /// The encodings, smallest first: the presets of LiveKit's SDKs.
    pub fn layers(self, simulcast: bool) -> &'static [Layer] {
        let all: &'static [Layer] = match self {
            Resolution::P180 => &[Layer::P180],
            Resolution::P360 => &[Layer::P180, Layer::P360],
            Resolution::P720 => &[Layer::P180, Layer::P360, Layer::P720],
            Resolution::P1080 => &[Layer::P180, Layer::P360, Layer::P1080],
        };
        if simulcast { all } else { &all[all.len() - 1..] }
    }
}

impl std::str::FromStr for Resolution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "180p" => Ok(Resolution::P180),
            "360p" => Ok(Resolution::P360),
            "720p" => Ok(Resolution::P720),
            "1080p" => Ok(Resolution::P1080),
            _ => Err(format!("{text} is none of 180p, 360p, 720p, 1080p")),
        }
    }
}

mod defaults {
    use super::Span;

    pub(super) fn duration() -> Span {
        Span::ms(60_000)
    }
    pub(super) fn ramp() -> Span {
        Span::ms(5_000)
    }
    pub(super) fn settle() -> Span {
        Span::ms(3_000)
    }
    pub(super) fn yes() -> bool {
        true
    }
    pub(super) fn one() -> u32 {
        1
    }
    pub(super) fn muted() -> f64 {
        0.2
    }
    pub(super) fn tiles() -> usize {
        25
    }
}

impl Role {
    /// Camera and microphone, and a page that shows up to 25.
    pub fn speaking(count: u32, video: Option<Resolution>, audio: bool) -> Self {
        Self {
            count,
            video,
            simulcast: true,
            bitrate: None,
            steady: None,
            audio,
            muted: defaults::muted(),
            layout: Layout::Grid,
            tiles: defaults::tiles(),
            join_after: Span::default(),
            stay: None,
            away: Span::default(),
            link: None,
        }
    }
}

impl Role {
    /// The encodings of its camera, smallest first; `None` without one.
    pub fn layers(&self) -> Option<Vec<Layer>> {
        let mut layers = self.video?.layers(self.simulcast && self.steady.is_none()).to_vec();
        if let Some(top) = layers.last_mut() {
            let steady = self.steady.map(|s| s.packets * u32::from(s.payload) * 8);
            top.bitrate = steady.or(self.bitrate).unwrap_or(top.bitrate);
        }
        Some(layers)
    }
}

impl Scenario {
    /// Rooms that are all alike.
    pub fn simple(rooms: u32, roles: Vec<Role>) -> Self {
        Self {
            name: "rooms".to_owned(),
            duration: defaults::duration(),
            ramp: defaults::ramp(),
            settle: defaults::settle(),
            measure_joining: false,
            e2ee: true,
            seed: 0,
            objectives: Objectives::default(),
            rooms: vec![Rooms { count: rooms, roles }],
        }
    }

    /// A ready scenario by name, or one from a file.
    ///
    /// # Errors
    /// Neither a ready name nor a readable file, or a file that says something impossible.
    pub fn load(name: &str) -> anyhow::Result<Self> {
        if let Some(scenario) = ready(name) {
            return Ok(scenario);
        }
        let path = Path::new(name);
        if !path.exists() {
            let names: Vec<&str> = READY.iter().map(|(name, _)| *name).collect();
            bail!("{name} is neither a file nor one of the ready scenarios ({})", names.join(", "));
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let mut scenario: Self = toml::from_str(&text).with_context(|| format!("{name} is no scenario"))?;
        if scenario.name.is_empty() {
            scenario.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        }
        scenario.check().with_context(|| format!("{name} is no scenario"))?;
        Ok(scenario)
    }

    /// Refuses what cannot be run.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.duration.get().is_zero(), "the duration is zero");
        let participants = self.participants();
        ensure!(participants > 0, "there are no participants: rooms and roles need a count of at least 1");
        ensure!(
            participants <= MOST,
            "{participants} participants are more than one run takes ({MOST}): are --rooms and --participants meant like this?"
        );
        for role in self.rooms.iter().flat_map(|rooms| &rooms.roles) {
            ensure!((0.0..=1.0).contains(&role.muted), "muted = {} is no share of 0 to 1", role.muted);
            if let Some(steady) = role.steady {
                ensure!(
                    (200..=1300).contains(&steady.payload),
                    "payload = {} is not 200 to 1300",
                    steady.payload
                );
                ensure!(
                    (30..=10_000).contains(&steady.packets),
                    "packets = {} is not 30 to 10000",
                    steady.packets
                );
            }
            ensure!(role.stay.is_none_or(|stay| !stay.get().is_zero()), "stay is zero");
            if let Some(link) = role.link {
                ensure!((0.0..=1.0).contains(&link.loss), "loss = {} is no share of 0 to 1", link.loss);
            }
        }
        Ok(())
    }

    /// Participants in all rooms.
    pub fn participants(&self) -> u64 {
        let in_each = |rooms: &Rooms| rooms.roles.iter().map(|role| u64::from(role.count)).sum::<u64>();
        let of = |rooms: &Rooms| in_each(rooms).saturating_mul(u64::from(rooms.count));
        self.rooms.iter().map(of).fold(0, u64::saturating_add)
    }

    /// Rooms of all kinds.
    pub fn room_count(&self) -> u64 {
        self.rooms.iter().map(|rooms| u64::from(rooms.count)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_needs_little_and_unknown_words_are_refused() {
        let text = "[[rooms]]\ncount = 3\n[[rooms.roles]]\ncount = 2\nvideo = \"720p\"\naudio = true\nstay = \"20s\"\n\
                    link = { loss = 0.02, delay = \"40ms\" }\n";
        let scenario: Scenario = toml::from_str(text).unwrap();
        scenario.check().unwrap();
        assert_eq!(scenario.participants(), 6);
        assert_eq!(scenario.rooms[0].roles[0].link.unwrap().delay, Span::ms(40));
        assert!(toml::from_str::<Scenario>(&format!("vidoe = 1\n{text}")).is_err());
        assert!(toml::from_str::<Scenario>(&text.replace("720p", "721p")).is_err());
    }

    #[test]
    fn the_guides_example_can_be_run_with_all_that_it_names() {
        let guide = include_str!("../../../docs/loadtest.md");
        let example = guide.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let scenario: Scenario = toml::from_str(example).unwrap();
        scenario.check().unwrap();
        assert_eq!(scenario.participants(), 40);
        let all: String = example
            .lines()
            .map(|line| line.strip_prefix("# ").unwrap_or(line))
            .collect::<Vec<_>>()
            .join("\n");
        let scenario: Scenario = toml::from_str(&all).unwrap();
        scenario.check().unwrap();
        let role = &scenario.rooms[0].roles[0];
        assert!(
            role.link.is_some() && role.stay.is_some() && role.steady.is_some() && role.bitrate.is_some()
        );
    }

    #[test]
    fn impossible_plans_are_refused() {
        let mut scenario = Scenario::simple(1, vec![Role::speaking(2, None, true)]);
        assert!(scenario.check().is_ok());
        scenario.rooms[0].roles[0].muted = 1.5;
        assert!(scenario.check().is_err());
        scenario.rooms.clear();
        assert!(scenario.check().is_err());
    }

    #[test]
    fn ready_scenarios_can_be_run_and_written_down() {
        for (name, _) in READY {
            let scenario = ready(name).unwrap();
            scenario.check().unwrap();
            let text = toml::to_string(&scenario).unwrap();
            assert_eq!(toml::from_str::<Scenario>(&text).unwrap(), scenario, "{text}");
            assert_eq!(text.contains("[objectives]"), *name == "flaky-links", "{text}");
        }
        assert!(Scenario::load("no-such-scenario").unwrap_err().to_string().contains("one-to-one"));
    }
}
