//! Over real sockets.

use std::sync::atomic::{AtomicUsize, Ordering};

use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::*;

struct Server {
    address: SocketAddr,
    health: Health,
    metrics: Metrics,
    refreshed: Arc<AtomicUsize>,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Server {
    async fn start() -> Self {
        let listener = listen("127.0.0.1:0").await.unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let (health, metrics) = (Health::new(&["consume"]), Metrics::new());
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let refreshed = Arc::new(AtomicUsize::new(0));
        let (counter, fresh) = (Arc::clone(&refreshed), metrics.clone());
        let refresh: Refresh = Arc::new(move || fresh.slots(counter.fetch_add(1, Ordering::Relaxed) + 40));
        tracker.spawn(serve_http(listener, health.clone(), metrics.clone(), refresh, stop.clone()));
        tracker.close();
        Self { address, health, metrics, refreshed, stop, tracker }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }

    async fn stop(self) -> Duration {
        let started = Instant::now();
        self.stop.cancel();
        timeout(Duration::from_secs(30), self.tracker.wait()).await.unwrap();
        started.elapsed()
    }
}

/// Everything up to the end of the connection, however it ends.
async fn read(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn live_whatever_the_conditions_are() {
    let server = Server::start().await;
    let answer = server.get("/livez").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn ready_when_the_conditions_hold_until_it_drains() {
    let server = Server::start().await;
    let unavailable = "HTTP/1.1 503 Service Unavailable\r\n";
    let answer = server.get("/readyz").await;
    assert!(answer.starts_with(unavailable), "{answer}");
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    assert!(
        answer.ends_with("{\"ready\":false,\"stage\":\"starting\",\"reasons\":{\"consume\":\"starting\"}}\n")
    );
    server.health.set("consume", Ok(()));
    let answer = server.get("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("{\"ready\":true,\"stage\":\"ready\",\"reasons\":{}}\n"), "{answer}");
    server.health.draining();
    let answer = server.get("/readyz").await;
    assert!(answer.starts_with(unavailable) && answer.contains("\"stage\":\"draining\""), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn metrics_are_refreshed_before_they_are_given() {
    let server = Server::start().await;
    server.metrics.unsettled(3);
    let answer = server.get("/metrics").await;
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    assert!(answer.contains("\nevalmill_unsettled_deliveries 3\n"), "{answer}");
    assert!(answer.contains("\nevalmill_slots 40\n"), "{answer}");
    assert!(server.get("/metrics").await.contains("\nevalmill_slots 41\n"));
    assert_eq!(server.refreshed.load(Ordering::Relaxed), 2);
    server.stop().await;
}

#[rstest]
#[case::unknown("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 ")]
#[case::below("GET /livez/x HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 ")]
#[case::query("GET /livez?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ")]
#[case::head("HEAD /readyz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 503 ")]
#[case::old("GET /livez HTTP/1.0\r\n\r\n", "HTTP/1.0 200 ")]
#[case::method("POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 ")]
#[case::nonsense("nonsense\r\n\r\n", "HTTP/1.1 400 ")]
#[case::only_the_first(
    "GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/1.1 200 "
)]
#[tokio::test]
async fn other_requests(#[case] request: &str, #[case] status: &str) {
    let server = Server::start().await;
    let answer = server.ask(request).await;
    assert!(answer.starts_with(status), "{answer}");
    assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_long_request_is_cut_off() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let long = format!("GET /livez HTTP/1.1\r\nX: {}", "x".repeat(4 << 20));
    // It is never read as a whole, so it cannot be sent as a whole.
    let sent = timeout(Duration::from_secs(5), stream.write_all(long.as_bytes())).await;
    assert!(matches!(sent, Ok(Err(_))), "{sent:?}");
    assert!(server.get("/livez").await.contains(" 200 "));
    server.stop().await;
}

#[tokio::test]
async fn who_says_nothing_holds_a_connection_for_a_bounded_time() {
    let server = Server::start().await;
    let started = Instant::now();
    let mut silent = Vec::new();
    for half in ["", "GET /li"].iter().cycle().take(CONNECTIONS) {
        let mut stream = server.connect().await;
        stream.write_all(half.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    // All connections are taken: this one waits until the first of them are over.
    let answer = server.get("/livez").await;
    assert!(answer.contains(" 200 "), "{answer}");
    let waited = started.elapsed();
    assert!(waited > CONNECTION_LIMIT / 2 && waited < CONNECTION_LIMIT * 2, "{waited:?}");
    for stream in &mut silent {
        assert!(!read(stream).await.contains(" 200 "));
    }
    server.stop().await;
}

#[tokio::test]
async fn stopping_waits_for_nobody() {
    let server = Server::start().await;
    let mut half = server.connect().await;
    half.write_all(b"GET /livez HTT").await.unwrap();
    let mut silent = server.connect().await;
    // Both have been accepted once a later one was answered.
    assert!(server.get("/livez").await.contains(" 200 "));
    let address = server.address;
    let took = server.stop().await;
    assert!(took < STOP_LIMIT * 3, "{took:?}");
    assert!(TcpStream::connect(address).await.is_err());
    for stream in [&mut half, &mut silent] {
        assert!(!read(stream).await.contains(" 200 "));
    }
}

#[tokio::test]
async fn an_address_that_is_not_to_be_had() {
    assert!(listen("").await.unwrap().is_none());
    let taken = listen("127.0.0.1:0").await.unwrap().unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = listen(&address).await.unwrap_err().to_string();
    for part in [address.as_str(), "telemetry.listen", "in use", "port 0"] {
        assert!(error.contains(part), "{error}");
    }
}
