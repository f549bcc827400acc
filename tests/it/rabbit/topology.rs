//! Exchanges, queues and bindings that change while the service runs: declared again, or missed aloud.

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use rstest::rstest;
use serde_json::json;

use super::client::{Client, PREDICTIONS, RESULTS};
use super::node::Node;
use super::proxy::{Mode, Proxy};
use super::service::{Service, Stage, WORK, many};
use super::{MINUTE, SECOND};

const UNROUTED: &str = "evalmill.unrouted";
/// From the loss of something to its return.
const BOUND: std::time::Duration = std::time::Duration::from_secs(5);

/// Something that somebody takes away.
#[derive(Clone, Copy, Debug)]
enum Thing {
    Queue(&'static str),
    Exchange(&'static str),
    /// Exchange, queue, key.
    Binding(&'static str, &'static str, &'static str),
}

impl Thing {
    async fn delete(self, client: &Client) {
        let channel = &client.channel;
        match self {
            Self::Queue(name) => {
                channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.map(drop)
            }
            Self::Exchange(name) => {
                channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await
            }
            Self::Binding(exchange, queue, key) => {
                let table = FieldTable::default();
                channel.queue_unbind(queue.into(), exchange.into(), key.into(), table).await
            }
        }
        .unwrap();
    }
}

/// Until it is back, a message that needs it comes back.
async fn until_it_routes(client: &Client, exchange: &str, key: &str) {
    let end = tokio::time::Instant::now() + BOUND;
    loop {
        // The exchange may be gone: that costs the channel, not the connection.
        let fresh = Client::connect(&client.url).await.unwrap();
        let sent = fresh.publish(exchange, key, "probe", b"{}").await;
        if sent.is_ok() {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "{exchange} {key}: {sent:?}");
        tokio::time::sleep(SECOND / 10).await;
    }
}

#[rstest]
#[case::unrouted_queue(Thing::Queue(UNROUTED), UNROUTED, "")]
#[case::unrouted_exchange(Thing::Exchange(UNROUTED), UNROUTED, "")]
#[case::unrouted_binding(Thing::Binding(UNROUTED, UNROUTED, ""), UNROUTED, "")]
#[case::parking_queue(Thing::Queue("evalmill.parking"), "evalmill.dead", "")]
#[case::predictions(Thing::Exchange(PREDICTIONS), PREDICTIONS, "default")]
#[case::work_binding(Thing::Binding(PREDICTIONS, WORK, "default.#"), PREDICTIONS, "default.run")]
#[case::retry_queue(Thing::Queue("evalmill.retry.default"), "", "evalmill.retry.default")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_is_declared_again(#[case] thing: Thing, #[case] exchange: &str, #[case] key: &str) {
    let vhost = Node::shared().vhost();
    let service = Service::start(&vhost.url);
    let stage = Stage::new(&vhost).await;
    service.until("ready", MINUTE, Service::is_ready).await;
    thing.delete(&stage.client).await;
    until_it_routes(&stage.client, exchange, key).await;
    assert!(service.is_ready(), "{}", service.log());
    assert_eq!(service.metric("evalmill_reconnects_total"), 0.0, "{}", service.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_wants_is_kept_after_a_deletion() {
    let vhost = Node::shared().vhost();
    let service = Service::start(&vhost.url);
    let client = Client::connect(&vhost.url).await.unwrap();
    service.until("ready", MINUTE, Service::is_ready).await;
    Thing::Exchange(UNROUTED).delete(&client).await;
    Thing::Queue(UNROUTED).delete(&client).await;
    until_it_routes(&client, UNROUTED, "").await;
    for (id, body) in many("nobody", 5, &["true"]) {
        client.predict(&id, &body).await.unwrap();
    }
    client.wait_for_messages(UNROUTED, 6, MINUTE).await.unwrap();
}

/// Something takes the place of what was deleted: it is not used, and said, until it is out of the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_declared_otherwise_is_said() {
    let vhost = Node::shared().vhost();
    let service = Service::start(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    service.until("ready", MINUTE, Service::is_ready).await;
    let (name, bound) = ("evalmill.retry.default", BOUND * 2);
    let end = tokio::time::Instant::now() + MINUTE;
    loop {
        // The service may be faster: then once more.
        let fresh = Client::connect(&vhost.url).await.unwrap();
        Thing::Queue(name).delete(&fresh).await;
        if fresh.keep(name, RESULTS, &[]).await.is_ok() {
            break;
        }
        assert!(tokio::time::Instant::now() < end);
    }
    service
        .until("it is said", bound, |service| {
            service.says("consume", name) && service.says("consume", "inequivalent arg")
        })
        .await;
    Thing::Queue(name).delete(&stage.client).await;
    service.until("ready again", bound, Service::is_ready).await;
    stage.publish(&many("after", 10, &["true"])).await;
    stage.audit(&service, 10, 0).await;
}

/// A broker that is slow once is said; the link, and what it holds, stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_that_takes_too_long_does_not_cost_the_link() {
    let node = Node::shared();
    let vhost = node.vhost();
    let proxy = Proxy::start(node.port());
    let service = Service::start_with(&proxy.url_for(&vhost), &[("RABBITMQ__HEARTBEAT", "60")]);
    service.until("ready", MINUTE, Service::is_ready).await;
    proxy.set(Mode::Stall);
    service.until("it is said", 20 * SECOND, |service| service.says("consume", "no answer within 10s")).await;
    proxy.set(Mode::Pass);
    service.until("ready again", 10 * SECOND, Service::is_ready).await;
    assert_eq!(service.metric("evalmill_reconnects_total"), 0.0, "{}", service.log());
    // Twice in a row, it is lost.
    proxy.set(Mode::Stall);
    service
        .until("it is lost", 40 * SECOND, |service| service.metric("evalmill_reconnects_total") >= 1.0)
        .await;
    proxy.set(Mode::Pass);
    service.until("ready again", 30 * SECOND, Service::is_ready).await;
}

/// A service that only checks, beside one that has declared everything and is gone.
async fn checking(url: &str) -> (Service, Client) {
    let declares = Service::start(url);
    declares.until("ready", MINUTE, Service::is_ready).await;
    declares.kill9();
    let service = Service::start_with(url, &[("RABBITMQ__TOPOLOGY", "check")]);
    service.until("ready", MINUTE, Service::is_ready).await;
    (service, Client::connect(url).await.unwrap())
}

#[rstest]
#[case::unrouted_queue(Thing::Queue(UNROUTED), UNROUTED)]
#[case::predictions(Thing::Exchange(PREDICTIONS), PREDICTIONS)]
#[case::work_queue(Thing::Queue(WORK), WORK)]
#[case::retry_queue(Thing::Queue("evalmill.retry.default"), "evalmill.retry.default")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_said_where_it_is_only_checked(#[case] thing: Thing, #[case] name: &str) {
    let vhost = Node::shared().vhost();
    let (service, client) = checking(&vhost.url).await;
    thing.delete(&client).await;
    service
        .until("it is said", BOUND, |service| {
            service.says("consume", &format!("'{name}'")) && service.says("consume", "NOT_FOUND")
        })
        .await;
    assert!(client.wait_for_queue("evalmill.parking", SECOND).await.is_ok());
    // Put right by somebody else, it goes on.
    let declares = Service::start(&vhost.url);
    service.until("ready again", 30 * SECOND, Service::is_ready).await;
    declares.kill9();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_without_an_alternate_exchange_are_said_where_it_is_only_checked() {
    let vhost = Node::shared().vhost();
    let (service, client) = checking(&vhost.url).await;
    let declare = async |alternate: bool| {
        Thing::Exchange(RESULTS).delete(&client).await;
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let mut table = FieldTable::default();
        if alternate {
            table.insert("alternate-exchange".into(), AMQPValue::LongString(UNROUTED.into()));
        }
        client.channel.exchange_declare(RESULTS.into(), ExchangeKind::Topic, options, table).await.unwrap();
    };
    declare(false).await;
    service
        .until("it is said", BOUND * 2, |service| {
            service.says("consume", "alternate-exchange=\"evalmill.unrouted\"")
        })
        .await;
    declare(true).await;
    service.until("ready again", 30 * SECOND, Service::is_ready).await;
    client.predict("after", &many("after", 1, &["true"])[0].1).await.unwrap();
    client.wait_for_messages(UNROUTED, 1, MINUTE).await.unwrap();
}

/// Queues that somebody else has made their own way are used as they are, and the log says how they differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_arguments_are_told_where_it_is_only_checked() {
    let vhost = Node::shared().vhost();
    let declares = Service::start(&vhost.url);
    declares.until("ready", MINUTE, Service::is_ready).await;
    declares.kill9();
    let settings = [("RABBITMQ__TOPOLOGY", "check"), ("RABBITMQ__DELIVERY_LIMIT", "7")];
    let service = Service::start_with(&vhost.url, &settings);
    service.until("ready", MINUTE, Service::is_ready).await;
    let log = service.log();
    assert!(log.contains("inequivalent arg 'x-delivery-limit'") && log.contains(WORK), "{log}");
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&many("other", 5, &["true"])).await;
    stage.audit(&service, 5, 0).await;
}

/// Whoever only checks needs no right to declare: then nothing is compared, and nothing breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checking_takes_no_right_to_declare() {
    let node = Node::shared();
    let vhost = node.vhost();
    let declares = Service::start(&vhost.url);
    declares.until("ready", MINUTE, Service::is_ready).await;
    declares.kill9();
    let user = format!("u-{}", vhost.name);
    node.api("PUT", &format!("users/{user}"), Some(&json!({"password": "p", "tags": ""})));
    let rights = json!({"configure": "", "write": ".*", "read": ".*"});
    node.api("PUT", &format!("permissions/{}/{user}", vhost.name), Some(&rights));
    let settings = [
        ("RABBITMQ__TOPOLOGY", "check"),
        ("RABBITMQ__DELIVERY_LIMIT", "7"),
        ("RABBITMQ__USER", &user),
        ("RABBITMQ__PASSWORD", "p"),
    ];
    let service = Service::start_with(&vhost.url, &settings);
    service.until("ready", MINUTE, Service::is_ready).await;
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&many("rights", 5, &["true"])).await;
    stage.audit(&service, 5, 0).await;
    // It still sees what is missing.
    Thing::Queue(UNROUTED).delete(&stage.client).await;
    service.until("it is said", BOUND, |service| service.says("consume", "'evalmill.unrouted'")).await;
    node.api("DELETE", &format!("users/{user}"), None);
}
