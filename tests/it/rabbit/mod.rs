//! The broker of the tests: a node, a proxy before it, a client, and the ledger. Here is what shows
//! that these work.

pub(crate) mod broker;
pub(crate) mod client;
mod faults;
mod ledger;
mod long;
mod nemesis;
pub(crate) mod node;
pub(crate) mod proxy;
mod serve;
mod service;
#[cfg(feature = "tls")]
mod tls;
mod topology;

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use rstest::rstest;
use serde_json::json;

use client::{Client, Outcome, PREDICTIONS, RESULTS, Trouble, confirmed, produce};
use ledger::{Audit, Ledger};
use node::Node;
use proxy::{Mode, Proxy};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Declares an exchange, as the service would.
async fn topic(client: &Client, exchange: &str) {
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let table = FieldTable::default();
    client.channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, table).await.unwrap();
}

/// A client, with the exchange of predictions and a quorum queue `work` that takes what goes to it.
async fn client(url: &str) -> Client {
    let client = Client::connect(url).await.unwrap();
    topic(&client, PREDICTIONS).await;
    client.keep("work", PREDICTIONS, &["default"]).await.unwrap();
    client
}

fn inputs(count: usize) -> Vec<(String, Vec<u8>)> {
    (0..count).map(|i| (i.to_string(), json!({"id": i.to_string()}).to_string().into_bytes())).collect()
}

#[tokio::test]
async fn a_prediction_goes_in_and_a_result_comes_out() {
    let node = Node::shared();
    let vhost = node.vhost();
    let proxy = Proxy::start(node.port());
    let client = client(&proxy.url_for(&vhost)).await;
    topic(&client, RESULTS).await;
    client.wait_for_exchange(RESULTS, SECOND).await.unwrap();
    let mut results = client.results(&["result.#"]).await.unwrap();

    let mut ledger = Ledger::default();
    let inputs: Vec<_> =
        (0..100).map(|i| (i.to_string(), format!(r#"{{"id":"{i}"}}"#).into_bytes())).collect();
    inputs.iter().for_each(|(id, _)| ledger.send(id));
    for (id, outcome) in client.predict_all(&inputs).await {
        outcome.unwrap();
        ledger.confirm(id);
    }
    assert_eq!(client.wait_for_queue("work", SECOND).await.unwrap(), 100);

    // The service of this test: it parks what it gets last.
    let mut work = client.drain("work").await.unwrap();
    let parked = work.split_off(99);
    for message in &work {
        let (id, key) = (message.input_id(), &message.key);
        assert_eq!((key.as_str(), message.header("x-attempt")), ("default", None));
        let result = json!({"id": id, "result_id": format!("r{id}"), "verdict": "passed"});
        client.publish(RESULTS, "result.passed", &id, result.to_string().as_bytes()).await.unwrap();
    }
    let results = results.take(99, 10 * SECOND).await.unwrap();
    assert_eq!(results[0].json()["verdict"], "passed");
    let audit = ledger.check(&results, parked.iter().map(client::Message::input_id), 0);
    assert_eq!(audit, Audit { confirmed: 100, results: 99, parked: 1, duplicates: 0 });
}

#[tokio::test]
async fn what_is_missing_is_said_within_the_bound() {
    let vhost = Node::shared().vhost();
    let client = client(&vhost.url).await;
    let missing = client.wait_for_queue("none", SECOND / 5).await;
    assert!(matches!(missing, Err(Trouble::Amqp(_))), "{missing:?}");
    let unroutable = client.publish(PREDICTIONS, "nobody", "a", b"{}").await;
    assert!(matches!(&unroutable, Err(Trouble::Unroutable(id)) if id == "a"), "{unroutable:?}");
    topic(&client, RESULTS).await;
    let nothing = client.results(&["#"]).await.unwrap().next(SECOND / 5).await;
    assert!(matches!(nothing, Err(Trouble::Timeout)), "{nothing:?}");
}

/// What is to become of a publish.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Confirmed, and no earlier than this.
    Confirmed(Duration),
    /// No confirm, and nothing else, within one second; whether the broker has the message.
    Silence { arrives: bool },
    /// An error; the broker does not have the message.
    Broken,
}

#[rstest]
#[case::pass(Mode::Pass, Fate::Confirmed(Duration::ZERO))]
#[case::towards_broker(Mode::BlackholeToBroker, Fate::Silence { arrives: false })]
#[case::towards_client(Mode::BlackholeToClient, Fate::Silence { arrives: true })]
#[case::blackhole(Mode::Blackhole, Fate::Silence { arrives: false })]
#[case::stall(Mode::Stall, Fate::Silence { arrives: false })]
#[case::refuse(Mode::Refuse, Fate::Confirmed(Duration::ZERO))]
#[case::reset(Mode::Reset, Fate::Broken)]
#[case::delay(Mode::Delay(Duration::from_millis(200)), Fate::Confirmed(Duration::from_millis(400)))]
#[case::throttle(Mode::Throttle(40_000), Fate::Confirmed(Duration::from_millis(450)))]
#[case::cut(Mode::CutAfter(5_000), Fate::Broken)]
#[tokio::test]
async fn the_proxy_does_what_its_mode_says(#[case] mode: Mode, #[case] fate: Fate) {
    let node = Node::shared();
    let vhost = node.vhost();
    let proxy = Proxy::start(node.port());
    let url = proxy.url_for(&vhost);
    let behind = client(&url).await;
    let direct = Client::connect(&vhost.url).await.unwrap();

    proxy.set(mode);
    let started = Instant::now();
    let outcome: Outcome<()> = async {
        let confirm = behind.send(PREDICTIONS, "default", "a", &[b' '; 20_000]).await?;
        confirmed(confirm, if matches!(fate, Fate::Silence { .. }) { SECOND } else { 10 * SECOND }).await
    }
    .await;
    let arrived = match (fate, outcome) {
        (Fate::Confirmed(least), Ok(())) => {
            assert!(started.elapsed() >= least, "{:?}", started.elapsed());
            true
        }
        (Fate::Silence { arrives }, Err(Trouble::Timeout)) => arrives,
        (Fate::Broken, Err(Trouble::Amqp(_))) => false,
        (_, outcome) => panic!("{outcome:?} instead of {fate:?}"),
    };
    direct.wait_for_messages("work", u32::from(arrived), 10 * SECOND).await.unwrap();
    assert_eq!(direct.drain("work").await.unwrap().len(), usize::from(arrived));
    if mode == Mode::Refuse {
        let port = url.rsplit_once('/').unwrap().0.rsplit_once(':').unwrap().1.parse().unwrap();
        assert_eq!(TcpStream::connect(("127.0.0.1", port)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    proxy.set(Mode::Pass);
    if mode == Mode::Stall {
        // What stood still goes on.
        direct.wait_for_messages("work", 1, 10 * SECOND).await.unwrap();
        direct.drain("work").await.unwrap();
    }
    proxy.cut_all();
    let cut = behind.predict("b", b"{}").await;
    assert!(matches!(cut, Err(Trouble::Amqp(_))), "{cut:?}");
    Client::connect(&url).await.unwrap().predict("c", b"{}").await.unwrap();
    let ids: Vec<_> = direct.drain("work").await.unwrap().iter().map(client::Message::input_id).collect();
    assert_eq!(ids, ["c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_comes_back_with_what_it_confirmed() {
    let node = Arc::new(Node::private());
    let vhost = node.vhost();
    let before = client(&vhost.url).await;
    before.predict("a", b"{}").await.unwrap();
    // RabbitMQ 3.10 can lose a quorum queue that is younger than this.
    tokio::time::sleep(2 * SECOND).await;

    // Slow enough that the kill comes in the middle.
    let proxy = Proxy::start(node.port());
    proxy.set(Mode::Throttle(100_000));
    let mut ledger = Ledger::default();
    let (url, inputs) = (proxy.url_for(&vhost), inputs(1000));
    let restarted = node.clone();
    let restart = async {
        before.wait_for_messages("work", 100, MINUTE).await.unwrap();
        let restart = move || {
            restarted.kill9();
            restarted.start_again();
        };
        tokio::task::spawn_blocking(restart).await.unwrap();
    };
    let (unsure, ()) = tokio::join!(produce(&url, &inputs, &mut ledger, 2 * MINUTE), restart);
    let unsure = unsure.unwrap();
    assert!(unsure > 0, "the broker was killed when all was over");
    let gone = before.predict("b", b"{}").await;
    assert!(matches!(gone, Err(Trouble::Amqp(_))), "{gone:?}");

    let after = Client::connect(&vhost.url).await.unwrap();
    after.wait_for_messages("work", 1001, MINUTE).await.unwrap();
    let work = after.drain("work").await.unwrap();
    ledger.confirm("a");
    let audit = ledger.check([""; 0], work.iter().map(client::Message::input_id), unsure);
    assert_eq!((audit.confirmed, audit.parked), (1001, 1001));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_blocks_publishing_until_it_is_over() {
    let node = Node::private();
    let vhost = node.vhost();
    let client = client(&vhost.url).await;
    node.alarm(true);
    let confirm = client.send(PREDICTIONS, "default", "a", b"{}").await.unwrap();
    tokio::pin!(confirm);
    assert!(tokio::time::timeout(SECOND, &mut confirm).await.is_err(), "a confirm in spite of the alarm");
    node.alarm(false);
    let confirm = tokio::time::timeout(10 * SECOND, confirm).await.unwrap().unwrap();
    assert!(confirm.is_ack());
    let queue = node.api("GET", &format!("queues/{}/work", vhost.name), None);
    assert_eq!(queue["type"], "quorum");
}
