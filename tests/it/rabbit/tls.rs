//! TLS to a broker whose certificate an authority of the test's own has signed.

use std::path::Path;
use std::process::{Command, Stdio};

use super::node::{Node, free_port};
use super::service::{Service, Stage, many};
use super::{MINUTE, SECOND};

/// An authority, a certificate of it for `localhost`, and one for us; another authority that knows neither.
fn certificates(dir: &Path) {
    const MAKE: &str = r#"
        new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        for ca in ca other; do
            openssl req -x509 $new -days 2 -subj "/CN=$ca" -keyout $ca.key -out $ca.pem
        done
        for name in localhost us; do
            printf 'subjectAltName=DNS:%s\nbasicConstraints=CA:FALSE\n' $name > $name.ext
            openssl req $new -subj "/CN=$name" -keyout $name.key -out $name.csr
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                -extfile $name.ext -out $name.pem
        done"#;
    let mut make = Command::new("sh");
    let output = make.args(["-euc", MAKE]).current_dir(dir).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_tls() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let port = free_port();
    let lines = format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\n\
         ssl_options.cacertfile = {}\n\
         ssl_options.certfile = {}\n\
         ssl_options.keyfile = {}\n\
         ssl_options.verify = verify_peer\n\
         ssl_options.fail_if_no_peer_cert = true",
        at("ca.pem"),
        at("localhost.pem"),
        at("localhost.key"),
    );
    let node = tokio::task::spawn_blocking(move || Node::private_with(&lines)).await.unwrap();
    let vhost = node.vhost();
    let url = |host: &str| format!("amqps://guest:guest@{host}:{port}/{}", vhost.name);
    let (ca, other, certificate, key) = (at("ca.pem"), at("other.pem"), at("us.pem"), at("us.key"));
    let ours =
        [("RABBITMQ__TLS_CERTIFICATE_FILE", certificate.as_str()), ("RABBITMQ__TLS_KEY_FILE", key.as_str())];
    let with = |ca: &'static str, file: &str| [(ca, file.to_owned())];
    let start = |host: &str, ca: &[(&str, String)], ours: &[(&str, &str)]| {
        let ca = ca.iter().map(|(name, value)| (*name, value.as_str()));
        Service::start_with(&url(host), &ca.chain(ours.iter().copied()).collect::<Vec<_>>())
    };
    const CA: &str = "RABBITMQ__TLS_CA_FILE";

    let service = start("localhost", &with(CA, &ca), &ours);
    let mut stage = Stage::new(&vhost).await;
    service.until("ready", MINUTE, Service::is_ready).await;
    stage.publish(&many("tls", 20, &["true"])).await;
    stage.audit(&service, 20, 0).await;
    assert_eq!(service.terminate(MINUTE).await.0, Some(0));

    for (host, ca, ours, says) in [
        // By nobody whom this machine trusts.
        ("localhost", None, &ours[..], "rabbitmq.tls_ca_file must name"),
        ("localhost", Some(&other), &ours[..], "rabbitmq.tls_ca_file must name"),
        ("127.0.0.1", Some(&ca), &ours[..], "write the host in rabbitmq.url as it stands in the certificate"),
        ("localhost", Some(&ca), &[], "CertificateRequired"),
    ] {
        let ca = ca.map(|file| (CA, file.clone()));
        let service = start(host, ca.as_slice(), ours);
        service.until(says, 20 * SECOND, |service| service.says("consume", says)).await;
        assert!(!service.log().contains("guest"), "{}", service.log());
    }
}

#[tokio::test]
async fn a_missing_file_is_said_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = crate::support::evalmill(scratch.path());
    command.env("EVALMILL__RABBITMQ__URL", "amqps://localhost:1").env("EVALMILL__TELEMETRY__LISTEN", "");
    let output = command.env("EVALMILL__RABBITMQ__TLS_CA_FILE", "/nowhere/ca").arg("serve").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("rabbitmq.tls_ca_file = \"/nowhere/ca\": No such file"), "{stderr}");
}
