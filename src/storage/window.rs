//! A file read from its start to its end through a buffer that grows only as far as one record needs.
//!
//! Snapshots are as large as the data, so they are not read as a whole. Lengths found in a file lead
//! to memory being taken only up to what is really there.

use std::fs::File;
use std::io::{self, Read};

/// The least that is read at a time.
const READ_BYTES: usize = 1 << 20;

/// The part of a file that is in memory.
pub(super) struct Window {
    file: File,
    buffer: Vec<u8>,
    /// Where in the buffer the part begins that was not skipped yet.
    begin: usize,
    /// Where in the file that is.
    offset: u64,
    /// The file has no more.
    ended: bool,
}

impl Window {
    pub(super) fn new(file: File) -> Self {
        Self { file, buffer: Vec::new(), begin: 0, offset: 0, ended: false }
    }

    /// Where in the file the next byte stands.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes: as many as asked for, or fewer where the file ends.
    pub(super) fn peek(&mut self, bytes: usize) -> io::Result<&[u8]> {
        if self.buffer.len() - self.begin < bytes && !self.ended {
            self.buffer.drain(..self.begin);
            self.begin = 0;
            let missing = bytes.saturating_sub(self.buffer.len()).max(READ_BYTES);
            let read = (&self.file).take(missing as u64).read_to_end(&mut self.buffer)?;
            self.ended = read < missing;
        }
        let rest = self.buffer.get(self.begin..).unwrap_or_default();
        Ok(rest.get(..bytes).unwrap_or(rest))
    }

    /// Goes on by so many bytes, which must have been peeked at.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.begin = (self.begin + bytes).min(self.buffer.len());
        self.offset += bytes as u64;
    }
}
