//! The HTTP door: what a node says about itself, for people, scripts and monitors.
//!
//! | path | answer |
//! |---|---|
//! | `/` | this list |
//! | `/health` | `ok` while the node runs |
//! | `/status` | the node's status as JSON |
//! | `/agreement?within=5s` | whether all live peers hold the same, waiting up to the given time |
//! | `/metrics` | the same numbers as OpenMetrics |
//!
//! It only reads. A page of some other site must not be able to read it through a browser either, so
//! the `Host` header has to be an address or a local name (that defeats DNS rebinding), nothing is
//! shared across origins, and the content policy allows nothing from anywhere.

mod metrics;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_std::future::timeout;
use async_std::net::{TcpListener, TcpStream};
use async_std::task;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use smol_hyper::rt::FuturesIo;

use crate::server::Node;

/// The most connections at once: a monitor, a few browsers, and some to spare.
const CONNECTIONS_MAX: usize = 256;

/// How long a connection may last, idle or not; whoever needs longer connects again.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);

/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The longest time that `/agreement` waits.
pub const WITHIN_MAX: Duration = Duration::from_secs(120);

const INDEX: &str = "quorumor\n\n/health      ok while the node runs\n/status      status as JSON\n\
    /agreement   whether all live peers hold the same; ?within=5s waits for it\n\
    /metrics     OpenMetrics\n";

/// The HTTP door of one node; it closes when this is dropped.
#[derive(Debug)]
pub struct HttpDoor {
    address: SocketAddr,
    accepting: Option<task::JoinHandle<()>>,
}

impl HttpDoor {
    /// Opens the door at `address`.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub async fn open(node: Node, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let accepting = Some(task::spawn(accept(node, listener)));
        Ok(Self { address, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpDoor {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            drop(task::spawn(accepting.cancel()));
        }
    }
}

async fn accept(node: Node, listener: TcpListener) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: others have to close first.
                log::warn!("http: cannot accept a connection: {error}");
                task::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (node, open) = (node.clone(), Arc::clone(&open));
        task::spawn(async move {
            if timeout(CONNECTION_TIME_MAX, serve(node, stream)).await.is_err() {
                log::debug!("http: closed a connection that lasted too long");
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn serve(node: Node, stream: TcpStream) {
    let service = service_fn(move |request| {
        let node = node.clone();
        async move { Ok::<_, Infallible>(secured(answer(&node, &request).await)) }
    });
    let connection = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(FuturesIo::new(stream), service);
    if let Err(error) = connection.await {
        log::debug!("http: a connection ended with an error: {error}");
    }
}

async fn answer(node: &Node, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_local_name) {
        return text(
            StatusCode::FORBIDDEN,
            "the Host header must be an address or localhost: use the node's address in the URL\n",
        );
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "this door only reads: use GET\n");
    }
    match request.uri().path() {
        "/" => text(StatusCode::OK, INDEX),
        "/health" => text(StatusCode::OK, "ok\n"),
        "/status" => json(&node.status()),
        "/metrics" => {
            let body = metrics::render(&node.status());
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            respond(StatusCode::OK, kind, body.into())
        }
        "/agreement" => match within(request.uri().query()) {
            Ok(within) => json(&node.agreement(Instant::now() + within).await),
            Err(error) => text(StatusCode::BAD_REQUEST, error),
        },
        _ => text(StatusCode::NOT_FOUND, format!("there is no such page; there are:\n\n{INDEX}")),
    }
}

/// Whether a `Host` header names an address or this machine, with or without a port.
fn is_local_name(host: &str) -> bool {
    let is_local = |name: &str| {
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
    };
    let without_port = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    is_local(host) || without_port.is_some_and(|(name, _)| is_local(name))
}

fn within(query: Option<&str>) -> Result<Duration, String> {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return Ok(Duration::from_secs(1));
    };
    let wanted =
        query.strip_prefix("within=").and_then(|text| humantime::parse_duration(text).ok());
    match wanted {
        Some(within) if within <= WITHIN_MAX => Ok(within),
        _ => Err(format!("cannot read {query:?}: expected within=5s, at most {WITHIN_MAX:?}\n")),
    }
}

fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            respond(StatusCode::OK, "application/json", body.into())
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body.into().into())
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn secured(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_local_names_are_hosts() {
        for host in ["127.0.0.1", "127.0.0.1:7402", "localhost:1", "LOCALHOST", "[::1]:7402", "::1"]
        {
            assert!(is_local_name(host), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:7402", "127.0.0.1.evil.example", "localhost.x"]
        {
            assert!(!is_local_name(host), "{host}");
        }
    }

    #[test]
    fn the_time_to_wait_is_read_and_bounded() {
        assert_eq!(within(None), Ok(Duration::from_secs(1)));
        assert_eq!(within(Some("within=250ms")), Ok(Duration::from_millis(250)));
        for query in ["within=", "within=1h", "x=1s", "within=-1s"] {
            assert!(within(Some(query)).is_err(), "{query}");
        }
    }
}
