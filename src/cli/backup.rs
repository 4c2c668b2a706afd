//! `quorumor backup`: copies all that a running peer holds into a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Exit;
use super::client::{Connection, FetchError, HttpArgs, refusal};
use super::exit::print;
use crate::storage::{BackupError, BackupPart, BackupReader, BackupSummary};

/// Copies all that a running peer holds into a file, while it goes on.
///
/// The file is there whole or not at all, readable for you alone, and checked as it is written.
#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    peer: HttpArgs,

    /// The file, or - for standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Replaces the file if it is there already.
    #[arg(long)]
    overwrite: bool,

    /// Prints JSON; on standard error, if the backup goes to standard output.
    #[arg(long)]
    json: bool,
}

/// What was backed up.
#[derive(Serialize)]
struct Summary {
    file: String,
    cells: u64,
    bytes: u64,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{0}; nothing was kept")]
    Backup(#[from] BackupError),
    #[error("cannot write {}: {source}; nothing was kept", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Where it goes: a file under a temporary name, or standard output.
enum Target {
    File { file: File, temporary: PathBuf, path: PathBuf },
    Stdout,
}

/// A bar that shows bytes, on a terminal only.
pub(super) fn bytes_bar(total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{prefix}{bytes} of {total_bytes} · {bytes_per_sec}",
        None => "{prefix}{bytes} · {bytes_per_sec}",
    };
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    bar.with_style(ProgressStyle::with_template(template).expect("a template of ours"))
}

/// Fetches the backup.
pub async fn run(args: BackupArgs) -> Exit {
    let path = &args.file;
    let shown = path.display();
    if path != Path::new("-") && path.exists() && !args.overwrite {
        return Exit::Refused
            .because(format!("{shown} is there already: name another file, or use --overwrite"));
    }
    let fetched = fetch(&args).await;
    let summary = match fetched {
        Ok(summary) => summary,
        Err(Failed::Fetch(error)) => return error.report(&args.peer.http),
        Err(error) => return Exit::Failed.because(error),
    };
    let BackupSummary { cells, bytes, .. } = summary;
    let text = match args.json {
        true => {
            let summary = Summary { file: shown.to_string(), cells, bytes };
            serde_json::to_string_pretty(&summary).expect("strings and numbers") + "\n"
        }
        false => format!("backed up {cells} cells, {bytes} bytes, into {shown}\n"),
    };
    if path == Path::new("-") {
        eprint!("{text}");
        return Exit::Ok;
    }
    print(&text)
}

async fn fetch(args: &BackupArgs) -> Result<BackupSummary, Failed> {
    let mut connection = Connection::open(&args.peer.http).await?;
    let response = connection.send(Method::GET, "/backup", None).await?;
    if response.status() != StatusCode::OK {
        return Err(refusal(response).await.into());
    }
    let mut target = Target::open(&args.file)?;
    let bar = bytes_bar(None);
    let mut reader = BackupReader::new();
    let mut summary = None;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(FetchError::Http)?;
        let Some(bytes) = frame.data_ref() else { continue };
        reader.push(bytes);
        while let Some(part) = reader.next_part()? {
            if let BackupPart::End(end) = part {
                summary = Some(end);
            }
        }
        target.write(bytes)?;
        bar.inc(bytes.len() as u64);
    }
    reader.finish()?;
    target.finish()?;
    bar.finish_and_clear();
    summary.ok_or(Failed::Backup(BackupError::Truncated { bytes: reader.bytes() }))
}

impl Target {
    fn open(path: &Path) -> Result<Self, Failed> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.part", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let mut options = OpenOptions::new();
        // Everything that anybody keeps in the store is in it.
        options.write(true).create_new(true).mode(0o600);
        let file = options
            .open(&temporary)
            .map_err(|source| Failed::Write { path: temporary.clone(), source })?;
        Ok(Self::File { file, temporary, path: path.to_owned() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        let (written, path) = match self {
            Self::File { file, path, .. } => (file.write_all(bytes), path.clone()),
            Self::Stdout => (io::stdout().lock().write_all(bytes), "standard output".into()),
        };
        written.map_err(|source| Failed::Write { path, source })
    }

    fn finish(mut self) -> Result<(), Failed> {
        let (finished, path) = match &mut self {
            Self::File { file, temporary, path } => {
                let renamed = file.sync_all().and_then(|()| fs::rename(&*temporary, &*path));
                (renamed, path.clone())
            }
            Self::Stdout => (io::stdout().lock().flush(), "standard output".into()),
        };
        finished.map_err(|source| Failed::Write { path, source })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Self::File { temporary, .. } = self {
            // It has its name by now, unless something went wrong.
            let _ = fs::remove_file(temporary);
        }
    }
}
