//! Waiting for the end: SIGINT or SIGTERM.

use std::io;

use async_signal::{Signal, Signals};
use futures_lite::StreamExt;

/// Listens for requests to end, from its making on: none is missed while a node starts.
#[derive(Debug)]
pub struct Shutdown(Signals);

/// Signals cannot be listened for.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for signals: {0}")]
pub struct ListenError(#[from] io::Error);

impl Shutdown {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn listen() -> Result<Self, ListenError> {
        Ok(Self(Signals::new([Signal::Int, Signal::Term])?))
    }

    /// Waits until somebody asks the program to end. A second request ends it at once.
    pub async fn requested(self) {
        let Self(mut signals) = self;
        if let Some(Ok(signal)) = signals.next().await {
            log::info!("ending, as {signal:?} asks; once more to end at once");
        }
        async_std::task::spawn(async move {
            if signals.next().await.is_some() {
                std::process::exit(1);
            }
        });
    }
}
