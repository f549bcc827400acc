//! Health and metrics over HTTP, for probes and scrapers.
//!
//! A connection carries one request. Whatever its other end does, it holds at most a few KiB of
//! request and one answer, for at most five seconds.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Health, Metrics};

/// Connections at a time; more wait in the system's queue.
const CONNECTIONS: usize = 32;
/// How long a connection may last, from its start to the end of its answer.
const CONNECTION_LIMIT: Duration = Duration::from_secs(5);
/// What a connection may still take once the server was told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// Between an accept that failed and the next one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// What is read of a connection; requests of probes and scrapers are a few hundred bytes.
const REQUEST_LIMIT: usize = 16 << 10;

/// Nobody can ask for health and metrics.
#[derive(Debug, Error)]
#[error(
    "cannot listen on {address} for health and metrics: {source}. Set telemetry.listen to another address or \
     port, to port 0 for any free one, or to \"\" for none"
)]
pub struct ListenError {
    /// `telemetry.listen`.
    pub address: String,
    /// Why not.
    pub source: io::Error,
}

/// Listens where the setting `telemetry.listen` says; empty is nowhere.
///
/// # Errors
/// The address is not to be had.
pub async fn listen(address: &str) -> Result<Option<TcpListener>, ListenError> {
    if address.is_empty() {
        return Ok(None);
    }
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) => Err(ListenError { address: address.to_owned(), source }),
    }
}

/// Called before each answer to `/metrics`, to set what is not set by events.
pub type Refresh = Arc<dyn Fn() + Send + Sync>;

/// Answers `/livez` (this runtime runs tasks: nothing is said of the broker), `/readyz` and
/// `/metrics` until it is told to stop; returns within a second of that.
///
/// Stop it last: while the service drains, `/readyz` says so.
pub async fn serve_http(
    listener: TcpListener,
    health: Health,
    metrics: Metrics,
    refresh: Refresh,
    stop: CancellationToken,
) {
    let bounded = Bounded { listener, permits: Arc::new(Semaphore::new(CONNECTIONS)), stop: stop.clone() };
    let served = axum::serve(bounded, router(health, metrics, refresh));
    // It retries what fails, and never gives an error.
    let _ = served.with_graceful_shutdown(stop.cancelled_owned()).await;
}

fn router(health: Health, metrics: Metrics, refresh: Refresh) -> Router {
    let ready = move || {
        let readiness = health.readiness();
        let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body = serde_json::to_string(&readiness).unwrap_or_default() + "\n";
        std::future::ready((status, [(CONTENT_TYPE, "application/json")], body))
    };
    let metrics = move || {
        refresh();
        std::future::ready(([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], metrics.encode()))
    };
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n"))
        .layer(map_response(last))
}

/// A connection that is not kept needs no bound on idleness.
async fn last(answer: Response) -> Response {
    ([(CONNECTION, HeaderValue::from_static("close"))], answer).into_response()
}

/// A listener whose connections are bounded in number, time and what is read.
struct Bounded {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    return (Connection::new(stream, self.stop.clone(), permit), address);
                }
                Err(error) => {
                    // Most likely the files have run out: at once would fail again.
                    tracing::warn!(%error, "no connection can be accepted for health and metrics");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct Connection {
    stream: TcpStream,
    /// Ends when the time is up.
    limit: Pin<Box<dyn Future<Output = ()> + Send>>,
    over: bool,
    /// Bytes that may still be read.
    unread: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn new(stream: TcpStream, stop: CancellationToken, permit: Option<OwnedSemaphorePermit>) -> Self {
        let limit = async move {
            let stopped = async {
                stop.cancelled().await;
                sleep(STOP_LIMIT).await;
            };
            tokio::select! {
                () = sleep(CONNECTION_LIMIT) => {}
                () = stopped => {}
            }
        };
        Self { stream, limit: Box::pin(limit), over: false, unread: REQUEST_LIMIT, _permit: permit }
    }

    /// An error once the time is up, whatever it waits for.
    fn in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.over = self.over || self.limit.as_mut().poll(context).is_ready();
        if self.over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(context)?;
        if self.unread == 0 {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.unread = self.unread.saturating_sub(buffer.filled().len() - before);
        done
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
