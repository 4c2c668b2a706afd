//! Backups through the HTTP door, both ways, with bounded memory.
//!
//! A response asks for the next piece when the last one has gone to the system; a request is read as
//! fast as its cells are restored. So a slow client has a slow transfer and holds up nothing else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_std::future::timeout;
use bytes::Bytes;
use http_body_util::{BodyExt, Either};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::answer::{Body, Caller, json, text, with_kind};
use super::connection::{Lease, Place};
use crate::server::{Backup, BackupRefused, Node, RestoreError, Restored};

/// How long the rest of a request is read that will not be used, so that its sender gets the answer.
const REST_TIME_MAX: Duration = Duration::from_secs(10);

/// A backup as the body of a response.
pub(super) struct BackupBody {
    node: Node,
    backup: Backup,
    lease: Arc<Lease>,
    _place: Place,
}

impl HttpBody for BackupBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.node.is_closed() {
            // Breaks off, so that nobody takes it for a whole one.
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        self.lease.renew();
        let next = self.backup.next_bytes();
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes.into()))))
    }
}

/// Hands out a backup.
pub(super) fn backup(node: &Node, caller: &Caller) -> Response<Body> {
    let Some(place) = caller.shared.backup() else {
        let why = "too many backups are being taken: try again when one has ended\n";
        return text(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    match node.backup() {
        Ok(backup) => {
            let lease = Arc::clone(&caller.lease);
            let body = BackupBody { node: node.clone(), backup, lease, _place: place };
            with_kind(StatusCode::OK, "application/octet-stream", Either::Right(body))
        }
        Err(error) => {
            let status = match error {
                BackupRefused::Filling => StatusCode::SERVICE_UNAVAILABLE,
                BackupRefused::Random(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            text(status, format!("{error}\n"))
        }
    }
}

/// What came of a restore that was not finished.
#[derive(Serialize)]
struct Unfinished {
    error: String,
    /// What was done before, which stays.
    #[serde(flatten)]
    counts: Restored,
}

/// Takes a backup.
pub(super) async fn restore(node: &Node, caller: &Caller, mut body: Incoming) -> Response<Body> {
    let Some(_place) = caller.shared.restore() else {
        let why = "another restore is under way: try again when it has ended\n";
        return text(StatusCode::CONFLICT, why);
    };
    let mut restore = node.restore();
    let taken = take(&mut restore, caller, &mut body).await;
    let counts = restore.counts();
    let finished = match taken {
        Ok(()) => restore.finish().await.map_err(|error| (status_of(&error), error.to_string())),
        Err(error) => Err(error),
    };
    match finished {
        Ok(counts) => {
            log::info!("restored a backup: {counts:?}");
            json(StatusCode::OK, &counts)
        }
        Err((status, error)) => {
            log::warn!("a restore was not finished: {error}; {counts:?}");
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            // Whoever goes on sending for longer does without the answer.
            let _ = timeout(REST_TIME_MAX, rest).await;
            json(status, &Unfinished { error, counts })
        }
    }
}

async fn take(
    restore: &mut crate::server::Restore,
    caller: &Caller,
    body: &mut Incoming,
) -> Result<(), (StatusCode, String)> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            (StatusCode::BAD_REQUEST, format!("the backup broke off on its way: {error}"))
        })?;
        caller.lease.renew();
        if let Some(bytes) = frame.data_ref() {
            restore.push(bytes).await.map_err(|error| (status_of(&error), error.to_string()))?;
        }
    }
    Ok(())
}

fn status_of(error: &RestoreError) -> StatusCode {
    match error {
        RestoreError::Unwritable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        RestoreError::Refused(_) => StatusCode::CONFLICT,
        _ => StatusCode::BAD_REQUEST,
    }
}
