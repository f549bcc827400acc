//! The service between RabbitMQ and RabbitMQ: what it does when all is well, and with bad input.

use rstest::rstest;
use serde_json::{Value, json};

use super::client::Message;
use super::node::{MAX_MESSAGE_BYTES, Node};
use super::service::{AUDIT, LAST_DECLARED, Service, Stage, WORK, many, runs, verdicts};
use super::{MINUTE, SECOND};
use crate::support::{humaneval, processes_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn predictions_become_results() {
    let vhost = Node::shared().vhost();
    let service = Service::start_with(&vhost.url, &[("TELEMETRY__WINDOW_SECONDS", "0.5")]);
    let mut stage = Stage::new(&vhost).await;
    let mut timings = stage.client.results(&["timings.#"]).await.unwrap();
    let mut inputs = many("ok", 100, &["true"]);
    inputs.extend(many("wrong", 50, &["false"]));
    stage.publish(&inputs).await;
    let (audit, results) = stage.audit(&service, 150, 0).await;
    assert_eq!((audit.results, audit.parked, audit.duplicates), (150, 0, 0));
    assert_eq!(verdicts(&results), [("failed".to_owned(), 50), ("passed".to_owned(), 100)]);
    for result in &results {
        let json = result.json();
        assert_eq!(result.key, format!("result.r.{}", json["verdict"].as_str().unwrap()));
        assert_eq!((&json["attempt"], &json["redelivered"]), (&json!(1), &json!(false)));
        let properties = &result.properties;
        assert_eq!(properties.message_id().as_ref().unwrap().as_str(), json["result_id"].as_str().unwrap());
        assert_eq!(properties.kind().as_ref().unwrap().as_str(), "result.v1");
    }
    let window = timings.next(10 * SECOND).await.unwrap();
    assert_eq!(window.json()["schema"], "timings.v1");
    let metrics = |service: &Service| {
        ["evalmill_results_total", "evalmill_settlements_total", "evalmill_published_total"]
            .map(|name| service.metric(name))
    };
    service
        .until("the metrics", MINUTE, |service| {
            let [results, settled, published] = metrics(service);
            results == 150.0 && settled == 150.0 && published >= 150.0
        })
        .await;
    let (code, log) = service.terminate(MINUTE).await;
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn humaneval_passes() {
    let vhost = Node::shared().vhost();
    let service = Service::start(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    let file = std::fs::File::open(humaneval()).unwrap();
    let text = std::io::read_to_string(flate2::read::GzDecoder::new(file)).unwrap();
    let inputs: Vec<_> = text
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            let id = row["task_id"].as_str().unwrap().to_owned();
            let message = json!({"id": id, "preprocessor": "humaneval", "prediction": row});
            (id, message.to_string().into_bytes())
        })
        .collect();
    stage.publish(&inputs).await;
    let (_, results) = stage.audit(&service, 164, 0).await;
    assert_eq!(verdicts(&results), [("passed".to_owned(), 164)]);
    assert_eq!(results[0].json()["task"].as_str().map(|task| &task[..9]), Some("HumanEval"));
}

/// Each of these is an invalid result, and acknowledged: none comes back for ever.
#[rstest]
#[case::not_json(b"not json".to_vec(), "not JSON")]
#[case::bad_utf8(vec![0xff, 0xfe, b'{'], "")]
#[case::deep("[".repeat(100_000).into_bytes(), "127 deep")]
#[case::duplicate_keys(br#"{"id": "a", "prediction": {"x": 1, "x": 2}}"#.to_vec(), "stands twice")]
#[case::nan(br#"{"id": "a", "prediction": {"x": NaN}}"#.to_vec(), "NaN")]
#[case::surrogate(br#"{"id": "a", "prediction": {"x": "\ud800"}}"#.to_vec(), "lone surrogate")]
#[case::unknown_preprocessor(br#"{"id": "the-id", "preprocessor": "nope", "prediction": {}}"#.to_vec(), "nope")]
#[case::an_array(b"[1]".to_vec(), "an array")]
#[case::empty(Vec::new(), "")]
#[case::too_long(vec![b' '; 2 << 20], "rabbitmq.max_message_mb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_used_is_invalid(#[case] body: Vec<u8>, #[case] says: &str) {
    let vhost = Node::shared().vhost();
    let service = Service::start_with(&vhost.url, &[("RABBITMQ__MAX_MESSAGE_MB", "1")]);
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&[("the-id".to_owned(), body), runs("good", &["true"])]).await;
    let (_, results) = stage.audit(&service, 2, 0).await;
    let invalid = results.iter().find(|result| result.json()["verdict"] == "invalid").unwrap().json();
    assert!(invalid["detail"].as_str().unwrap().contains(says), "{invalid}");
    stage.client.wait_for_messages(WORK, 0, MINUTE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_id_a_message_is_named_by_its_body() {
    let vhost = Node::shared().vhost();
    let service = Service::start(&vhost.url);
    let stage = Stage::new(&vhost).await;
    let body = br#"{"prediction": {"commands": [{"command": ["true"]}]}}"#;
    stage.client.publish(super::PREDICTIONS, "default", "", body).await.unwrap();
    stage.client.wait_for_messages(AUDIT, 1, MINUTE).await.unwrap();
    let result = stage.client.drain(AUDIT).await.unwrap()[0].json();
    assert!(result["id"].as_str().unwrap().starts_with("body:"), "{result}\n{}", service.log());
    assert_eq!(result["verdict"], "invalid");
    assert!(result["detail"].as_str().unwrap().contains("message_id"), "{result}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_message_in_flight_is_done_once() {
    let vhost = Node::shared().vhost();
    // The program counts its runs in a file of the host.
    let service = Service::start_with(&vhost.url, &[("SANDBOX__TIER", "none"), ("SANDBOX__REQUIRE", "none")]);
    let mut stage = Stage::new(&vhost).await;
    let dir = tempfile::tempdir().unwrap();
    let count = dir.path().join("count");
    let script = format!("echo x >> {}; sleep 1", count.display());
    let same = runs("same", &["sh", "-c", &script]);
    stage.ledger.send("same");
    for _ in 0..10 {
        stage.client.predict(&same.0, &same.1).await.unwrap();
    }
    stage.ledger.confirm("same");
    service
        .until("all are acknowledged", MINUTE, |service| service.metric("evalmill_settlements_total") == 10.0)
        .await;
    let (audit, _) = stage.audit(&service, 1, 9).await;
    assert_eq!(audit.results, 1);
    // Those that were taken while the first ran did not run.
    let runs = std::fs::read_to_string(count).unwrap().lines().count();
    assert!(runs < 10, "{runs} runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_ours_are_tried_again_and_then_parked_with_a_notice() {
    let vhost = Node::shared().vhost();
    // A box in a sandbox is on a file system of its own, which cannot be taken away.
    let settings = [("RABBITMQ__MAX_ATTEMPTS", "2"), ("SANDBOX__TIER", "none"), ("SANDBOX__REQUIRE", "none")];
    let service = Service::start_with(&vhost.url, &settings);
    let mut stage = Stage::new(&vhost).await;
    let mut notices = stage.client.results(&["parked.#"]).await.unwrap();
    service.until("ready", MINUTE, Service::is_ready).await;
    stage.publish(&[runs("before", &["true"])]).await;
    stage.client.wait_for_messages(AUDIT, 1, MINUTE).await.unwrap();
    // Workers lose their directories: no box can be made.
    for entry in std::fs::read_dir(service.scratch()).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    stage.publish(&[runs("ours", &["true"])]).await;
    let notice =
        notices.next(MINUTE).await.unwrap_or_else(|trouble| panic!("{trouble:?}\n{}", service.log()));
    assert_eq!(notice.key, "parked.r");
    let notice = notice.json();
    assert_eq!((&notice["id"], &notice["attempts"]), (&json!("ours"), &json!(2)));
    assert!(!notice["reason"].as_str().unwrap().is_empty(), "{notice}");
    service.until("it is settled", MINUTE, |service| service.metric("evalmill_parked_total") == 1.0).await;
    let (audit, results) = stage.audit(&service, 1, 0).await;
    assert_eq!((audit.results, audit.parked), (1, 1));
    assert_eq!(results[0].json()["id"], "before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_wants_is_kept_aside() {
    let vhost = Node::shared().vhost();
    let service = Service::start(&vhost.url);
    let client = super::client::Client::connect(&vhost.url).await.unwrap();
    client.wait_for_queue(LAST_DECLARED, MINUTE).await.unwrap();
    let (id, body) = runs("a", &["true"]);
    client.predict(&id, &body).await.unwrap();
    client.wait_for_messages("evalmill.unrouted", 1, MINUTE).await.unwrap();
    let kept = client.drain("evalmill.unrouted").await.unwrap();
    assert_eq!(kept[0].json()["id"], "a", "{}", service.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_is_too_long_is_shortened() {
    let vhost = Node::shared().vhost();
    let settings = [("RABBITMQ__MAX_MESSAGE_MB", "1"), ("LIMITS__CARRIED_OUTPUT_KB", "8192")];
    let service = Service::start_with(&vhost.url, &settings);
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&[runs("long", &["sh", "-c", "head -c 6000000 /dev/zero | tr '\\0' 'x'"])]).await;
    let (_, results) = stage.audit(&service, 1, 0).await;
    let result = results[0].json();
    assert_eq!(result["verdict"], "passed");
    assert!(results[0].body.len() <= 1 << 20);
    assert_eq!(result["executions"][0]["command_results"][0]["stdout_truncated"], true);
    assert!(result["detail"].as_str().unwrap().contains("shortened"), "{}", result["detail"]);
}

/// The settings allow more than the broker does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_the_broker_never_takes_is_shortened() {
    let vhost = Node::shared().vhost();
    let settings = [("RABBITMQ__MAX_MESSAGE_MB", "64"), ("LIMITS__CARRIED_OUTPUT_KB", "16384")];
    let service = Service::start_with(&vhost.url, &settings);
    let mut stage = Stage::new(&vhost).await;
    let long = "head -c 10000000 /dev/zero | tr '\\0' 'x' | tee /dev/stderr";
    for id in ["first", "second"] {
        let mut inputs = many(&format!("beside-{id}"), 10, &["true"]);
        inputs.push(runs(id, &["sh", "-c", long]));
        stage.publish(&inputs).await;
        stage.client.wait_for_messages(AUDIT, if id == "first" { 11 } else { 22 }, MINUTE).await.unwrap();
    }
    // Those beside it can be out twice: their confirms are lost with the channel.
    let (_, results) = stage.audit(&service, 22, 10).await;
    let long: Vec<_> = results.iter().filter(|result| result.json()["detail"].is_string()).collect();
    assert_eq!(long.len(), 2);
    for result in long {
        let json = result.json();
        assert!(result.body.len() <= MAX_MESSAGE_BYTES && json["verdict"] == "passed", "{}", json["detail"]);
        assert!(json["detail"].as_str().unwrap().contains("shortened"), "{}", json["detail"]);
    }
    assert_eq!(service.log().matches("the publishing link is lost").count(), 1, "{}", service.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_gets_a_copy() {
    use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
    let vhost = Node::shared().vhost();
    let service = Service::start(&vhost.url);
    let stage = Stage::new(&vhost).await;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let channel = &stage.client.channel;
    channel.queue_declare("answers".into(), options, lapin::types::FieldTable::default()).await.unwrap();
    let (_, body) = runs("asked", &["true"]);
    let properties = lapin::BasicProperties::default()
        .with_message_id("asked".into())
        .with_correlation_id("c-1".into())
        .with_reply_to("answers".into());
    let publish = BasicPublishOptions::default();
    let sent = channel.basic_publish(super::PREDICTIONS.into(), "default".into(), publish, &body, properties);
    sent.await.unwrap().await.unwrap();
    stage.client.wait_for_messages("answers", 1, MINUTE).await.unwrap();
    let answer = &stage.client.drain("answers").await.unwrap()[0];
    assert_eq!(answer.json()["id"], "asked", "{}", service.log());
    assert_eq!(answer.properties.correlation_id().as_ref().unwrap().as_str(), "c-1");
    stage.client.wait_for_messages(AUDIT, 1, MINUTE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_what_runs_and_gives_back_the_rest() {
    let vhost = Node::shared().vhost();
    let service = Service::start(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    let marker = format!("0.3{}", std::process::id());
    stage.publish(&many("slow", 60, &["sleep", &marker])).await;
    stage.client.wait_for_messages(AUDIT, 2, MINUTE).await.unwrap();
    let (code, log) = service.terminate(MINUTE).await;
    assert_eq!(code, Some(0), "{log}");
    assert!(processes_with(&format!("sleep\0{marker}")).is_empty());
    let done = stage.client.wait_for_queue(AUDIT, SECOND).await.unwrap();
    let waiting = stage.client.wait_for_queue(WORK, SECOND).await.unwrap();
    assert_eq!(done + waiting, 60, "{done} done, {waiting} given back\n{log}");
    // The next one does what was given back, and nothing twice.
    let service = Service::start(&vhost.url);
    let (audit, results) = stage.audit(&service, 60, 0).await;
    assert_eq!((audit.results, audit.duplicates), (60, 0));
    assert!(results.iter().all(|result: &Message| result.key == "result.r.passed"));
}

#[tokio::test]
async fn a_missing_broker_address_is_said_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    for (url, says) in [("", "EVALMILL__RABBITMQ__URL"), ("http://u:hunter2@h", "amqp://user:password@host")]
    {
        let mut command = crate::support::evalmill(scratch.path());
        command.env("EVALMILL__RABBITMQ__URL", url).env("EVALMILL__TELEMETRY__LISTEN", "");
        let output = command.arg("serve").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{stderr}");
        assert!(stderr.contains(says) && !stderr.contains("hunter2"), "{stderr}");
    }
}

#[rstest]
#[case::the_timeout(
    &[("RABBITMQ__CONSUMER_TIMEOUT_SECONDS", "500")],
    "rabbitmq.consumer_timeout_seconds = 500 (from environment EVALMILL__RABBITMQ__CONSUMER_TIMEOUT_SECONDS): \
     must be at least twice limits.max_prediction_time, which is 300. Try: 600, "
)]
#[case::the_limit(
    &[("LIMITS__MAX_PREDICTION_TIME", "901")],
    "limits.max_prediction_time = 901 (from environment EVALMILL__LIMITS__MAX_PREDICTION_TIME): \
     must be at most half of rabbitmq.consumer_timeout_seconds, which is 1800: by then the broker takes a \
     delivery back. Try: 900, "
)]
#[tokio::test]
async fn a_prediction_that_may_outlast_its_delivery_is_said_at_once(
    #[case] settings: &[(&str, &str)],
    #[case] says: &str,
) {
    let scratch = tempfile::tempdir().unwrap();
    for (what, url, code) in [
        ("serve", "amqp://127.0.0.1:1", 78),
        ("check-config", "amqp://127.0.0.1:1", 78),
        ("check-config", "", 0),
    ] {
        let mut command = crate::support::evalmill(scratch.path());
        command.env("EVALMILL__RABBITMQ__URL", url).env("EVALMILL__TELEMETRY__LISTEN", "");
        for (name, value) in settings {
            command.env(format!("EVALMILL__{name}"), value);
        }
        let output = command.arg(what).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(code == 0 || stderr.contains(says), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_are_nested_deeply() {
    let vhost = Node::shared().vhost();
    let service = Service::start(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    // By the management API: the AMQP library would overflow its own stack here.
    let path = format!("exchanges/{}/evalmill.predictions/publish", vhost.name);
    let publish = move || {
        let mut nested = json!([]);
        for _ in 0..5_000 {
            nested = json!([nested]);
        }
        let (_, body) = runs("deep", &["true"]);
        let message = json!({
            "properties": {"message_id": "deep", "delivery_mode": 2, "headers": {"deep": nested}},
            "routing_key": "default",
            "payload": String::from_utf8(body).unwrap(),
            "payload_encoding": "string",
        });
        assert_eq!(Node::shared().api("POST", &path, Some(&message))["routed"], true);
    };
    std::thread::Builder::new().stack_size(1 << 30).spawn(publish).unwrap().join().unwrap();
    stage.ledger.send("deep");
    stage.ledger.confirm("deep");
    stage.publish(&[runs("after", &["true"])]).await;
    let (audit, _) = stage.audit(&service, 2, 0).await;
    assert_eq!(audit.results, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_not_fit_a_result_does_not_stop_the_others() {
    use lapin::types::{AMQPValue, FieldTable};
    let vhost = Node::shared().vhost();
    let service = Service::start_with(&vhost.url, &[("RABBITMQ__MAX_MESSAGE_MB", "1")]);
    let mut stage = Stage::new(&vhost).await;
    let mut headers = FieldTable::default();
    headers.insert("tracestate".into(), AMQPValue::LongString("x".repeat(120_000).into()));
    let properties = lapin::BasicProperties::default().with_message_id("trace".into()).with_headers(headers);
    let options = lapin::options::BasicPublishOptions::default();
    let (_, body) = runs("trace", &["true"]);
    let channel = &stage.client.channel;
    let sent = channel.basic_publish(super::PREDICTIONS.into(), "default".into(), options, &body, properties);
    sent.await.unwrap().await.unwrap();
    stage.ledger.send("trace");
    stage.ledger.confirm("trace");
    let long = json!({"id": "x".repeat(1_000_000), "prediction": {}}).to_string().into_bytes();
    stage.publish(&[("long".to_owned(), long), runs("after", &["true"])]).await;
    let (_, results) = stage.audit(&service, 3, 0).await;
    assert_eq!(verdicts(&results), [("invalid".to_owned(), 1), ("passed".to_owned(), 2)]);
    assert_eq!(service.metric("evalmill_reconnects_total"), 0.0, "{}", service.log());
}
