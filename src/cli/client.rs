//! Asking a running peer over its HTTP door, for the commands that do.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use async_std::future::timeout;
use async_std::net::TcpStream;
use bytes::Bytes;
use clap::Args;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;
use smol_hyper::rt::FuturesIo;

use super::Exit;
use crate::api::http::HEADER;

/// The port of HTTP unless told otherwise.
pub(super) const HTTP_PORT: u16 = 7402;

/// How long an answer may take beyond what it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most bytes of an answer: a status of a thousand peers has a tenth of it.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What a request carries.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The flag that says which peer is asked.
#[derive(Debug, Clone, Args)]
pub struct HttpArgs {
    /// The HTTP address of the peer, like 127.0.0.1:7402 or localhost.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7402", env = "QUORUMOR_HTTP")]
    pub(super) http: HttpAddress,
}

/// Where a peer's HTTP door is: a host or address, with or without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAddress {
    host: String,
    port: u16,
}

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if bare.parse::<IpAddr>().is_ok() {
            return Ok(Self { host: bare.to_owned(), port: HTTP_PORT });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => match port.parse() {
                Ok(port) => (host, port),
                Err(_) => return Err(format!("{port:?} in {text:?} is not a port")),
            },
            None => (text, HTTP_PORT),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_name) {
            return Err(format!("{text:?} is not an address: expected HOST:PORT, without http://"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("cannot reach a peer: {0}; is it running, and is this its --http address?")]
    Unreachable(#[from] io::Error),
    #[error("does not answer")]
    Silent,
    #[error("what answers does not speak HTTP, or broke off: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("{1}")]
    Refused(StatusCode, String),
    #[error("the answer is not JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl FetchError {
    /// Says it, and how the command ends.
    pub(super) fn report(&self, address: &HttpAddress) -> Exit {
        let exit = match self {
            Self::Unreachable(_) | Self::Silent => Exit::Unreachable,
            Self::Refused(StatusCode::NOT_FOUND, _) => Exit::NotFound,
            Self::Refused(StatusCode::GATEWAY_TIMEOUT, _) => Exit::NotConverged,
            Self::Refused(StatusCode::BAD_REQUEST, _) => Exit::Usage,
            Self::Refused(..) => Exit::Refused,
            Self::Http(_) | Self::Body(_) | Self::Json(_) => Exit::Failed,
        };
        exit.because(format!("{address}: {self}"))
    }
}

/// A connection for one request.
pub(super) struct Connection {
    sender: hyper::client::conn::http1::SendRequest<Body>,
    address: SocketAddr,
    driver: Option<async_std::task::JoinHandle<hyper::Result<()>>>,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(to: &HttpAddress) -> Result<Self, FetchError> {
        match timeout(PATIENCE, Self::connect(to)).await {
            Ok(connected) => connected,
            Err(_) => Err(FetchError::Silent),
        }
    }

    async fn connect(to: &HttpAddress) -> Result<Self, FetchError> {
        let (host, port) = (to.host.clone(), to.port);
        let look_up = move || {
            (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>)
        };
        let addresses = async_std::task::spawn_blocking(look_up).await?;
        let stream = TcpStream::connect(&addresses[..]).await?;
        // The node is asked by its address, whatever name led to it: it takes no other.
        let address = stream.peer_addr()?;
        let (sender, driver) =
            hyper::client::conn::http1::handshake(FuturesIo::new(stream)).await?;
        let driver = Some(async_std::task::spawn(driver));
        Ok(Self { sender, address, driver })
    }

    /// Sends a request and answers the head of what comes back.
    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Body>,
    ) -> Result<Response<Incoming>, FetchError> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(HOST, self.address.to_string()).header(HEADER, "1");
        let nothing = || Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = request.body(body.unwrap_or_else(nothing));
        let request = request.expect("a path of ours is well formed");
        Ok(self.sender.send_request(request).await?)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            async_std::task::spawn(driver.cancel());
        }
    }
}

/// A response's body, whole.
pub(super) async fn whole(response: Response<Incoming>) -> Result<Bytes, FetchError> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    Ok(body.collect().await.map_err(FetchError::Body)?.to_bytes())
}

/// The text of a refusal.
pub(super) async fn refusal(response: Response<Incoming>) -> FetchError {
    let status = response.status();
    match whole(response).await {
        Ok(body) => FetchError::Refused(status, String::from_utf8_lossy(&body).trim().to_owned()),
        Err(error) => error,
    }
}

/// Asks for JSON, and waits for the answer as long as the peer was asked to wait and a little more.
pub(super) async fn fetch(
    address: &HttpAddress,
    method: Method,
    path: &str,
    within: Duration,
) -> Result<Value, FetchError> {
    let asked = async {
        let mut connection = Connection::open(address).await?;
        let response = connection.send(method, path, None).await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        Ok(serde_json::from_slice(&whole(response).await?)?)
    };
    match timeout(within + PATIENCE, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(FetchError::Silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_named_by_address_or_host() {
        for (text, shown) in [
            ("127.0.0.1:7402", "127.0.0.1:7402"),
            ("10.0.0.1", "10.0.0.1:7402"),
            ("localhost:1", "localhost:1"),
            ("localhost", "localhost:7402"),
            ("[::1]:9", "[::1]:9"),
            ("::1", "[::1]:7402"),
        ] {
            let address = text.parse::<HttpAddress>();
            assert_eq!(address.map(|it| it.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for text in ["", ":1", "http://localhost:1", "a b", "localhost:x", "localhost:99999"] {
            assert!(text.parse::<HttpAddress>().is_err(), "{text}");
        }
    }
}
