//! How a command ends: its exit code, and the one line that says why.

use std::fmt;
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
    /// The other side said no.
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

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
