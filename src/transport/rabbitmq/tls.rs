//! TLS to the broker: whom we trust, and who we are.

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};

use super::broker::BrokerError;
use super::files::Files;
use crate::config::RabbitMq;

/// The certificates of a connection, as they are now.
///
/// # Errors
/// A file cannot be used, or nobody is trusted.
pub(super) async fn certificates(settings: &RabbitMq, files: &Files) -> Result<OwnedTLSConfig, BrokerError> {
    let authorities = match settings.tls_ca_file.as_str() {
        "" => machine_authorities(files).await?,
        file => {
            pem(files, "rabbitmq.tls_ca_file", file, CERTIFICATE, "certificates of authorities as PEM")
                .await?
        }
    };
    let identity = match (settings.tls_certificate_file.as_str(), settings.tls_key_file.as_str()) {
        ("", "") => None,
        (certificate, key) => {
            let what = "our certificate as PEM, and rabbitmq.tls_key_file must name its key";
            let certificate =
                pem(files, "rabbitmq.tls_certificate_file", certificate, CERTIFICATE, what).await?;
            let what = "the key, as PEM and not encrypted, of rabbitmq.tls_certificate_file";
            let key = pem(files, "rabbitmq.tls_key_file", key, "PRIVATE KEY-----", what).await?;
            Some(OwnedIdentity::PKCS8 { pem: certificate.into_bytes(), key: key.into_bytes() })
        }
    };
    Ok(OwnedTLSConfig { identity, cert_chain: Some(authorities) })
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// What is no PEM would be skipped without a word.
async fn pem(
    files: &Files,
    setting: &'static str,
    file: &str,
    mark: &str,
    what: &'static str,
) -> Result<String, BrokerError> {
    let text = files.read(setting, file, what).await?;
    if text.contains(mark) {
        return Ok(text);
    }
    let reason = format!("it has no line with {mark}");
    Err(BrokerError::File { setting, file: file.to_owned(), reason, what })
}

/// The authorities that this machine trusts, as PEM.
#[cfg(feature = "tls")]
async fn machine_authorities(files: &Files) -> Result<String, BrokerError> {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    let load = || {
        let found = rustls_native_certs::load_native_certs().certs;
        let pem = |certificate: &[u8]| {
            format!("{CERTIFICATE}\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(certificate))
        };
        found.iter().map(|certificate| pem(certificate.as_ref())).collect::<String>()
    };
    let found = files.bounded(load).await.unwrap_or_default();
    if found.is_empty() { Err(BrokerError::NoAuthorities) } else { Ok(found) }
}

/// Without TLS, no connection asks for them.
#[cfg(not(feature = "tls"))]
async fn machine_authorities(_: &Files) -> Result<String, BrokerError> {
    Err(BrokerError::NoAuthorities)
}

/// What to do about a certificate that is not accepted; nothing where that is not the trouble.
pub(super) fn advice(reason: &str) -> Option<&'static str> {
    let problem = reason.split_once("invalid peer certificate: ")?.1;
    Some(match problem {
        _ if problem.starts_with("UnknownIssuer") || problem.contains("CaUsedAsEndEntity") => {
            "nobody whom we trust has signed it: rabbitmq.tls_ca_file must name the certificate of the authority that did"
        }
        _ if problem.contains("not valid for") || problem.starts_with("NotValidForName") => {
            "write the host in rabbitmq.url as it stands in the certificate"
        }
        _ => "the broker needs another one",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[tokio::test]
    async fn files_that_are_none() {
        let (file, files) = (tempfile::NamedTempFile::new().unwrap(), Files::default());
        std::fs::write(file.path(), "hunter2").unwrap();
        let path = file.path().display().to_string();
        let settings = RabbitMq { tls_ca_file: path.clone(), ..RabbitMq::default() };
        let error = certificates(&settings, &files).await.unwrap_err().to_string();
        assert!(error.contains("rabbitmq.tls_ca_file") && error.contains(&path), "{error}");
        assert!(error.contains("BEGIN CERTIFICATE") && !error.contains("hunter2"), "{error}");
        std::fs::write(file.path(), CERTIFICATE).unwrap();
        let settings = RabbitMq { tls_certificate_file: path.clone(), ..settings };
        let error = certificates(&settings, &files).await.unwrap_err().to_string();
        assert!(error.contains("rabbitmq.tls_key_file = \"\""), "{error}");
        let settings = RabbitMq { tls_certificate_file: String::new(), tls_key_file: path, ..settings };
        let error = certificates(&settings, &files).await.unwrap_err().to_string();
        assert!(error.contains("rabbitmq.tls_certificate_file = \"\""), "{error}");
    }

    #[rstest]
    #[case("IO error: invalid peer certificate: UnknownIssuer", Some("tls_ca_file"))]
    #[case(
        "invalid peer certificate: certificate not valid for name \"127.0.0.1\"; certificate is only valid for DnsName(\"localhost\")",
        Some("the host")
    )]
    #[case("invalid peer certificate: Expired", Some("another one"))]
    #[case("connection refused", None)]
    fn ways_out(#[case] reason: &str, #[case] says: Option<&str>) {
        let advice = advice(reason);
        assert_eq!(advice.is_some(), says.is_some());
        assert!(advice.unwrap_or_default().contains(says.unwrap_or_default()));
    }
}
