//! The HTTP door: what a node says about itself, and what can be asked of it, for people, scripts and
//! monitors.
//!
//! | path | answer |
//! |---|---|
//! | `/` | this list |
//! | `/health` | `ok` while the node runs |
//! | `/status` | the node's status as JSON |
//! | `/members` | who belongs to the cluster |
//! | `/orphans` | writes that a switch of the mode has left out |
//! | `/agreement?within=5s` | whether all live peers hold the same, waiting up to the given time |
//! | `/metrics` | the same numbers as OpenMetrics |
//! | `/backup` | all that the node holds, as a stream |
//! | POST `/restore` | takes such a stream |
//! | POST `/retire?node=…` | retires a member that is away |
//! | POST `/leave` | the node leaves the cluster and ends |
//! | POST `/mode?to=strong` | switches the consistency mode |
//!
//! # Who may ask
//! A page of some other site must not be able to ask through a browser. So the `Host` header has to be
//! an address or a local name (that defeats DNS rebinding), nothing is shared across origins, the
//! content policy allows nothing from anywhere, and a POST needs a header of our own, which a page
//! cannot send elsewhere without being asked for permission first.
//!
//! There is no password at this door. Where it is open to other machines, they may look; what hands out
//! all data, changes it, or changes the cluster is for this machine only, unless the node's protected
//! mode is off.
//!
//! # Bounds
//! `connection` has them: how many connections, how long for a request's head, and how long without
//! progress. What a backup holds up is its own connection: the next slice is copied when the last one
//! has been sent.

mod answer;
mod bulk;
mod connection;
mod metrics;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_std::net::TcpListener;
use async_std::task;

use crate::server::Node;
use connection::Shared;

pub use answer::{HEADER, WITHIN_MAX};

/// How a door is to work.
#[derive(Debug, Clone, Copy)]
pub struct HttpSettings {
    /// Whether other machines may only look.
    pub protected: bool,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { protected: true }
    }
}

/// The HTTP door of one node; it closes when this is dropped, and its connections with it.
#[derive(Debug)]
pub struct HttpDoor {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl HttpDoor {
    /// Opens the door at `address`, with the default settings.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub async fn open(node: Node, address: SocketAddr) -> io::Result<Self> {
        Self::open_with(node, address, HttpSettings::default()).await
    }

    /// Opens the door at `address`.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub async fn open_with(
        node: Node,
        address: SocketAddr,
        settings: HttpSettings,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(settings));
        task::spawn(connection::accept(node, listener, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the door: requests that are being answered are finished, up to a second.
    pub async fn close(self) {
        self.shared.close();
        self.shared.emptied(CLOSE_TIME_MAX).await;
    }
}

impl Drop for HttpDoor {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// How long a door that closes waits for answers that are under way.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);
