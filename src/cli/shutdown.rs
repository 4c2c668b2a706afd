//! Waiting for the end: SIGINT or SIGTERM.

use std::io;

use async_signal::{Signal, Signals};
use futures_lite::StreamExt;

/// Waits until somebody asks the program to end. A second request ends it at once.
///
/// # Errors
/// When signals cannot be listened for.
pub async fn requested() -> io::Result<()> {
    let mut signals = Signals::new([Signal::Int, Signal::Term])?;
    if let Some(signal) = signals.next().await {
        log::info!("ending, as {:?} asks; once more to end at once", signal?);
    }
    async_std::task::spawn(async move {
        if signals.next().await.is_some() {
            std::process::exit(1);
        }
    });
    Ok(())
}
