//! The commands that talk to a broker, against a broker; the service is played by the test.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rabbit::broker::Vhost;
use crate::rabbit::client::{Client, Message, PREDICTIONS, RESULTS};
use crate::rabbit::node::{MAX_MESSAGE_BYTES, Node};
use crate::rabbit::proxy::Proxy;
use crate::support::{evalmill, eventually};

const WORK: &str = "evalmill.work.default";
const PARKING: &str = "evalmill.parking";
const SECOND: Duration = Duration::from_secs(1);

/// A virtual host with everything that the service declares, a client of it, and a directory.
async fn scene() -> (Vhost, Client, TempDir) {
    let vhost = Node::shared().vhost();
    let dir = tempfile::tempdir().unwrap();
    let applied = ended(&vhost.url, dir.path(), &["topology", "--apply"]);
    assert_eq!(applied.status.code(), Some(0), "{}", text(&applied.stderr));
    let client = Client::connect(&vhost.url).await.unwrap();
    (vhost, client, dir)
}

fn command(url: &str, dir: &Path, args: &[&str]) -> Command {
    let mut command = evalmill(dir);
    command.args(args).env("EVALMILL__RABBITMQ__URL", url).env("EVALMILL__RABBITMQ__HEARTBEAT", "2");
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ended(url: &str, dir: &Path, args: &[&str]) -> Output {
    command(url, dir, args).output().unwrap()
}

/// Waits for its end without holding up the runtime.
async fn end(child: Child) -> Output {
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn write(dir: &Path, name: &str, lines: impl IntoIterator<Item = String>) {
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    std::fs::write(dir.join(name), text).unwrap();
}

fn rows(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|i| json!({"id": i.to_string(), "prediction": {"n": i}}).to_string())
}

fn read_rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Starts `collect`, and returns once it listens.
fn collecting(url: &str, dir: &Path, args: &[&str]) -> (Child, BufReader<ChildStderr>) {
    let all: Vec<_> = ["collect"].iter().chain(args).copied().collect();
    let mut child = command(url, dir, &all).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("collecting from") {
        assert!(stderr.read_line(&mut seen).unwrap() > 0, "{seen}");
    }
    (child, stderr)
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// The service: a result for each of the next predictions, or a notice for those with an id in `park`.
async fn serve(client: &Client, count: usize, park: &[&str]) {
    for _ in 0..count {
        client.wait_for_messages(WORK, 1, 20 * SECOND).await.unwrap();
        let got = client.channel.basic_get(WORK.into(), BasicGetOptions::default()).await.unwrap().unwrap();
        let body: Value = serde_json::from_slice(&got.delivery.data).unwrap();
        let id = body["id"].as_str().unwrap();
        let (key, answer) = if park.contains(&id) {
            let notice =
                json!({"schema": "notice.parked", "result_id": format!("r{id}"), "id": id, "reason": "full"});
            ("parked.-", notice)
        } else {
            let result =
                json!({"schema": "result.v1", "result_id": format!("r{id}"), "id": id, "verdict": "passed"});
            ("result.-.passed", result)
        };
        for _ in 0..2 {
            // At least once: each comes twice.
            client.publish(RESULTS, key, id, answer.to_string().as_bytes()).await.unwrap();
        }
        got.delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_arrives_as_it_is() {
    let (vhost, client, dir) = scene().await;
    write(
        dir.path(),
        "a.jsonl",
        [
            r#"{"id": "a",  "prediction": {"f": 1.10}}"#.to_owned(),
            "junk".to_owned(),
            String::new(),
            r#"{"prediction": {}}"#.to_owned(),
        ],
    );
    let out = ended(&vhost.url, dir.path(), &["publish", "a.jsonl"]);
    let stderr = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("a.jsonl:2 is not published: not JSON"), "{stderr}");
    assert!(stderr.contains("2 published in "), "{stderr}");
    let got = client.drain(WORK).await.unwrap();
    assert_eq!(got.iter().map(Message::input_id).collect::<Vec<_>>(), ["a", "a.jsonl:4"]);
    assert_eq!(got[0].body, br#"{"id": "a",  "prediction": {"f": 1.10}}"#);
    let properties = &got[0].properties;
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "prediction.v1");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(properties.app_id().as_ref().unwrap().as_str(), "evalmill");
    assert_eq!((*properties.delivery_mode(), got[0].key.as_str()), (Some(2), "default"));

    // Payloads, a run, a class of its own, compressed and from standard input.
    write(dir.path(), "b.jsonl", [r#"{"task_id": "T/1", "completion": "x"}"#.to_owned()]);
    let args = ["publish", "--class", "gpu", "--run", "r.1", "--preprocessor", "humaneval", "-"];
    let mut command = command(&vhost.url, dir.path(), &args);
    let out = command.stdin(std::fs::File::open(dir.path().join("b.jsonl")).unwrap()).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let got = client.drain("evalmill.work.gpu").await.unwrap();
    assert_eq!((got.len(), got[0].key.as_str()), (1, "gpu.r_1"));
    let expected = json!({
        "id": "stdin:1", "run": "r.1", "task": "T/1", "preprocessor": "humaneval",
        "prediction": {"task_id": "T/1", "completion": "x"}
    });
    assert_eq!(got[0].json(), expected);
}

/// The settings allow more than the broker does.
#[tokio::test]
async fn what_the_broker_never_takes_is_left_out() {
    let (vhost, client, dir) = scene().await;
    let longer = |id: &str| json!({"id": id, "prediction": {"x": "x".repeat(MAX_MESSAGE_BYTES)}}).to_string();
    let lines = rows(5).chain([longer("a")]).chain(rows(5)).chain([longer("b")]);
    write(dir.path(), "in.jsonl", lines);
    let mut command = command(&vhost.url, dir.path(), &["publish", "in.jsonl"]);
    let out = command.env("EVALMILL__RABBITMQ__MAX_MESSAGE_MB", "64").output().unwrap();
    let stderr = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{stderr}");
    for line in [6, 12] {
        let left_out = format!("in.jsonl:{line} is not published: the message has 167772");
        assert!(stderr.contains(&left_out), "{stderr}");
    }
    assert!(stderr.contains("10 published in "), "{stderr}");
    // Those beside it can be there twice: their confirms are lost with the channel.
    let mut ids: Vec<_> =
        client.drain(WORK).await.unwrap().iter().map(|message| message.json()["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5, "{ids:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_publish_to_collect() {
    let (vhost, client, dir) = scene().await;
    write(dir.path(), "in.jsonl", rows(60));
    let args = ["--ids", "in.jsonl", "-o", "out.jsonl", "--idle", "60"];
    let (child, mut stderr) = collecting(&vhost.url, dir.path(), &args);
    let publish = command(&vhost.url, dir.path(), &["publish", "in.jsonl"]).spawn().unwrap();
    serve(&client, 60, &["7"]).await;
    let published = end(publish).await;
    assert_eq!(published.status.code(), Some(0), "{}", text(&published.stderr));
    let out = end(child).await;
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(out.status.code(), Some(1), "one is parked: {said}");
    assert!(
        said.contains("passed                   59") && said.contains("parked                    1"),
        "{said}"
    );
    let rows = read_rows(&dir.path().join("out.jsonl"));
    let mut ids: Vec<u32> = rows.iter().map(|row| row["id"].as_str().unwrap().parse().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..60).collect::<Vec<_>>());
    // Everything is there already: it ends at once, and says the same.
    let again =
        ended(&vhost.url, dir.path(), &["collect", "--ids", "in.jsonl", "-o", "out.jsonl", "--resume"]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again.stderr));
    assert_eq!(read_rows(&dir.path().join("out.jsonl")).len(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_a_name_keeps_what_comes_between() {
    let (vhost, client, dir) = scene().await;
    let args = ["--queue", "mine", "-o", "out", "--count", "40", "--resume"];
    let (child, _) = collecting(&vhost.url, dir.path(), &args);
    let send = async |range: std::ops::Range<u32>| {
        for i in range {
            let body =
                json!({"schema": "result.v1", "result_id": i.to_string(), "id": "x", "verdict": "failed"});
            client.publish(RESULTS, "result.-.failed", "x", body.to_string().as_bytes()).await.unwrap();
        }
    };
    send(0..10).await;
    let out = dir.path().join("out");
    tokio::task::block_in_place(|| eventually("10 lines", || read_rows_so_far(&out) == 10));
    interrupt(&child);
    assert_eq!(end(child).await.status.code(), Some(130));
    send(10..20).await;
    // Killed, and the link is cut: what was not acknowledged comes again.
    let proxy = Proxy::start(Node::shared().port());
    let (mut child, _) = collecting(&proxy.url_for(&vhost), dir.path(), &args);
    tokio::task::block_in_place(|| eventually("20 lines", || read_rows_so_far(&out) == 20));
    child.kill().unwrap();
    child.wait().unwrap();
    let (child, _) = collecting(&proxy.url_for(&vhost), dir.path(), &args);
    proxy.cut_all();
    send(15..40).await;
    assert_eq!(end(child).await.status.code(), Some(0));
    let mut ids: Vec<u32> =
        read_rows(&out).iter().map(|row| row["result_id"].as_str().unwrap().parse().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..40).collect::<Vec<_>>());
}

fn read_rows_so_far(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_publish_goes_on_where_it_was() {
    let (vhost, client, dir) = scene().await;
    write(dir.path(), "in.jsonl", rows(300).chain(["[]".to_owned()]));
    let args = ["publish", "--progress-file", "progress", "--rate", "100", "in.jsonl"];
    let child = command(&vhost.url, dir.path(), &args).spawn().unwrap();
    client.wait_for_messages(WORK, 30, 20 * SECOND).await.unwrap();
    interrupt(&child);
    let out = end(child).await;
    let stderr = text(&out.stderr);
    assert_eq!(out.status.code(), Some(130), "{stderr}");
    let first = client.drain(WORK).await.unwrap().len();
    assert!((30..300).contains(&first), "{first}");
    let args = ["publish", "--progress-file", "progress", "in.jsonl"];
    let out = ended(&vhost.url, dir.path(), &args);
    let stderr = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "the last line is no prediction: {stderr}");
    assert!(stderr.contains(&format!("{first} confirmed earlier")), "{stderr}");
    assert_eq!(client.drain(WORK).await.unwrap().len(), 300 - first);
    let out = ended(&vhost.url, dir.path(), &args);
    assert_eq!(out.status.code(), Some(1), "it still is not: {}", text(&out.stderr));
    assert_eq!(client.drain(WORK).await.unwrap().len(), 0);
    let args = ["publish", "--class", "gpu", "--progress-file", "progress", "in.jsonl"];
    let out = ended(&vhost.url, dir.path(), &args);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_link_loses_nothing() {
    let (vhost, client, dir) = scene().await;
    write(dir.path(), "in.jsonl", rows(600));
    let proxy = Proxy::start(Node::shared().port());
    let args = ["publish", "--rate", "300", "in.jsonl"];
    let child = command(&proxy.url_for(&vhost), dir.path(), &args).spawn().unwrap();
    for seen in [100, 300] {
        client.wait_for_messages(WORK, seen, 20 * SECOND).await.unwrap();
        proxy.cut_all();
    }
    let out = end(child).await;
    let stderr = text(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("600 published") && stderr.contains("2 times connected again"), "{stderr}");
    let ids: std::collections::BTreeSet<_> =
        client.drain(WORK).await.unwrap().iter().map(Message::input_id).collect();
    assert_eq!(ids.len(), 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_predictions_are_shown_and_sent_again() {
    let (vhost, client, dir) = scene().await;
    // One that the service parked, one that the broker gave up, and one of which nobody knows.
    let mut headers = FieldTable::default();
    headers.insert("x-reason".into(), AMQPValue::LongString("no space".into()));
    headers.insert("x-attempts".into(), AMQPValue::LongLongInt(3));
    headers.insert("x-class".into(), AMQPValue::LongString("default".into()));
    headers.insert("x-attempt".into(), AMQPValue::LongLongInt(3));
    let properties = lapin::BasicProperties::default().with_message_id("a".into()).with_headers(headers);
    let options = BasicPublishOptions::default();
    let publish = client.channel.basic_publish("".into(), PARKING.into(), options, b"{\"x\":1}", properties);
    publish.await.unwrap().await.unwrap();
    client.publish(PREDICTIONS, "default", "b", b"{}").await.unwrap();
    let got = client.channel.basic_get(WORK.into(), BasicGetOptions::default()).await.unwrap().unwrap();
    got.delivery.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    client.wait_for_messages(PARKING, 2, 10 * SECOND).await.unwrap();
    client.publish("", PARKING, "c", b"{}").await.unwrap();

    for _ in 0..2 {
        let list = ended(&vhost.url, dir.path(), &["parking", "list", "--json"]);
        assert_eq!(list.status.code(), Some(0), "{}", text(&list.stderr));
        let rows: Vec<Value> =
            text(&list.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let brief: Vec<_> = rows.iter().map(|row| (&row["id"], &row["class"], &row["reason"])).collect();
        let (default, none) = (json!("default"), Value::Null);
        assert_eq!(
            brief,
            [
                (&json!("a"), &default, &json!("no space")),
                (&json!("b"), &default, &json!("given up by the broker: rejected")),
                (&json!("c"), &none, &none),
            ]
        );
        assert_eq!(rows[0]["attempts"], 3);
    }
    let list = ended(&vhost.url, dir.path(), &["parking", "list", "--limit", "1"]);
    assert_eq!(text(&list.stdout).lines().count(), 2, "a head and one row");
    assert!(text(&list.stderr).contains("1 of 3 parked"), "{}", text(&list.stderr));

    let again = ended(&vhost.url, dir.path(), &["parking", "requeue", "--id", "b", "--id", "no-such"]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again.stderr));
    assert!(text(&again.stderr).contains("not parked: no-such"), "{}", text(&again.stderr));
    assert_eq!(client.drain(WORK).await.unwrap()[0].input_id(), "b");

    let again = ended(&vhost.url, dir.path(), &["parking", "requeue", "--all"]);
    let stderr = text(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("1 sent again") && stderr.contains("c stays parked"), "{stderr}");
    let work = client.drain(WORK).await.unwrap();
    assert_eq!(
        (work.len(), work[0].input_id().as_str(), work[0].body.as_slice()),
        (1, "a", &b"{\"x\":1}"[..])
    );
    assert!(work[0].header("x-attempt").is_none() && work[0].header("x-reason").is_none());
    let left = client.drain(PARKING).await.unwrap();
    assert_eq!(left.iter().map(Message::input_id).collect::<Vec<_>>(), ["c"]);
}

#[rstest]
#[case::nobody(|_: &str| "amqp://u:hunter2@127.0.0.1:1/x".to_owned(), 69, "rabbitmq.url")]
#[case::stranger(|url: &str| url.replacen("guest:guest", "guest:hunter2", 1), 77, "permissions")]
#[case::no_vhost(|url: &str| format!("{url}-none"), 78, "vhost")]
#[case::no_url(|_: &str| String::new(), 78, "rabbitmq.url")]
fn who_cannot_connect_is_told_why(#[case] url: fn(&str) -> String, #[case] code: i32, #[case] says: &str) {
    let vhost = Node::shared().vhost();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in"), "{}\n").unwrap();
    let url = url(&vhost.url);
    for args in
        [&["topology", "--apply"][..], &["publish", "in"], &["collect", "--count", "1"], &["parking", "list"]]
    {
        let out = ended(&url, dir.path(), args);
        let stderr = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(says) && !stderr.contains("hunter2"), "{args:?}: {stderr}");
    }
}

#[test]
fn what_is_missing_is_named_where_it_is_only_checked() {
    let vhost = Node::shared().vhost();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in"), "{}\n").unwrap();
    for args in [&["publish", "in"][..], &["topology", "--apply"], &["collect", "--count", "1"]] {
        let out = command(&vhost.url, dir.path(), args)
            .env("EVALMILL__RABBITMQ__TOPOLOGY", "check")
            .output()
            .unwrap();
        let stderr = text(&out.stderr);
        assert_eq!(out.status.code(), Some(78), "{args:?}: {stderr}");
        assert!(stderr.contains("evalmill.") && stderr.contains("topology --apply"), "{args:?}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collect_feeds_report() {
    let (vhost, client, dir) = scene().await;
    let (mut collect, _stderr) = collecting(&vhost.url, dir.path(), &["--count", "7", "-o", "-"]);
    let report = command(&vhost.url, dir.path(), &["report", "--format", "json", "--k", "1,3", "-"])
        .stdin(Stdio::from(collect.stdout.take().unwrap()))
        .spawn()
        .unwrap();
    for (index, verdict) in
        ["passed", "failed", "failed", "passed", "infra_error", "passed"].into_iter().enumerate()
    {
        let (id, task) = (index.to_string(), ["a", "b"][index / 3]);
        let result = json!({
            "schema": "result.v1", "result_id": format!("r{id}"), "id": id, "task": task, "verdict": verdict,
        });
        for _ in 0..2 {
            client.publish(RESULTS, "result.-.any", &id, result.to_string().as_bytes()).await.unwrap();
        }
    }
    let notice = json!({"schema": "notice.parked", "result_id": "rp", "id": "p", "reason": "full"});
    client.publish(RESULTS, "parked.-", "p", notice.to_string().as_bytes()).await.unwrap();
    let (collected, reported) = (end(collect).await, end(report).await);
    // Something is parked, and collect says so; the report is whole all the same.
    assert_eq!(collected.status.code(), Some(1));
    assert_eq!(reported.status.code(), Some(0), "{}", text(&reported.stderr));
    let found: Value = serde_json::from_slice(&reported.stdout).unwrap();
    assert_eq!((&found["results"], &found["parked"]), (&json!(6), &json!(1)));
    assert_eq!(found["verdicts"], json!({"passed": 3, "failed": 2, "infra_error": 1}));
    let pass = |k: &str| found["pass_at_k"][k]["value"].as_f64().unwrap();
    assert!((pass("1") - (1.0 / 3.0 + 1.0) / 2.0).abs() < 1e-12, "{found}");
    assert_eq!((pass("3"), &found["pass_at_k"]["3"]["tasks_with_fewer"]), (1.0, &json!(1)));
}
