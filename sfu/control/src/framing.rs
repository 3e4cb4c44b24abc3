//! Length-prefixed protobuf messages over a byte stream: four bytes, big-endian, then the message.

use bytes::{Buf, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::messages::MAX_FRAME;

const PREFIX: usize = 4;

/// Why a stream of frames ended early.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than [`MAX_FRAME`].
    #[error("a control frame of {0} bytes exceeds {MAX_FRAME}")]
    TooLong(usize),
    /// The stream ended within a frame.
    #[error("the control stream ended within a frame")]
    Truncated,
    /// The frame is not the expected message.
    #[error("a control frame is not the expected message")]
    Decode(#[from] prost::DecodeError),
    /// The transport failed.
    #[error("the control stream failed")]
    Io(#[from] std::io::Error),
}

/// Reads frames. Dropping the future of [`FrameReader::next`] loses nothing, so it may stand in a `select!`.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of `stream`.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next message; `None` when the stream ended between two frames.
    ///
    /// # Errors
    /// See [`FrameError`]; the stream is of no more use then.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        loop {
            if let Some(frame) = take_frame(&mut self.buffer)? {
                return Ok(Some(M::decode(frame)?));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
    }

    /// The stream below, to stop it.
    pub fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }
}

/// Takes a whole frame off the front of `buffer`, without its prefix, if it is there.
///
/// # Errors
/// [`FrameError::TooLong`] as soon as the prefix shows it.
pub fn take_frame(buffer: &mut BytesMut) -> Result<Option<bytes::Bytes>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    if buffer.len() < PREFIX + length {
        return Ok(None);
    }
    buffer.advance(PREFIX);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Appends a message with its prefix to `out`.
///
/// # Errors
/// [`FrameError::TooLong`]; `out` is unchanged then.
pub fn put_frame(message: &impl Message, out: &mut BytesMut) -> Result<(), FrameError> {
    let length = message.encoded_len();
    let prefix =
        u32::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(FrameError::TooLong(length))?;
    out.reserve(PREFIX + length);
    out.extend_from_slice(&prefix.to_be_bytes());
    message.encode(out).expect("BytesMut grows as needed");
    Ok(())
}

/// Writes one message. Not to be dropped half way: the stream would hold half a frame.
///
/// # Errors
/// [`FrameError::TooLong`] before anything is written, [`FrameError::Io`].
pub async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Message,
) -> Result<(), FrameError> {
    let mut frame = BytesMut::new();
    put_frame(message, &mut frame)?;
    stream.write_all(&frame).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{Hello, Purpose, SessionOpen, ToSfu, ToSfuKind};
    use proptest::prelude::*;

    fn signal(payload: Vec<u8>) -> ToSfu {
        ToSfu { kind: Some(ToSfuKind::Signal(payload.into())) }
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
                                  cut in 1usize..64) {
            let mut wire = BytesMut::new();
            for payload in &payloads {
                put_frame(&signal(payload.clone()), &mut wire).unwrap();
            }
            let mut buffer = BytesMut::new();
            let mut out = Vec::new();
            for chunk in wire.chunks(cut) {
                buffer.extend_from_slice(chunk);
                while let Some(frame) = take_frame(&mut buffer).unwrap() {
                    out.push(ToSfu::decode(frame).unwrap());
                }
            }
            prop_assert!(buffer.is_empty());
            prop_assert_eq!(out, payloads.into_iter().map(signal).collect::<Vec<_>>());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = take_frame(&mut buffer) {
                let _ = Hello::decode(frame);
            }
        }
    }

    #[tokio::test]
    async fn a_clean_end_differs_from_a_torn_frame() {
        let mut wire = BytesMut::new();
        let hello = Hello { purpose: Some(Purpose::Session(SessionOpen::default())) };
        put_frame(&hello, &mut wire).unwrap();
        let mut reader = FrameReader::new(&wire[..]);
        assert_eq!(reader.next::<Hello>().await.unwrap(), Some(hello));
        assert_eq!(reader.next::<Hello>().await.unwrap(), None);

        let mut torn = FrameReader::new(&wire[..wire.len() - 1]);
        assert!(matches!(torn.next::<Hello>().await, Err(FrameError::Truncated)));
    }

    #[test]
    fn too_long_frames_are_refused_both_ways() {
        let mut buffer = BytesMut::from(&(MAX_FRAME as u32 + 1).to_be_bytes()[..]);
        assert!(matches!(take_frame(&mut buffer), Err(FrameError::TooLong(_))));
        let mut out = BytesMut::new();
        assert!(matches!(put_frame(&signal(vec![0; MAX_FRAME]), &mut out), Err(FrameError::TooLong(_))));
        assert!(out.is_empty());
    }
}
