//! `quorumor restore`: puts a backup back, into a running peer or into a new data directory.
//!
//! A file is read through once before anything of it is sent: a damaged or cut one changes nothing.
//! What comes from a pipe cannot be read twice; what was restored before an error is said then.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use async_std::channel::{self, Receiver, Sender};
use bytes::Bytes;
use clap::Args;
use futures_lite::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::Exit;
use super::backup::bytes_bar;
use super::client::{Body, Connection, FetchError, HttpArgs, whole};
use super::exit::print;
use crate::server::{self, MakeError, Restored};

/// How many bytes are read at a time.
const PORTION_BYTES: usize = 256 * 1024;

/// How many portions may wait to be sent.
const PORTIONS_MAX: usize = 4;

/// Puts a backup back into a running peer, or into a new data directory.
///
/// Into a running peer: only what nobody there has seen is written; nothing newer is replaced, nothing
/// that was deleted comes back, and deletions of the backup are not applied. So into the cluster that
/// it came from it brings back what was lost, and into an empty one everything.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    peer: HttpArgs,

    /// Makes this new data directory instead, for the first peer of a new cluster.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// The backup, or - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// What a peer says of a restore.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    counts: Restored,
}

/// Restores.
pub async fn run(args: RestoreArgs) -> Exit {
    match args.data.clone() {
        Some(data) => async_std::task::spawn_blocking(move || make(&args, &data)).await,
        None => send(args).await,
    }
}

fn source(path: &Path) -> io::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path)?;
    let length = file.metadata().ok().filter(|it| it.is_file()).map(|it| it.len());
    Ok((Box::new(file), length))
}

fn unreadable(path: &Path, error: &io::Error) -> Exit {
    let exit = match error.kind() {
        io::ErrorKind::NotFound => Exit::NotFound,
        _ => Exit::Failed,
    };
    exit.because(format!("cannot read {}: {error}", path.display()))
}

/// Makes a data directory.
fn make(args: &RestoreArgs, data: &Path) -> Exit {
    let (source, length) = match source(&args.file) {
        Ok(opened) => opened,
        Err(error) => return unreadable(&args.file, &error),
    };
    let bar = bytes_bar(length);
    let made = server::make_directory(data, source, |bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    match made {
        Ok(made) if args.json => {
            let text = serde_json::to_string_pretty(&made).expect("strings and numbers");
            print(&(text + "\n"))
        }
        Ok(made) => print(&format!(
            "restored {} cells and {} deletions of {} into {}: start a peer on it with\n  quorumor \
             node --data {}\n",
            made.live,
            made.deleted,
            made.about.cluster,
            data.display(),
            data.display()
        )),
        Err(error @ (MakeError::Exists { .. } | MakeError::Unfinished { .. })) => {
            Exit::Refused.because(error)
        }
        Err(error) => Exit::Failed.because(format!("{error}; {} was not made", data.display())),
    }
}

/// Sends a backup to a peer.
async fn send(args: RestoreArgs) -> Exit {
    let file = &args.file;
    let (mut from, length) = match source(file) {
        Ok(opened) => opened,
        Err(error) => return unreadable(file, &error),
    };
    if length.is_some() {
        let checked = async_std::task::spawn_blocking(move || {
            let bar = bytes_bar(length);
            bar.set_prefix("checking ");
            let checked = server::check(from, |bytes| bar.set_position(bytes));
            bar.finish_and_clear();
            checked
        });
        if let Err(error) = checked.await {
            let shown = file.display();
            return Exit::Failed.because(format!("{shown}: {error}; nothing was restored"));
        }
        from = match source(file) {
            Ok((from, _)) => from,
            Err(error) => return unreadable(file, &error),
        };
    }
    let answer = match post(&args, from, length).await {
        Ok(answer) => answer,
        Err(error) => return error.report(&args.peer.http),
    };
    let Restored { restored, known, older, deleted } = answer.counts;
    let counts = format!(
        "restored {restored} cells; {known} were there or were replaced or deleted since, {older} gave \
         way to something newer, {deleted} deletions were not applied"
    );
    let printed = match args.json {
        true => {
            let text = serde_json::to_string_pretty(&answer).expect("strings and numbers");
            print(&(text + "\n"))
        }
        false if answer.error.is_none() => print(&format!("{counts}\n")),
        false => Exit::Ok,
    };
    match answer.error {
        Some(error) => Exit::Failed.because(format!("{error}; until then: {counts}")),
        None => printed,
    }
}

async fn post(
    args: &RestoreArgs,
    from: Box<dyn Read + Send>,
    length: Option<u64>,
) -> Result<Answer, FetchError> {
    let mut connection = Connection::open(&args.peer.http).await?;
    let bar = bytes_bar(length);
    let (sender, portions) = channel::bounded(PORTIONS_MAX);
    let reading = async_std::task::spawn_blocking(move || read(from, &sender));
    let counted = bar.clone();
    let response = connection.send(Method::POST, "/restore", Some(body(portions, counted))).await;
    bar.finish_and_clear();
    drop(reading);
    let response = response?;
    let status = response.status();
    let bytes = whole(response).await?;
    match serde_json::from_slice(&bytes) {
        Ok(answer) => Ok(answer),
        Err(error) if status == StatusCode::OK => Err(error.into()),
        Err(_) => {
            Err(FetchError::Refused(status, String::from_utf8_lossy(&bytes).trim().to_owned()))
        }
    }
}

fn body(portions: Receiver<io::Result<Bytes>>, bar: indicatif::ProgressBar) -> Body {
    let frames = portions.map(move |portion| {
        let portion = portion?;
        bar.inc(portion.len() as u64);
        Ok(Frame::data(portion))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Reads until the end, or until nobody wants any more.
fn read(mut from: Box<dyn Read + Send>, to: &Sender<io::Result<Bytes>>) {
    loop {
        let mut portion = vec![0; PORTION_BYTES];
        let read = match from.read(&mut portion) {
            Ok(0) => return,
            Ok(count) => {
                portion.truncate(count);
                Ok(portion.into())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if to.send_blocking(read).is_err() || failed {
            return;
        }
    }
}
