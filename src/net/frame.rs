//! Frames: how messages are laid out on a stream.
//!
//! A stream begins with what it is for (one byte, and for an exchange its id), then come frames: four
//! bytes, most significant first, of which the top bit says "the last frame of this exchange" and
//! the rest is the length, then that many bytes.
//!
//! What must stay true:
//! - A length is checked before anything is allocated, and memory grows as bytes arrive, never by
//!   what a length claims.
//! - A frame that lies within one chunk as it came from the network is handed on without copying.
//! - Many small frames are written in one go, and large ones without being copied.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes before each frame.
pub(super) const FRAME_HEAD_BYTES: usize = 4;
/// The bit of the head that marks the last frame of an exchange.
const LAST: u32 = 1 << 31;
/// Frames up to this size are copied together; a chunk of its own costs more than copying so few.
const COPY_BYTES_MAX: usize = 4096;

/// What a unidirectional stream is for, in its first byte.
pub(super) const STREAM_PUSH: u8 = 1;
/// An exchange; its id follows in eight bytes.
pub(super) const STREAM_EXCHANGE: u8 = 2;

/// A frame, and whether it is the last of its exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) last: bool,
}

/// A frame claims to be longer than is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {claimed} bytes was announced, at most {allowed} are allowed")]
pub(super) struct FrameTooLong {
    claimed: usize,
    allowed: usize,
}

/// Cuts a stream of chunks into frames.
#[derive(Debug)]
pub(super) struct FrameReader {
    frame_bytes_max: usize,
    /// What came last and is not cut yet.
    chunk: Bytes,
    /// The beginning of a frame, head included, whose end has not come yet.
    partial: BytesMut,
}

impl FrameReader {
    /// A reader that refuses frames of more than `frame_bytes_max` bytes.
    pub(super) fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, chunk: Bytes::new(), partial: BytesMut::new() }
    }

    /// Changes how long a frame may be, from the next one on.
    pub(super) fn allow(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Takes the next chunk of the stream. All frames of the one before must have been taken out.
    pub(super) fn feed(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "frames are taken out before more is fed");
        self.chunk = chunk;
    }

    /// Bytes kept of a frame that is not complete.
    pub(super) fn partial_bytes(&self) -> usize {
        self.partial.len()
    }

    /// The next complete frame, or `None` if more must be fed first.
    ///
    /// # Errors
    /// When a frame claims to be too long; the stream cannot be read any further.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameTooLong> {
        if self.partial.is_empty() {
            if let Some((length, last)) = self.head(&self.chunk)?
                && self.chunk.len() - FRAME_HEAD_BYTES >= length
            {
                self.chunk.advance(FRAME_HEAD_BYTES);
                return Ok(Some(Frame { bytes: self.chunk.split_to(length), last }));
            }
            self.keep(self.chunk.len());
            return Ok(None);
        }
        // First the rest of the head, so that the length is known and checked, then the body.
        self.keep(FRAME_HEAD_BYTES.saturating_sub(self.partial.len()));
        let Some((length, last)) = self.head(&self.partial)? else { return Ok(None) };
        self.keep(FRAME_HEAD_BYTES + length - self.partial.len());
        if self.partial.len() < FRAME_HEAD_BYTES + length {
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.partial).freeze();
        bytes.advance(FRAME_HEAD_BYTES);
        Ok(Some(Frame { bytes, last }))
    }

    /// Moves up to `count` bytes from the chunk to the partial frame.
    fn keep(&mut self, count: usize) {
        let count = count.min(self.chunk.len());
        self.partial.extend_from_slice(&self.chunk.split_to(count));
    }

    /// The length and the mark in the head of a frame, once it is there.
    fn head(&self, bytes: &[u8]) -> Result<Option<(usize, bool)>, FrameTooLong> {
        let Some(head) = bytes.first_chunk::<FRAME_HEAD_BYTES>() else { return Ok(None) };
        let head = u32::from_be_bytes(*head);
        let claimed = usize::try_from(head & !LAST).unwrap_or(usize::MAX);
        if claimed > self.frame_bytes_max {
            return Err(FrameTooLong { claimed, allowed: self.frame_bytes_max });
        }
        Ok(Some((claimed, head & LAST != 0)))
    }
}

/// Lays frames out for writing: `chunks` in this order are what goes onto the stream after `start`.
pub(super) fn lay_out(start: &[u8], frames: &mut Vec<Frame>, chunks: &mut Vec<Bytes>) {
    let copied = |frame: &Frame| match frame.bytes.len() {
        length if length <= COPY_BYTES_MAX => FRAME_HEAD_BYTES + length,
        _ => FRAME_HEAD_BYTES,
    };
    let mut together =
        BytesMut::with_capacity(start.len() + frames.iter().map(copied).sum::<usize>());
    together.extend_from_slice(start);
    for frame in frames.drain(..) {
        let length = u32::try_from(frame.bytes.len()).expect("frames are limited far below 2 GiB");
        let head = if frame.last { length | LAST } else { length };
        together.extend_from_slice(&head.to_be_bytes());
        if frame.bytes.len() <= COPY_BYTES_MAX {
            together.extend_from_slice(&frame.bytes);
        } else {
            chunks.push(together.split().freeze());
            chunks.push(frame.bytes);
        }
    }
    if !together.is_empty() {
        chunks.push(together.freeze());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames_of(reader: &mut FrameReader) -> Vec<Frame> {
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    proptest! {
        /// Whatever is laid out comes back, however the stream is cut into chunks.
        #[test]
        fn frames_survive_any_cutting(
            contents in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..6000), any::<bool>()), 0..12),
            cuts in proptest::collection::vec(1usize..3000, 1..20),
        ) {
            let frames: Vec<Frame> = contents
                .into_iter()
                .map(|(bytes, last)| Frame { bytes: bytes.into(), last })
                .collect();
            let mut chunks = Vec::new();
            lay_out(&[], &mut frames.clone(), &mut chunks);
            let mut stream = Bytes::from(chunks.concat());
            let mut reader = FrameReader::new(6000);
            let mut read = Vec::new();
            for cut in cuts.iter().cycle() {
                if stream.is_empty() {
                    break;
                }
                reader.feed(stream.split_to(*cut.min(&stream.len())));
                read.extend(frames_of(&mut reader));
            }
            prop_assert_eq!(read, frames);
            prop_assert_eq!(reader.partial_bytes(), 0);
        }

        /// Noise ends in frames within the limit or in an error, and never keeps more than it was fed.
        #[test]
        fn noise_is_bounded(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let mut reader = FrameReader::new(64);
            let mut fed = 0;
            for chunk in chunks {
                fed += chunk.len();
                reader.feed(chunk.into());
                loop {
                    match reader.next() {
                        Ok(Some(frame)) => prop_assert!(frame.bytes.len() <= 64),
                        Ok(None) => break,
                        Err(error) => {
                            prop_assert!(error.claimed > 64);
                            return Ok(());
                        }
                    }
                }
                prop_assert!(reader.partial_bytes() <= fed.min(64 + FRAME_HEAD_BYTES));
            }
        }
    }

    #[test]
    fn a_frame_of_four_gigabytes_is_refused_before_it_costs_memory() {
        let mut reader = FrameReader::new(1 << 20);
        reader.feed(Bytes::from_static(&[0xff, 0xff]));
        assert_eq!(reader.next().unwrap(), None);
        reader.feed(Bytes::from_static(&[0xff, 0xff, 1, 2, 3]));
        let error = reader.next().unwrap_err();
        assert_eq!(error, FrameTooLong { claimed: (1 << 31) - 1, allowed: 1 << 20 });
        assert!(reader.partial_bytes() <= FRAME_HEAD_BYTES);
    }

    #[test]
    fn large_frames_are_not_copied() {
        let large = Bytes::from(vec![7; COPY_BYTES_MAX + 1]);
        let mut chunks = Vec::new();
        let frame = |bytes: Bytes| Frame { bytes, last: false };
        let mut frames = vec![frame(large.clone()), frame(Bytes::from_static(b"small"))];
        lay_out(&[9], &mut frames, &mut chunks);
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[0][0], 9);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
    }
}
