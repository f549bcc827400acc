//! Where a broker is, what its management API does for a test, and a virtual host for each test.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lapin::uri::AMQPUri;
use serde_json::{Value, json};

/// Where a broker is, and who we are there.
#[derive(Clone)]
pub(super) struct Broker {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    /// `host:port` of the management API.
    pub(super) management: String,
}

/// A virtual host of its own for one test, deleted on drop.
pub(crate) struct Vhost {
    broker: Broker,
    pub(crate) name: String,
    pub(crate) url: String,
}

impl Vhost {
    /// The address of this virtual host through a proxy on loopback port `port`.
    pub(crate) fn url_at(&self, port: u16) -> String {
        Broker { host: Ipv4Addr::LOCALHOST.to_string(), ..self.broker.clone() }.url(port, &self.name)
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        // A node that was killed is no failure: its data goes with it.
        if let Err(why) = self.broker.api("DELETE", &format!("vhosts/{}", self.name), None) {
            eprintln!("vhost {} is left: {why}", self.name);
        }
    }
}

impl Broker {
    /// The broker at `EVALMILL_TEST_AMQP_URL`.
    pub(super) fn at(url: &str) -> Result<Broker, String> {
        let uri: AMQPUri = url.parse().map_err(|why| format!("EVALMILL_TEST_AMQP_URL: {why}"))?;
        let (host, user) = (uri.authority.host, uri.authority.userinfo);
        let management = std::env::var("EVALMILL_TEST_AMQP_MANAGEMENT")
            .map(|url| url.trim_start_matches("http://").trim_end_matches('/').to_owned())
            .unwrap_or_else(|_| format!("{host}:15672"));
        let port = uri.authority.port;
        Ok(Broker { host, port, user: user.username, password: user.password, management })
    }

    /// A new virtual host, in which our user may do everything.
    pub(super) fn vhost(&self) -> Result<Vhost, String> {
        let name = format!("evalmill-test-{}", uuid::Uuid::new_v4().simple());
        self.api("PUT", &format!("vhosts/{name}"), None)?;
        let url = self.url(self.port, &name);
        let vhost = Vhost { broker: self.clone(), name, url };
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.api("PUT", &format!("permissions/{}/{}", vhost.name, self.user), Some(&all))?;
        Ok(vhost)
    }

    fn url(&self, port: u16, vhost: &str) -> String {
        format!("amqp://{}:{}@{}:{port}/{vhost}", self.user, self.password, self.host)
    }

    /// One call of the management API.
    pub(super) fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let failed = |why: &dyn std::fmt::Display| format!("{method} /api/{path}: {why}");
        let answer = self.http(method, path, body).map_err(|why| failed(&why))?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| failed(&answer))?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            return Err(failed(&answer));
        }
        if body.is_empty() { Ok(Value::Null) } else { serde_json::from_str(body).map_err(|why| failed(&why)) }
    }

    /// HTTP/1.0, so that the answer is neither chunked nor kept open.
    fn http(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<String> {
        let limit = Duration::from_secs(30);
        let address = self.management.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let user = BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password));
        let body = body.map(Value::to_string).unwrap_or_default();
        let (host, length) = (&self.management, body.len());
        write!(
            stream,
            "{method} /api/{path} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Basic {user}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
