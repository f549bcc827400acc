//! Where the broker is, connecting to it, and the bound of every call.

use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::types::ShortString;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use thiserror::Error;

use super::files::Files;
use super::tls;
use crate::config::{RabbitMq, redact};
use crate::util::ceiling::Ceiling;
use crate::util::retry::Retry;

/// Bound of connecting.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Bound of one request and its answer.
pub(super) const RPC_LIMIT: Duration = Duration::from_secs(10);

const PAUSE_INITIAL: Duration = Duration::from_millis(200);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A link of the service that lived so long is tried again without much delay.
pub(super) const STABLE: Duration = Duration::from_secs(2);

/// Something of the broker's does not work.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// Nobody said where it is.
    #[error(
        "no broker is named: set rabbitmq.url (EVALMILL__RABBITMQ__URL=amqp://user:password@host:5672/vhost) or rabbitmq.url_file"
    )]
    NoUrl,
    /// A file that a setting names cannot be used.
    #[error("{setting} = {file:?}: {reason}; the file must hold {what}")]
    File {
        /// The setting.
        setting: &'static str,
        /// The file.
        file: String,
        /// What the system said, or what is wrong with it.
        reason: String,
        /// What the file is for.
        what: &'static str,
    },
    /// The URL is none.
    #[error("{from} {url:?} cannot be used: {reason}; write amqp://user:password@host:5672/vhost")]
    BadUrl {
        /// The setting that it is from.
        from: String,
        /// The URL without its password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A call took too long.
    #[error("{what}: no answer within {limit:?}")]
    Timeout {
        /// The call.
        what: String,
        /// Its bound.
        limit: Duration,
    },
    /// A call failed.
    #[error("{what}: {source}")]
    Call {
        /// The call.
        what: String,
        /// What the client library said.
        source: lapin::Error,
    },
    /// The certificate of the broker is not accepted.
    #[error("{reason}; {advice}")]
    Certificate {
        /// The call, and what is wrong with the certificate.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// Nobody can vouch for a broker.
    #[error(
        "this machine trusts no certificate authority at all: install ca-certificates, or set rabbitmq.tls_ca_file"
    )]
    NoAuthorities,
    /// The exchange of results would lose what nobody has bound a queue for.
    #[error(
        "the exchange evalmill.results must have the argument alternate-exchange=\"evalmill.unrouted\", which keeps results that nobody has bound a queue for (rabbitmq.topology is \"check\"): {reason}"
    )]
    NoAlternate {
        /// What the broker said.
        reason: String,
    },
    /// The connection or what was on it ended.
    #[error("{0}")]
    Ended(String),
    /// A text is too long for AMQP.
    #[error("{what} has {bytes} bytes: AMQP takes at most 255")]
    TooLong {
        /// The text's role.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
}

impl BrokerError {
    /// The broker refuses one thing, and the connection lives.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Call { source, .. } if source.is_amqp_soft_error())
    }
}

/// What a connection is for; part of its name, which the broker's tools show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Taking deliveries.
    Consume,
    /// Publishing.
    Publish,
    /// Looking and declaring.
    Admin,
}

impl Role {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Publish => "publish",
            Self::Admin => "admin",
        }
    }
}

/// A broker, and how to get to it.
#[derive(Debug, Clone)]
pub struct Broker {
    /// The settings.
    pub settings: RabbitMq,
    /// Who connects: `<host>/<process id>`.
    pub instance: String,
    /// The most bytes of a message: what the settings allow, or less where the broker said so.
    pub max_message_bytes: Ceiling,
    files: Files,
}

impl Broker {
    /// The broker that these settings name.
    #[must_use]
    pub fn new(settings: RabbitMq, instance: String) -> Self {
        let max_message_bytes = Ceiling::new((settings.max_message_mb as usize) << 20);
        Self { settings, instance, max_message_bytes, files: Files::default() }
    }

    /// The URL with user and password as they are now: files are read again each time, so that a changed
    /// password is taken up.
    ///
    /// # Errors
    /// There is none, or it cannot be used. No error shows a password.
    pub async fn uri(&self) -> Result<AMQPUri, BrokerError> {
        let (settings, files) = (&self.settings, &self.files);
        let (from, url) = match (settings.url.reveal(), settings.url_file.as_str()) {
            ("", "") => return Err(BrokerError::NoUrl),
            ("", file) => {
                let url =
                    files.read("rabbitmq.url_file", file, "amqp://user:password@host:5672/vhost").await?;
                (format!("rabbitmq.url (in {file})"), url)
            }
            (url, _) => ("rabbitmq.url".to_owned(), url.to_owned()),
        };
        let url = url.trim();
        // What is no URL may be a password alone.
        let shown = if url.contains("://") { redact("url", url).into_owned() } else { "***".to_owned() };
        let mut uri = AMQPUri::from_str(url).map_err(|reason| BrokerError::BadUrl {
            from: from.clone(),
            url: shown.clone(),
            // The parser repeats the URL where it dislikes it as a whole.
            reason: reason.replace(url, "it"),
        })?;
        if uri.scheme == AMQPScheme::AMQPS && !cfg!(feature = "tls") {
            let reason =
                "this program was built without TLS: build it with `cargo build --release --features tls`"
                    .to_owned();
            return Err(BrokerError::BadUrl { from, url: shown, reason });
        }
        let certificates = [&settings.tls_ca_file, &settings.tls_certificate_file, &settings.tls_key_file];
        if uri.scheme == AMQPScheme::AMQP && certificates.iter().any(|file| !file.is_empty()) {
            // Whoever names certificates does not expect that the password goes over in the clear.
            let reason =
                "files of certificates are set (rabbitmq.tls_…), which are for amqps:// only".to_owned();
            return Err(BrokerError::BadUrl { from, url: shown, reason });
        }
        let userinfo = &mut uri.authority.userinfo;
        match (settings.user.as_str(), settings.user_file.as_str()) {
            ("", "") => {}
            ("", file) => {
                userinfo.username = files.read("rabbitmq.user_file", file, "the user's name").await?;
            }
            (user, _) => user.clone_into(&mut userinfo.username),
        }
        match (settings.password.reveal(), settings.password_file.as_str()) {
            ("", "") => {}
            ("", file) => {
                userinfo.password = files.read("rabbitmq.password_file", file, "the password").await?;
            }
            (password, _) => password.clone_into(&mut userinfo.password),
        }
        uri.query.heartbeat = Some(settings.heartbeat);
        Ok(uri)
    }

    /// Whether all that is needed to connect can be read: what cannot is for people to put right.
    ///
    /// # Errors
    /// The URL, or a file that a setting names, cannot be used.
    pub async fn usable(&self) -> Result<(), BrokerError> {
        if self.uri().await?.scheme == AMQPScheme::AMQPS {
            tls::certificates(&self.settings, &self.files).await?;
        }
        Ok(())
    }

    /// A new connection.
    ///
    /// # Errors
    /// There is no way to the broker, it refuses us, or it is mute.
    pub async fn connect(&self, role: Role) -> Result<Connection, BrokerError> {
        let uri = self.uri().await?;
        let what = format!("connect to {}:{}", uri.authority.host, uri.authority.port);
        let name = format!("evalmill {} {}", role.name(), self.instance);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let config = match uri.scheme {
            AMQPScheme::AMQP => OwnedTLSConfig::default(),
            AMQPScheme::AMQPS => tls::certificates(&self.settings, &self.files).await?,
        };
        let connect = async {
            let runtime = lapin::runtime::default_runtime()?;
            Connection::connect_uri_with_config(uri, properties, config, runtime).await
        };
        bounded(&what, CONNECT_LIMIT, connect).await.map_err(|error| match tls::advice(&error.to_string()) {
            Some(advice) => BrokerError::Certificate { reason: error.to_string(), advice },
            None => error,
        })
    }

    /// Bound of writing a message or an acknowledgement: a link that is dead is seen by then.
    #[must_use]
    pub fn write_limit(&self) -> Duration {
        Duration::from_secs(u64::from(self.settings.heartbeat) * 2)
    }

    /// The share of one class in so many unsettled deliveries.
    pub(super) fn class_prefetch(&self, all: u16) -> u16 {
        let classes = u16::try_from(self.settings.classes.len()).unwrap_or(u16::MAX).max(1);
        (all / classes).max(1)
    }

    /// How long a result may wait for others to go with it.
    pub(super) fn linger(&self) -> Duration {
        Duration::from_millis(self.settings.linger_ms.into())
    }

    /// The same of an acknowledgement: nobody waits for that one.
    pub(super) fn ack_linger(&self) -> Duration {
        self.linger() * 4
    }
}

/// The pauses between two connections of one link: they grow, and start small again after a link that
/// lived long enough.
#[derive(Debug)]
pub(super) struct Pauses {
    retry: Retry,
    stable: Duration,
}

impl Pauses {
    pub(super) fn new(stable: Duration) -> Self {
        Self { retry: Retry::new(PAUSE_INITIAL, PAUSE_MAX), stable }
    }

    /// The pause after a link that lived so long.
    pub(super) fn after(&mut self, lived: Duration) -> Duration {
        if lived > self.stable {
            self.retry.reset();
        }
        self.retry.next_delay()
    }

    /// The pause after one more try that came to nothing.
    pub(super) fn next(&mut self) -> Duration {
        self.retry.next_delay()
    }
}

/// A call of lapin with a bound: any of them can wait for ever where the broker is mute.
///
/// # Errors
/// The call failed, or took longer.
pub async fn bounded<T>(
    what: &str,
    limit: Duration,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(BrokerError::Call { what: what.to_owned(), source }),
        Err(_) => Err(BrokerError::Timeout { what: what.to_owned(), limit }),
    }
}

/// Text as AMQP's short string.
///
/// # Errors
/// It is longer than 255 bytes.
pub fn short(what: &'static str, text: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(|_| BrokerError::TooLong { what, bytes: text.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn broker(url: &str) -> Broker {
        let settings = RabbitMq { url: url.into(), ..RabbitMq::default() };
        Broker::new(settings, "h/1".to_owned())
    }

    #[tokio::test]
    async fn urls() {
        let uri = broker("amqp://u:p%40x@127.0.0.1:5671/%2f").uri().await.unwrap();
        assert_eq!(
            (uri.authority.host.as_str(), uri.authority.port, uri.vhost.as_str()),
            ("127.0.0.1", 5671, "/")
        );
        assert_eq!((uri.authority.userinfo.password.as_str(), uri.query.heartbeat), ("p@x", Some(10)));
    }

    #[rstest]
    #[case("", "EVALMILL__RABBITMQ__URL")]
    #[case("http://u:hunter2@h", "***@h")]
    #[cfg_attr(not(feature = "tls"), case("amqps://u:hunter2@h", "--features tls"))]
    #[case("amqp:hunter2", "cannot be used")]
    #[case("u:hunter2@h", "cannot be used")]
    #[tokio::test]
    async fn bad_urls_are_named_without_their_password(#[case] url: &str, #[case] says: &str) {
        let error = broker(url).uri().await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn the_file_is_read_each_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let settings = RabbitMq { url_file: file.path().display().to_string(), ..RabbitMq::default() };
        let broker = Broker::new(settings, String::new());
        for host in ["one", "two"] {
            std::fs::write(file.path(), format!("amqp://{host}\n")).unwrap();
            assert_eq!(broker.uri().await.unwrap().authority.host, host);
        }
    }

    #[tokio::test]
    async fn user_and_password_beside_the_url() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut broker = broker("amqp://u:p@host");
        broker.settings.user = "me".to_owned();
        broker.settings.password_file = file.path().display().to_string();
        for password in ["one", "t w/o%2f"] {
            std::fs::write(file.path(), format!("{password}\n")).unwrap();
            let userinfo = broker.uri().await.unwrap().authority.userinfo;
            assert_eq!((userinfo.username.as_str(), userinfo.password.as_str()), ("me", password));
        }
        broker.settings.password = "hunter2".into();
        assert_eq!(broker.uri().await.unwrap().authority.userinfo.password, "hunter2");
        assert!(!format!("{broker:?}").contains("hunter2"));
        broker.settings = RabbitMq { url: "amqp://u:p@host".into(), ..RabbitMq::default() };
        let userinfo = broker.uri().await.unwrap().authority.userinfo;
        assert_eq!((userinfo.username.as_str(), userinfo.password.as_str()), ("u", "p"));
    }

    #[rstest]
    #[case("rabbitmq.url_file", "amqp://user:password@host")]
    #[case("rabbitmq.user_file", "the user's name")]
    #[case("rabbitmq.password_file", "the password")]
    #[tokio::test]
    async fn files_that_cannot_be_used(#[case] setting: &str, #[case] what: &str) {
        let empty = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(empty.path(), "\n").unwrap();
        for (file, reason) in
            [(empty.path().display().to_string(), "it is empty"), ("/nowhere/x".into(), "No such file")]
        {
            let mut broker = broker("amqp://host");
            match setting {
                "rabbitmq.url_file" => {
                    broker.settings = RabbitMq { url_file: file.clone(), ..RabbitMq::default() };
                }
                "rabbitmq.user_file" => broker.settings.user_file = file.clone(),
                _ => broker.settings.password_file = file.clone(),
            }
            let error = broker.uri().await.unwrap_err().to_string();
            let said = error.contains(setting) && error.contains(&file) && error.contains(what);
            assert!(said && error.contains(reason), "{error}");
        }
    }

    /// A pipe that nobody writes to, as a mount that hangs.
    #[tokio::test(start_paused = true)]
    async fn files_that_never_answer() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let mut broker = broker("amqps://u:p@127.0.0.1:1");
        let path = file.display().to_string();
        for password in [true, false] {
            broker.settings.password_file = if password { path.clone() } else { String::new() };
            broker.settings.tls_ca_file = path.clone();
            let setting = if password { "rabbitmq.password_file" } else { "rabbitmq.tls_ca_file" };
            // Each try leaves one behind; in the end there may be no more of them.
            for _ in 0..10 {
                let error = broker.connect(Role::Admin).await.map(drop).unwrap_err().to_string();
                let said = error.contains(setting) && error.contains(&path) && error.contains("within 10s");
                assert!(said || (!cfg!(feature = "tls") && error.contains("TLS")), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn certificates_without_tls() {
        let mut broker = broker("amqp://u:hunter2@h");
        broker.settings.tls_ca_file = "/ca.pem".to_owned();
        let error = broker.uri().await.unwrap_err().to_string();
        assert!(error.contains("amqps://") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn long_text_is_an_error() {
        assert!(short("key", &"x".repeat(255)).is_ok());
        assert!(short("key", &"x".repeat(256)).unwrap_err().to_string().contains("256 bytes"));
    }
}
