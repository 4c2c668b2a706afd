//! What the HTTP door answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::bulk::{self, BackupBody};
use super::connection::{Lease, Shared, is_address};
use super::metrics;
use crate::protocol::operation::Mode;
use crate::server::{LeaveError, MemberError, Node};

/// The header that a POST needs, with any value.
pub const HEADER: &str = "x-quorumor";

/// The longest time that `/agreement` waits.
pub const WITHIN_MAX: Duration = Duration::from_secs(120);

/// How long a node that leaves waits for a peer to have everything.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(10);

/// What `/mode` takes.
const MODE_QUERY: &str = "/mode?to=eventual or /mode?to=strong, with &without=ID and &dry-run";

const INDEX: &str = "quorumor\n\n/health      ok while the node runs\n/status      status as JSON\n\
    /members     who belongs to the cluster\n\
    /agreement   whether all live peers hold the same; ?within=5s waits for it\n\
    /orphans     writes that a switch of the mode has left out\n\
    /metrics     OpenMetrics\n/backup      all that the node holds, as a stream\n\n\
    POST with the header X-Quorumor: 1\n/restore     takes a backup\n\
    /retire      retires a member that is away; ?node=ID\n\
    /leave       the node leaves the cluster and ends\n\
    /mode        switches the consistency mode; ?to=strong, with &without=ID, &dry-run\n";

/// What a response carries.
pub(super) type Body = Either<Full<Bytes>, BackupBody>;

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Whether from this machine.
    pub(super) is_local: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) lease: Arc<Lease>,
}

/// The answer to a request.
pub(super) async fn answer(
    node: &Node,
    caller: &Caller,
    request: Request<Incoming>,
) -> Response<Body> {
    secured(match refused(node, caller, &request) {
        Some(refusal) => refusal,
        None => page(node, caller, request).await,
    })
}

/// Why a request is not answered, if it is not.
fn refused(node: &Node, caller: &Caller, request: &Request<Incoming>) -> Option<Response<Body>> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_local_name) {
        return Some(text(
            StatusCode::FORBIDDEN,
            "the Host header must be an address or localhost: use the node's address in the URL\n",
        ));
    }
    if node.is_closed() {
        return Some(text(StatusCode::SERVICE_UNAVAILABLE, "the node has been closed\n"));
    }
    let path = request.uri().path();
    let changes = matches!(path, "/restore" | "/retire" | "/leave" | "/mode");
    let is_right = match changes {
        true => request.method() == Method::POST,
        false => request.method() == Method::GET || request.method() == Method::HEAD,
    };
    if !is_right {
        let right = if changes { "POST" } else { "GET" };
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {right} for {path}\n"));
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(right));
        return Some(answer);
    }
    if changes && !request.headers().contains_key(HEADER) {
        return Some(text(
            StatusCode::FORBIDDEN,
            "a POST needs the header X-Quorumor: 1, so that no page in a browser can send it: with \
             curl, -H 'X-Quorumor: 1'; or use the commands quorumor restore, retire and leave\n",
        ));
    }
    if (changes || path == "/backup") && !caller.is_local && caller.shared.settings.protected {
        return Some(text(
            StatusCode::FORBIDDEN,
            "this is for the node's own machine: run the command there, or start the node with \
             --protected-mode no, which opens it to whoever can reach the node\n",
        ));
    }
    None
}

async fn page(node: &Node, caller: &Caller, request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query();
    match request.uri().path() {
        "/" => text(StatusCode::OK, INDEX),
        "/health" => text(StatusCode::OK, "ok\n"),
        "/status" => json(StatusCode::OK, &node.status()),
        "/members" => json(StatusCode::OK, &node.members()),
        "/orphans" => json(StatusCode::OK, &node.orphans()),
        "/mode" => match wanted_mode(query) {
            Ok((to, without, dry_run)) => mode(node, to, &without, dry_run).await,
            Err(error) => text(StatusCode::BAD_REQUEST, error),
        },
        "/metrics" => {
            let body = metrics::render(&node.status());
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            respond(StatusCode::OK, kind, body.into())
        }
        "/agreement" => match within(query) {
            Ok(within) => json(StatusCode::OK, &node.agreement(Instant::now() + within).await),
            Err(error) => text(StatusCode::BAD_REQUEST, error),
        },
        "/backup" => bulk::backup(node, caller),
        "/restore" => bulk::restore(node, caller, request.into_body()).await,
        "/retire" => match query.and_then(|query| query.strip_prefix("node=")) {
            Some(wanted) => retire(node, wanted),
            None => text(StatusCode::BAD_REQUEST, "which one? /retire?node=ID, as in /members\n"),
        },
        "/leave" => leave(node).await,
        _ => text(StatusCode::NOT_FOUND, format!("there is no such page; there are:\n\n{INDEX}")),
    }
}

fn retire(node: &Node, wanted: &str) -> Response<Body> {
    match node.retire(wanted) {
        Ok(member) => json(StatusCode::OK, &member),
        Err(error) => not_meant(&error),
    }
}

/// Who was named is not to be retired or left out.
fn not_meant(error: &MemberError) -> Response<Body> {
    let status = match error {
        MemberError::Unknown { .. } => StatusCode::NOT_FOUND,
        MemberError::Ambiguous { .. } => StatusCode::BAD_REQUEST,
        MemberError::Itself { .. } | MemberError::IsUp { .. } => StatusCode::CONFLICT,
        MemberError::Unwritable { .. } => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, format!("{error}\n"))
}

/// Switches the mode; what came of it is in the answer.
async fn mode(node: &Node, to: Mode, without: &[String], dry_run: bool) -> Response<Body> {
    match node.switch_mode(to, without, dry_run).await {
        Ok(report) => json(StatusCode::OK, &report),
        Err(error) => not_meant(&error),
    }
}

/// The mode, whom to leave out, and whether only to say what would be done.
fn wanted_mode(query: Option<&str>) -> Result<(Mode, Vec<String>, bool), String> {
    let (mut to, mut without, mut dry_run) = (None, Vec::new(), false);
    for part in query.unwrap_or_default().split('&') {
        match part.split_once('=').unwrap_or((part, "")) {
            ("to", mode) => to = Some(mode.parse::<Mode>().map_err(|error| format!("{error}\n"))?),
            ("without", node) => without.push(node.to_owned()),
            ("dry-run", "") => dry_run = true,
            _ => return Err(format!("cannot read {part:?}: expected {MODE_QUERY}\n")),
        }
    }
    match to {
        Some(to) => Ok((to, without, dry_run)),
        None => Err(format!("which mode? expected {MODE_QUERY}\n")),
    }
}

async fn leave(node: &Node) -> Response<Body> {
    #[derive(serde::Serialize)]
    struct Left {
        node: String,
        name: String,
    }
    match node.leave(LEAVE_TIME_MAX).await {
        Ok(()) => {
            let left = Left { node: node.id().to_string(), name: node.name().to_owned() };
            json(StatusCode::OK, &left)
        }
        Err(error) => {
            let status = match error {
                LeaveError::NotCovered { .. } => StatusCode::GATEWAY_TIMEOUT,
                LeaveError::Alone | LeaveError::Leaving => StatusCode::CONFLICT,
            };
            text(status, format!("{error}\n"))
        }
    }
}

/// Whether a `Host` header names an address or this machine, with or without a port.
fn is_local_name(host: &str) -> bool {
    let without_port = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    is_address(host) || without_port.is_some_and(|(name, _)| is_address(name))
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

pub(super) fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            respond(status, "application/json", body.into())
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", body.into().into())
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    with_kind(status, kind, Either::Left(Full::new(body)))
}

pub(super) fn with_kind(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn secured(mut response: Response<Body>) -> Response<Body> {
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
