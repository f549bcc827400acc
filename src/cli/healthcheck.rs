//! `evalmill healthcheck`: asks a running service whether it is ready.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::exit::Failure;
use crate::config::{Sources, load};

/// Bound of all of it: name look-up, connection and answer.
const LIMIT: Duration = Duration::from_secs(3);
/// Longest answer that is read.
const ANSWER_LIMIT: u64 = 64 << 10;

/// Asks `url`, or where the settings say that the service listens.
///
/// # Errors
/// The service is not ready, does not answer in time, or there is nothing to ask.
pub(super) fn healthcheck(file: Option<PathBuf>, url: Option<&str>) -> Result<(), Failure> {
    let target = match url {
        Some(url) => Target::of_url(url),
        None => Target::of_setting(&load(&Sources::from_process(file))?.settings.telemetry.listen),
    };
    let target = target.map_err(Failure::Usage)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Io(format!("no runtime can be started: {error}")))?;
    let answer = runtime.block_on(async { timeout(LIMIT, target.get()).await });
    // A look-up of a name cannot be interrupted: nobody waits for it.
    runtime.shutdown_background();
    let unreachable = |why: String| Failure::Unreachable(format!("http://{target} does not answer: {why}"));
    let answer = answer
        .unwrap_or_else(|_| Err(std::io::Error::other(format!("nothing came within {LIMIT:?}"))))
        .map_err(|error| unreachable(error.to_string()))?;
    let (status, body) = split(&answer).ok_or_else(|| unreachable("that is no HTTP".to_owned()))?;
    match status {
        200 => super::print(b"ready\n")
            .map_err(|error| Failure::Io(format!("standard output cannot be written: {error}"))),
        _ => Err(Failure::NotReady(reasons(status, body))),
    }
}

/// What to ask.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    path: String,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.authority(), self.path)
    }
}

impl Target {
    fn of_setting(listen: &str) -> Result<Self, String> {
        let nothing =
            |why: &str| format!("telemetry.listen {why}: give --url, as http://127.0.0.1:9464/readyz");
        if listen.is_empty() {
            return Err(nothing("is empty, so there is nothing to ask"));
        }
        let address: SocketAddr = listen.parse().map_err(|_| nothing("is no address"))?;
        if address.port() == 0 {
            return Err(nothing("has port 0, so only the service knows its port"));
        }
        let host = match address {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => "127.0.0.1".to_owned(),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => "::1".to_owned(),
            address => address.ip().to_string(),
        };
        Ok(Self { host, port: address.port(), path: "/readyz".to_owned() })
    }

    fn of_url(url: &str) -> Result<Self, String> {
        let wrong = || format!("--url {url:?} must be as http://127.0.0.1:9464/readyz");
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        // What breaks a request line is in no URL.
        if rest.contains(|c: char| c.is_control() || c == ' ' || c == '@') || !rest.is_ascii() {
            return Err(wrong());
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/readyz"),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or_else(wrong)?;
                (host, if port.is_empty() { "80" } else { port.strip_prefix(':').ok_or_else(wrong)? })
            }
            None => authority.rsplit_once(':').unwrap_or((authority, "80")),
        };
        let port = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || port == 0 {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port, path: path.to_owned() })
    }

    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// The whole answer. HTTP 1.0: it ends with its connection, and comes in one piece.
    async fn get(&self) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let request = format!("GET {} HTTP/1.0\r\nHost: {}\r\n\r\n", self.path, self.authority());
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_LIMIT).read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

/// Status and body.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some((status.get(..3)?.parse().ok()?, &answer[end + 4..]))
}

/// What `/readyz` says.
#[derive(Deserialize)]
struct Readiness {
    stage: String,
    reasons: BTreeMap<String, String>,
}

fn reasons(status: u16, body: &[u8]) -> String {
    let Ok(Readiness { stage, reasons }) = serde_json::from_slice(body) else {
        return format!("not ready: the answer has status {status}");
    };
    let mut text = format!("not ready ({stage})");
    for (name, reason) in reasons {
        text.push_str(&format!("\n  {name}: {reason}"));
    }
    // The text is from somebody else, and goes to a terminal.
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Instant;

    use rstest::rstest;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::telemetry::{Health, Metrics, listen, serve_http};

    #[rstest]
    #[case("http://127.0.0.1:9464/readyz", "127.0.0.1:9464/readyz")]
    #[case("http://localhost:1", "localhost:1/readyz")]
    #[case("http://host/x?y=z", "host:80/x?y=z")]
    #[case("http://[::1]:9464/livez", "[::1]:9464/livez")]
    #[case("http://[::1]", "[::1]:80/readyz")]
    fn urls(#[case] url: &str, #[case] target: &str) {
        assert_eq!(Target::of_url(url).unwrap().to_string(), target);
    }

    #[rstest]
    #[case("https://host/")]
    #[case("host:80")]
    #[case("http://")]
    #[case("http://:80/")]
    #[case("http://host:0/")]
    #[case("http://host:x/")]
    #[case("http://[::1/")]
    #[case("http://[::1]80/")]
    #[case("http://user@host/")]
    #[case("http://host/a b")]
    #[case("http://host/\r\nX: y")]
    fn no_urls(#[case] url: &str) {
        assert!(Target::of_url(url).unwrap_err().contains("http://127.0.0.1:9464/readyz"));
    }

    #[rstest]
    #[case("127.0.0.1:9464", Ok("127.0.0.1:9464/readyz"))]
    #[case("0.0.0.0:80", Ok("127.0.0.1:80/readyz"))]
    #[case("[::]:80", Ok("[::1]:80/readyz"))]
    #[case("[fe80::1]:80", Ok("[fe80::1]:80/readyz"))]
    #[case("", Err("telemetry.listen is empty"))]
    #[case("127.0.0.1:0", Err("port 0"))]
    fn settings(#[case] listen: &str, #[case] expected: Result<&str, &str>) {
        match (Target::of_setting(listen), expected) {
            (Ok(target), Ok(expected)) => assert_eq!(target.to_string(), expected),
            (Err(said), Err(expected)) => {
                assert!(said.contains(expected) && said.contains("--url"), "{said}");
            }
            other => panic!("{other:?}"),
        }
    }

    /// One server, for one request, that answers with this; `None` never answers.
    fn ask(answer: Option<&'static str>) -> Result<(), Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /readyz HTTP/1.0\r\nHost: 127.0.0.1:"));
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                // Until the other end has gone.
                None => drop(stream.read(&mut request)),
            }
        });
        let result = healthcheck(None, Some(&url));
        server.join().unwrap();
        result
    }

    #[test]
    fn a_service_says_how_it_is() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (health, stop) = (Health::new(&["consume"]), CancellationToken::new());
        let listener = runtime.block_on(listen("127.0.0.1:0")).unwrap().unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = serve_http(listener, health.clone(), Metrics::new(), Arc::new(|| {}), stop.clone());
        let tracker = TaskTracker::new();
        tracker.spawn_on(served, runtime.handle());
        let failure = healthcheck(None, Some(&url)).unwrap_err();
        assert_eq!(
            (failure.code(), failure.to_string().as_str()),
            (1, "not ready (starting)\n  consume: starting")
        );
        health.set("consume", Ok(()));
        assert!(healthcheck(None, Some(&url)).is_ok());
        health.draining();
        assert!(healthcheck(None, Some(&url)).unwrap_err().to_string().starts_with("not ready (draining)\n"));
        stop.cancel();
        tracker.close();
        runtime.block_on(tracker.wait());
    }

    #[rstest]
    #[case(
        "HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\n{\"ready\":false,\"stage\":\"draining\",\"reasons\":{\"a\":\"x\\u001b[2J\",\"b\":\"y\"}}\n",
        1,
        "not ready (draining)\n  a: x\u{fffd}[2J\n  b: y"
    )]
    #[case("HTTP/1.0 404 Not Found\r\n\r\nwhat?", 1, "not ready: the answer has status 404")]
    #[case("SSH-2.0\r\n\r\n", 69, "that is no HTTP")]
    #[case("", 69, "that is no HTTP")]
    fn not_ready(#[case] answer: &'static str, #[case] code: u8, #[case] said: &str) {
        let failure = ask(Some(answer)).unwrap_err();
        assert_eq!(failure.code(), code);
        assert!(failure.to_string().contains(said), "{failure}");
    }

    #[test]
    fn nobody_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let failure = healthcheck(None, Some(&url)).unwrap_err();
        assert_eq!(failure.code(), 69);
        assert!(failure.to_string().contains(&url), "{failure}");
    }

    #[test]
    fn silence_is_not_waited_for() {
        let started = Instant::now();
        let failure = ask(None).unwrap_err();
        assert_eq!(failure.code(), 69);
        assert!(failure.to_string().contains("within 3s") && started.elapsed() < LIMIT * 2, "{failure}");
    }
}
