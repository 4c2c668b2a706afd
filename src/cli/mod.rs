//! The command line: one file per command.
//!
//! Data goes to standard output, everything else to standard error. A setting is taken from its
//! flag, else from its `QUORUMOR_*` variable, else from the file that `--config` names, else it has
//! its default. Exit codes are the same for all commands; see [`Exit`].

pub mod backup;
pub mod client;
pub mod compare;
pub mod dev;
pub mod doctor;
pub mod exit;
pub mod keygen;
pub mod members;
pub mod mode;
pub mod node;
pub mod restore;
pub mod settings;
pub mod shutdown;
pub mod simulate;
pub mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use futures_lite::future;

pub use exit::Exit;

/// A replicated key-value store for a LAN: every peer accepts writes, and peers gossip over QUIC
/// until all hold the same. Any Redis client can talk to any peer.
#[derive(Debug, Parser)]
#[command(name = "quorumor", version, propagate_version = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Start here:
  quorumor dev                 three peers on this machine, nothing to configure
  quorumor compare --quick     how long writes take to reach everybody

Exit codes: 0 ok, 1 failed, 2 usage, 3 unreachable, 4 not found, 5 not converged or a threshold was
crossed, 6 wrong mode or no quorum, 7 refused, 8 too few samples for a verdict. QUORUMOR_LOG=debug says more.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs three peers in this process, in memory, with nothing to configure.
    Dev(dev::DevArgs),
    /// Runs one peer.
    Node(Box<node::NodeArgs>),
    /// Measures how long writes take to reach all peers, and what that costs.
    Compare(Box<compare::CompareArgs>),
    /// Shows what a running peer says about itself.
    Status(status::StatusArgs),
    /// Lists who belongs to the cluster.
    Members(members::MembersArgs),
    /// Shows the consistency mode of a running cluster, or switches it.
    Mode(mode::ModeArgs),
    /// Lists writes that a switch of the mode has left out.
    Orphans(mode::OrphansArgs),
    /// Takes a running peer out of the cluster for good, and ends it.
    Leave(members::LeaveArgs),
    /// Takes a member that is away for good out of the cluster.
    Retire(members::RetireArgs),
    /// Copies all that a running peer holds into a file.
    Backup(backup::BackupArgs),
    /// Puts a backup back into a running peer, or into a new data directory.
    Restore(restore::RestoreArgs),
    /// Runs a cluster in virtual time, breaks what can break, and checks that no rule is broken.
    Simulate(simulate::SimulateArgs),
    /// Looks whether this machine is fit for a peer, and says what to do where it is not.
    Doctor(doctor::DoctorArgs),
    /// Writes a new cluster secret into a file.
    Keygen(keygen::KeygenArgs),
}

/// Runs the program and says how it ended.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let assumed = match command {
        Command::Dev(_) | Command::Node(_) => "warn,quorumor=info,quinn=error,rustls=error",
        // Nodes come and go by the dozen here, and the report says what matters.
        _ => "error",
    };
    let filter = env_logger::Env::new().filter_or("QUORUMOR_LOG", assumed);
    env_logger::Builder::from_env(filter).format_target(false).init();
    // One thread runs all tasks: handing work from one thread to another costs more than the work.
    let one_thread = async_global_executor::GlobalExecutorConfig::default()
        .with_min_threads(1)
        .with_max_threads(1);
    async_global_executor::init_with_config(one_thread);
    // This thread sleeps meanwhile: async-std's own `block_on` would have it wait for the sockets, and
    // hand every packet over to the thread that runs the tasks.
    let exit = future::block_on(async_std::task::spawn(async move {
        match command {
            Command::Dev(args) => dev::run(args).await,
            Command::Node(args) => node::run(*args).await,
            Command::Compare(args) => compare::run(*args).await,
            Command::Status(args) => status::run(args).await,
            Command::Members(args) => members::list(args).await,
            Command::Mode(args) => mode::run(args).await,
            Command::Orphans(args) => mode::orphans(args).await,
            Command::Leave(args) => members::leave(args).await,
            Command::Retire(args) => members::retire(args).await,
            Command::Backup(args) => backup::run(args).await,
            Command::Restore(args) => restore::run(args).await,
            Command::Simulate(args) => simulate::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Keygen(args) => keygen::run(&args),
        }
    }));
    exit.into()
}
