//! Datagrams in a byte stream: each has its length in two bytes before it
//! ([RFC 4571 section 2](https://www.rfc-editor.org/rfc/rfc4571#section-2)).

/// Longest datagram taken, in bytes. What clients send fits the MTU of a UDP path, as they do not know beforehand that
/// it will be TCP.
pub(crate) const MAX_FRAME: usize = 2048;

/// A frame longer than [`MAX_FRAME`] was announced: the stream cannot be followed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes was announced")]
pub(crate) struct TooLong(usize);

/// Puts frames together from what arrives. Holds less than one frame and one read.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
    /// Bytes at the front that were given out.
    used: usize,
}

impl Frames {
    /// Takes what was read. To be called when [`Frames::next`] has nothing more.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame. Empty ones, which say nothing, are passed over.
    ///
    /// # Errors
    /// When a frame is too long; so are all calls after it.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, TooLong> {
        loop {
            let rest = &self.buffer[self.used..];
            let Some((head, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
            let len = usize::from(u16::from_be_bytes(*head));
            if len > MAX_FRAME {
                return Err(TooLong(len));
            }
            if rest.len() < len {
                return Ok(None);
            }
            let start = self.used + head.len();
            self.used = start + len;
            if len > 0 {
                return Ok(Some(&self.buffer[start..start + len]));
            }
        }
    }
}

/// A datagram with its length before it. `None` where two bytes cannot say the length.
pub(crate) fn framed(datagram: &[u8]) -> Option<Box<[u8]>> {
    let len = u16::try_from(datagram.len()).ok()?;
    Some([&len.to_be_bytes(), datagram].concat().into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in proptest::collection::vec(1usize..400, 1..50),
        ) {
            let stream: Vec<u8> = datagrams.iter().flat_map(|d| framed(d).unwrap().to_vec()).collect();
            let mut frames = Frames::default();
            let mut got: Vec<Vec<u8>> = vec![];
            let (mut at, mut cut) = (0, cuts.iter().cycle());
            while at < stream.len() {
                let end = (at + cut.next().unwrap()).min(stream.len());
                frames.push(&stream[at..end]);
                at = end;
                while let Some(frame) = frames.next().unwrap() {
                    got.push(frame.to_vec());
                }
            }
            let want: Vec<Vec<u8>> = datagrams.into_iter().filter(|d| !d.is_empty()).collect();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn arbitrary_bytes_end_in_frames_or_an_error_and_hold_little(
            reads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4096), 0..20),
        ) {
            let mut frames = Frames::default();
            'all: for read in reads {
                frames.push(&read);
                loop {
                    match frames.next() {
                        Ok(Some(frame)) => prop_assert!((1..=MAX_FRAME).contains(&frame.len())),
                        Ok(None) => break,
                        Err(_) => {
                            prop_assert!(frames.next().is_err());
                            break 'all;
                        }
                    }
                }
                prop_assert!(frames.buffer.len() - frames.used < MAX_FRAME + 2);
            }
        }
    }

    #[test]
    fn only_lengths_of_two_bytes_can_be_framed() {
        assert_eq!(framed(b"ab").unwrap().as_ref(), [0, 2, b'a', b'b']);
        assert!(framed(&[0; 65_535]).is_some());
        assert!(framed(&[0; 65_536]).is_none());
    }
}
