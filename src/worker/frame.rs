//! Frames: a 4-byte little-endian length and a postcard body.
//!
//! Both ends use these functions. What arrives is not trusted: a claimed length above
//! [`MAX_FRAME_BYTES`] is refused, memory grows only with the bytes that really arrive, and a body
//! must be consumed to its last byte.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::MAX_FRAME_BYTES;

/// Bytes in front of each body.
pub const HEADER_BYTES: usize = 4;

/// Why a frame could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The body is larger than [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes, the limit is {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The body is not a value of the expected type.
    #[error("undecodable frame: {0}")]
    Body(#[from] postcard::Error),
    /// The body goes on behind the value.
    #[error("{0} bytes behind the value of a frame")]
    Trailing(usize),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A whole frame, header included.
///
/// # Errors
/// [`FrameError::TooLarge`], or a value that postcard cannot express.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(value, vec![0; HEADER_BYTES])?;
    let body = frame.len() - HEADER_BYTES;
    let length =
        u32::try_from(body).ok().filter(|_| body <= MAX_FRAME_BYTES).ok_or(FrameError::TooLarge(body))?;
    frame[..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// The body length that a header announces.
///
/// # Errors
/// [`FrameError::TooLarge`].
pub fn body_len(header: [u8; HEADER_BYTES]) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_le_bytes(header)).unwrap_or(usize::MAX);
    if length > MAX_FRAME_BYTES { Err(FrameError::TooLarge(length)) } else { Ok(length) }
}

/// The value in one body (without the header).
///
/// # Errors
/// A body that is not exactly one value.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let (value, rest) = postcard::take_from_bytes(body)?;
    if rest.is_empty() { Ok(value) } else { Err(FrameError::Trailing(rest.len())) }
}

/// The next value, or `None` where the stream ends between two frames.
///
/// # Errors
/// A frame that is truncated, too large or undecodable, or a failed read.
pub fn read_frame<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut header = [0; HEADER_BYTES];
    let mut have = 0;
    while have < HEADER_BYTES {
        match from.read(&mut header[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(FrameError::Truncated),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let length = body_len(header)?;
    // `read_to_end` grows with what arrives; the claimed length is only its end.
    let mut body = Vec::new();
    let limit = u64::try_from(length).unwrap_or(u64::MAX);
    if from.take(limit).read_to_end(&mut body)? < length {
        return Err(FrameError::Truncated);
    }
    decode(&body).map(Some)
}

/// Writes one value.
///
/// # Errors
/// As [`encode`], or a failed write.
pub fn write_frame<T: Serialize>(to: &mut impl Write, value: &T) -> Result<(), FrameError> {
    to.write_all(&encode(value)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::protocol::{BoxFile, Close, FromWorker, Open, ToWorker};
    use proptest::prelude::*;

    fn close(tracked: Vec<String>) -> ToWorker {
        ToWorker::Close(Close { tracked, max_file_bytes: 1, max_total_bytes: u64::MAX })
    }

    #[test]
    fn nonsense_is_refused() {
        let mut stream: &[u8] = &[3, 0, 0, 0, 0xff, 0xff, 0xff];
        assert!(matches!(read_frame::<ToWorker>(&mut stream), Err(FrameError::Body(_))));
    }

    #[test]
    fn clean_end_is_none_and_a_cut_one_is_not() {
        let frame = encode(&close(vec!["a".into()])).unwrap();
        for cut in 1..frame.len() {
            assert!(matches!(read_frame::<ToWorker>(&mut &frame[..cut]), Err(FrameError::Truncated)));
        }
        assert!(read_frame::<ToWorker>(&mut io::empty()).unwrap().is_none());
    }

    #[test]
    fn claimed_length_is_bounded_and_not_allocated() {
        let over = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_le_bytes();
        assert!(matches!(read_frame::<ToWorker>(&mut &over[..]), Err(FrameError::TooLarge(_))));
        let most = u32::try_from(MAX_FRAME_BYTES).unwrap().to_le_bytes();
        assert!(matches!(read_frame::<ToWorker>(&mut &most[..]), Err(FrameError::Truncated)));
    }

    #[test]
    fn bytes_behind_the_value_are_refused() {
        let mut frame = encode(&close(vec![])).unwrap();
        frame.push(0);
        assert!(matches!(decode::<ToWorker>(&frame[HEADER_BYTES..]), Err(FrameError::Trailing(1))));
    }

    proptest! {
        #[test]
        fn round_trip(files in proptest::collection::vec((".*", proptest::collection::vec(any::<u8>(), 0..99)), 0..9)) {
            let files = files.into_iter().map(|(path, content)| BoxFile { path, content }).collect();
            let value = ToWorker::Open(Open { files });
            let mut stream = Vec::new();
            write_frame(&mut stream, &value).unwrap();
            write_frame(&mut stream, &close(vec![])).unwrap();
            let mut rest = &stream[..];
            prop_assert_eq!(read_frame::<ToWorker>(&mut rest).unwrap(), Some(value));
            prop_assert_eq!(read_frame::<ToWorker>(&mut rest).unwrap(), Some(close(vec![])));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_frame::<ToWorker>(&mut &bytes[..]);
            let _ = decode::<ToWorker>(&bytes);
            let _ = decode::<FromWorker>(&bytes);
        }
    }
}
