//! `quorumor keygen`: a new cluster secret.

use std::path::PathBuf;

use clap::Args;

use super::Exit;
use super::exit::print;
use crate::net::Secret;

/// Writes a new cluster secret into a file that only its owner can read.
///
/// Whoever holds the secret is a member: copy the file to each machine over a safe way, and name it
/// with --secret-file.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// The file; it must not exist yet.
    #[arg(value_name = "FILE", default_value = "quorumor.secret")]
    file: PathBuf,
}

/// Writes the file and says what to do with it.
pub fn run(args: &KeygenArgs) -> Exit {
    let file = args.file.display();
    let written = Secret::generate().and_then(|secret| secret.write_new(&args.file));
    if let Err(error) = written {
        return Exit::Failed.because(error);
    }
    print(&format!(
        "wrote {file}: whoever holds it is a member of the cluster\n\n  scp -p {file} \
         OTHER-MACHINE:\n  quorumor node --secret-file {file}\n"
    ))
}
