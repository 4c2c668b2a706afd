//! How a command ends: its exit code, and the one line that says why.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// The exit codes, the same for every command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It did not work.
    Failed = 1,
    /// The command line or a file it names makes no sense.
    Usage = 2,
    /// Nobody answers.
    Unreachable = 3,
    /// There is no such thing.
    NotFound = 4,
    /// Not converged in time, or a threshold was crossed.
    NotConverged = 5,
    /// Not in this mode, or there is no primary.
    WrongMode = 6,
    /// Refused: by the other side, or because it would not be safe.
    Refused = 7,
    /// Too few samples for a verdict.
    TooFewSamples = 8,
}

impl Exit {
    /// Says why on standard error, and is this code.
    pub fn because(self, why: impl fmt::Display) -> Self {
        eprintln!("quorumor: {why}");
        self
    }
}

/// Writes a command's data to standard output.
///
/// A reader that has gone away (`| head`) has had what it wanted; anything else is a failure, and
/// said.
pub fn print(text: &str) -> Exit {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Exit::Ok,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => Exit::Failed.because(format!("cannot write to standard output: {error}")),
    }
}

/// An error and what caused it, in one line.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_sources(source)),
        None => error.to_string(),
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
