//! The command line.

pub mod compare;

/// Runs the program and says how it ended.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
