//! The `quorumor` program: hands the command line to [`quorumor::cli`].

fn main() -> std::process::ExitCode {
    quorumor::cli::main()
}
