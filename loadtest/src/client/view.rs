//! What a page shows of a room, and so which layers it asks for.

use livekit_protocol::VideoQuality;

use crate::scenario::Layout;

/// Somebody else's video track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) track: String,
    pub(crate) participant: String,
}

/// What a page asks for of one track: a quality, or nothing.
pub(crate) type Wish = Option<VideoQuality>;

/// The wishes for all tiles, in the order given.
pub(crate) fn wishes(
    layout: Layout,
    shown: usize,
    tiles: &[Tile],
    speaker: Option<&str>,
) -> Vec<(String, Wish)> {
    let visible = tiles.len().min(shown);
    let wish = |index: usize, tile: &Tile| match layout {
        Layout::Speaker => {
            let lead = match speaker.filter(|s| tiles.iter().any(|t| t.participant == *s)) {
                Some(speaker) => tile.participant == speaker,
                None => index == 0,
            };
            match lead {
                true => Some(VideoQuality::High),
                false => (index < shown).then_some(VideoQuality::Low),
            }
        }
        Layout::Grid if index >= shown => None,
        // A picture across the window, in its half or quarter, or small.
        Layout::Grid => Some(match visible {
            0 | 1 => VideoQuality::High,
            2..=4 => VideoQuality::Medium,
            _ => VideoQuality::Low,
        }),
    };
    tiles.iter().enumerate().map(|(index, tile)| (tile.track.clone(), wish(index, tile))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiles(count: usize) -> Vec<Tile> {
        (0..count).map(|i| Tile { track: format!("T{i}"), participant: format!("P{i}") }).collect()
    }

    fn qualities(layout: Layout, shown: usize, count: usize, speaker: Option<&str>) -> Vec<Wish> {
        wishes(layout, shown, &tiles(count), speaker).into_iter().map(|(_, wish)| wish).collect()
    }

    #[test]
    fn a_grid_asks_for_less_the_more_it_shows() {
        use VideoQuality::{High, Low, Medium};
        assert_eq!(qualities(Layout::Grid, 9, 1, None), [Some(High)]);
        assert_eq!(qualities(Layout::Grid, 9, 3, None), [Some(Medium); 3]);
        assert_eq!(qualities(Layout::Grid, 9, 6, None), [Some(Low); 6]);
        let many = qualities(Layout::Grid, 9, 12, None);
        assert_eq!((&many[..9], &many[9..]), (&[Some(Low); 9][..], &[None; 3][..]));
    }

    #[test]
    fn the_speaker_is_large_wherever_the_tile_is() {
        use VideoQuality::{High, Low};
        assert_eq!(qualities(Layout::Speaker, 2, 3, None), [Some(High), Some(Low), None]);
        assert_eq!(qualities(Layout::Speaker, 2, 3, Some("P2")), [Some(Low), Some(Low), Some(High)]);
        assert_eq!(qualities(Layout::Speaker, 2, 3, Some("gone")), [Some(High), Some(Low), None]);
    }
}
