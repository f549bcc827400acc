//! Faults, injected for real, each with its ledger: nothing is lost, nothing is unexpected, and what
//! stands twice stays within what was in flight.

use lapin::options::{ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;

use super::client::RESULTS;
use super::node::Node;
use super::proxy::{Mode, Proxy};
use super::service::{AUDIT, PREFETCH, Service, Stage, WORK, many, runs};
use super::{MINUTE, SECOND};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_services() {
    let vhost = Node::shared().vhost();
    let mut service = Service::start(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&many("k", 200, &["sleep", "0.02"])).await;
    // In mid-job, again and again, over one backlog.
    for at in [20, 60, 100] {
        stage.client.wait_for_messages(AUDIT, at, MINUTE).await.unwrap();
        service.kill9();
        service = Service::start(&vhost.url);
    }
    let (audit, _) = stage.audit(&service, 200, 3 * PREFETCH).await;
    assert_eq!((audit.results, audit.parked), (200, 0));
    stage.client.wait_for_messages(WORK, 0, MINUTE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_still_runs_is_not_acknowledged_with_those_around_it() {
    let vhost = Node::shared().vhost();
    let service = Service::start(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&many("long", 1, &["sleep", "9"])).await;
    service.until("it runs", MINUTE, |service| service.metric("evalmill_slots_busy") == 1.0).await;
    stage.publish(&many("short", 100, &["true"])).await;
    let acked = |service: &Service| service.metric("evalmill_settlements_total") == 100.0;
    service.until("the others are acknowledged", MINUTE, acked).await;
    service.kill9();
    // What is handed over again is what was not acknowledged.
    stage.client.wait_for_messages(WORK, 1, MINUTE).await.unwrap();
    assert_eq!(stage.client.wait_for_queue(WORK, MINUTE).await.unwrap(), 1);
    let service = Service::start(&vhost.url);
    let (audit, _) = stage.audit(&service, 101, 1).await;
    assert_eq!((audit.results, audit.parked), (101, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_of_which_one_is_killed() {
    let vhost = Node::shared().vhost();
    let (one, other) = (Service::start(&vhost.url), Service::start(&vhost.url));
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&many("t", 150, &["sleep", "0.02"])).await;
    stage.client.wait_for_messages(AUDIT, 20, MINUTE).await.unwrap();
    one.kill9();
    let (audit, _) = stage.audit(&other, 150, PREFETCH).await;
    assert_eq!(audit.results, 150);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker() {
    let node = tokio::task::spawn_blocking(Node::private).await.unwrap();
    let vhost = node.vhost();
    let service = Service::start(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&many("b", 100, &["sleep", "0.02"])).await;
    stage.client.wait_for_messages(AUDIT, 10, MINUTE).await.unwrap();
    // A quorum queue that is younger is lost by this broker, whatever was confirmed.
    tokio::time::sleep(2 * SECOND).await;
    let node = tokio::task::spawn_blocking(move || {
        node.kill9();
        node.start_again();
        node
    });
    let (node, ()) = tokio::join!(node, async {
        service.until("it is seen", 10 * SECOND, |service| !service.is_ready()).await;
    });
    let _node = node.unwrap();
    service.until("ready again", 30 * SECOND, Service::is_ready).await;
    stage.reconnect().await;
    stage.publish(&many("after", 20, &["true"])).await;
    let (audit, _) = stage.audit(&service, 120, PREFETCH).await;
    assert_eq!((audit.results, audit.parked), (120, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm() {
    let node = tokio::task::spawn_blocking(Node::private).await.unwrap();
    let vhost = node.vhost();
    let service = Service::start(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&many("m", 60, &["sleep", "0.1"])).await;
    stage.client.wait_for_messages(AUDIT, 5, MINUTE).await.unwrap();
    let node = tokio::task::spawn_blocking(move || {
        node.alarm(true);
        node
    })
    .await
    .unwrap();
    service.until("it is said", 10 * SECOND, |service| service.says("publish", "blocked")).await;
    let _node = tokio::task::spawn_blocking(move || {
        node.alarm(false);
        node
    })
    .await
    .unwrap();
    service.until("ready again", 30 * SECOND, Service::is_ready).await;
    stage.reconnect().await;
    let (audit, _) = stage.audit(&service, 60, PREFETCH).await;
    assert_eq!(audit.results, 60);
}

/// The link goes deaf in the middle of a publish of 8 MB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_link() {
    let node = Node::shared();
    let vhost = node.vhost();
    let proxy = Proxy::start(node.port());
    let settings = [("LIMITS__CARRIED_OUTPUT_KB", "16384")];
    let service = Service::start_with(&proxy.url_for(&vhost), &settings);
    let mut stage = Stage::new(&vhost).await;
    service.until("ready", MINUTE, Service::is_ready).await;
    let big = "head -c 8000000 /dev/zero | tr '\\0' 'x'";
    // Some of it gets through before the rest is swallowed.
    proxy.set(Mode::Throttle(2_000_000));
    stage.publish(&[runs("big", &["sh", "-c", big])]).await;
    service
        .until("it is being published", MINUTE, |service| {
            service.metric("evalmill_unconfirmed_messages") == 1.0
        })
        .await;
    proxy.set(Mode::Blackhole);
    // Heartbeats are 2 s apart here.
    service.until("it is seen", 10 * SECOND, |service| !service.is_ready()).await;
    proxy.set(Mode::Pass);
    proxy.cut_all();
    service.until("ready again", 30 * SECOND, Service::is_ready).await;
    let (audit, results) = stage.audit(&service, 1, 2).await;
    assert_eq!(audit.results, 1);
    assert!(results[0].body.len() > 8_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mute_broker_at_the_start() {
    let node = Node::shared();
    let vhost = node.vhost();
    let proxy = Proxy::start(node.port());
    proxy.set(Mode::BlackholeToClient);
    let service = Service::start(&proxy.url_for(&vhost));
    service
        .until("it gives up waiting", 30 * SECOND, |service| service.says("consume", "no answer within"))
        .await;
    proxy.set(Mode::Pass);
    proxy.cut_all();
    service.until("ready", 30 * SECOND, Service::is_ready).await;
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&many("mute", 10, &["true"])).await;
    stage.audit(&service, 10, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_are_reset_again_and_again() {
    let node = Node::shared();
    let vhost = node.vhost();
    let proxy = Proxy::start(node.port());
    let service = Service::start(&proxy.url_for(&vhost));
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&many("reset", 150, &["sleep", "0.02"])).await;
    for at in [10, 40, 70] {
        stage.client.wait_for_messages(AUDIT, at, MINUTE).await.unwrap();
        proxy.set(Mode::Reset);
        proxy.cut_all();
        service.until("it is seen", 10 * SECOND, |service| !service.is_ready()).await;
        proxy.set(Mode::Pass);
        service.until("ready again", 30 * SECOND, Service::is_ready).await;
    }
    let (audit, _) = stage.audit(&service, 150, 3 * PREFETCH).await;
    assert_eq!((audit.results, audit.parked), (150, 0));
    assert!(service.metric("evalmill_reconnects_total") >= 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_deleted() {
    let vhost = Node::shared().vhost();
    let service = Service::start(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&many("first", 10, &["true"])).await;
    stage.client.wait_for_messages(AUDIT, 10, MINUTE).await.unwrap();
    stage.client.channel.queue_delete(WORK.into(), QueueDeleteOptions::default()).await.unwrap();
    stage.client.wait_for_queue(WORK, 5 * SECOND).await.unwrap();
    service.until("ready again", 10 * SECOND, Service::is_ready).await;
    stage.publish(&many("second", 10, &["true"])).await;
    stage.audit(&service, 20, 0).await;
}

/// Somebody declared our queue otherwise: it is not used, and the reason names it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_other_arguments() {
    let vhost = Node::shared().vhost();
    let client = super::client::Client::connect(&vhost.url).await.unwrap();
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    client.channel.queue_declare(WORK.into(), options, FieldTable::default()).await.unwrap();
    let service = Service::start(&vhost.url);
    service
        .until("it is said", 30 * SECOND, |service| {
            service.says("consume", WORK) && service.says("consume", "inequivalent arg")
        })
        .await;
    client.channel.queue_delete(WORK.into(), QueueDeleteOptions::default()).await.unwrap();
    service.until("ready", 30 * SECOND, Service::is_ready).await;
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&many("other", 10, &["true"])).await;
    stage.audit(&service, 10, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_is_deleted() {
    let vhost = Node::shared().vhost();
    let service = Service::start(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&many("e", 40, &["sleep", "0.1"])).await;
    stage.client.wait_for_messages(AUDIT, 4, MINUTE).await.unwrap();
    stage.client.channel.exchange_delete(RESULTS.into(), ExchangeDeleteOptions::default()).await.unwrap();
    stage.client.wait_for_exchange(RESULTS, 15 * SECOND).await.unwrap();
    // The binding went with it; what came before this one was kept aside.
    let bind = QueueBindOptions::default();
    let table = FieldTable::default();
    stage
        .client
        .channel
        .queue_bind(AUDIT.into(), RESULTS.into(), "result.#".into(), bind, table)
        .await
        .unwrap();
    service
        .until("all is settled", MINUTE, |service| service.metric("evalmill_settlements_total") >= 40.0)
        .await;
    let mut results = stage.client.drain(AUDIT).await.unwrap();
    results.extend(stage.client.drain("evalmill.unrouted").await.unwrap());
    stage.ledger.check(&results, Vec::<String>::new(), PREFETCH);
}

/// A queue behind the results is full: the broker refuses, and nothing is acknowledged until it
/// takes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_results() {
    let vhost = Node::shared().vhost();
    let service = Service::start(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(5));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let channel = &stage.client.channel;
    channel.queue_declare("full".into(), options, arguments).await.unwrap();
    let (bind, table) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind("full".into(), RESULTS.into(), "result.#".into(), bind, table).await.unwrap();
    stage.publish(&many("n", 60, &["true"])).await;
    service.until("it is said", MINUTE, |service| service.says("publish", "refused")).await;
    assert!(service.metric("evalmill_settlements_total") < 60.0);
    stage.client.channel.queue_delete("full".into(), QueueDeleteOptions::default()).await.unwrap();
    service
        .until("all is settled", MINUTE, |service| service.metric("evalmill_settlements_total") >= 60.0)
        .await;
    // A refused message has reached the other queues: it is there again and again.
    let results = stage.client.drain(AUDIT).await.unwrap();
    stage.ledger.check(&results, Vec::<String>::new(), results.len());
    service.until("ready again", 10 * SECOND, Service::is_ready).await;
}

/// A message that takes the service down each time is parked by the broker, and its neighbours get
/// their results.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_kills_the_service() {
    let vhost = Node::shared().vhost();
    // In a sandbox no program reaches the service.
    let settings =
        [("RABBITMQ__DELIVERY_LIMIT", "4"), ("SANDBOX__TIER", "none"), ("SANDBOX__REQUIRE", "none")];
    let mut service = Service::start_with(&vhost.url, &settings);
    let mut stage = Stage::new(&vhost).await;
    // Killing the process that a worker's socket leads to is killing the service.
    let poison = "p=$(awk '{print $4}' /proc/$PPID/stat); kill -9 $(awk '{print $4}' /proc/$p/stat)";
    let poison =
        json!({"id": "poison", "run": "r", "prediction": {"commands": [{"command": ["sh", "-c", poison]}]}});
    let mut inputs = many("fine", 20, &["sleep", "0.05"]);
    inputs.insert(5, ("poison".to_owned(), poison.to_string().into_bytes()));
    stage.publish(&inputs).await;
    let end = std::time::Instant::now() + MINUTE;
    while stage.client.wait_for_messages("evalmill.parking", 1, SECOND / 4).await.is_err() {
        if !service.is_running() {
            service = Service::start_with(&vhost.url, &settings);
        }
        assert!(std::time::Instant::now() < end, "{}", service.log());
    }
    if !service.is_running() {
        service = Service::start_with(&vhost.url, &settings);
    }
    let (audit, results) = stage.audit(&service, 20, 5 * PREFETCH).await;
    assert_eq!((audit.results, audit.parked), (20, 1));
    assert!(results.iter().all(|result| result.json()["id"] != "poison"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_up_to_the_prefetch() {
    let vhost = Node::shared().vhost();
    let settings = [("RABBITMQ__PREFETCH", "8"), ("PIPELINE__ECHO_PREDICTION", "none")];
    let service = Service::start_with(&vhost.url, &settings);
    let mut stage = Stage::new(&vhost).await;
    let filler = "x".repeat(15_000_000);
    let inputs: Vec<_> = (0..8)
        .map(|i| {
            let id = format!("large-{i}");
            let files = json!({"data": filler});
            let body = json!({"id": id, "prediction": {"files": files, "commands": [{"command": ["wc", "-c", "data"]}]}});
            (id, body.to_string().into_bytes())
        })
        .collect();
    stage.publish(&inputs).await;
    let (_, results) = stage.audit(&service, 8, 0).await;
    for result in results {
        let stdout = result.json()["executions"][0]["command_results"][0]["stdout"].clone();
        assert_eq!(stdout, "15000000 data\n");
    }
}

/// A password that becomes wrong, and right again: the file is read before each connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_change() {
    let node = Node::shared();
    let vhost = node.vhost();
    let proxy = Proxy::start(node.port());
    let good = proxy.url_for(&vhost);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    let (scheme, rest) = good.split_once("://").unwrap();
    let (_, host) = rest.split_once('@').unwrap();
    std::fs::write(&file, &good).unwrap();
    let settings = [("RABBITMQ__URL", ""), ("RABBITMQ__URL_FILE", file.to_str().unwrap())];
    let service = Service::start_with("", &settings);
    service.until("ready", 30 * SECOND, Service::is_ready).await;
    std::fs::write(&file, format!("{scheme}://guest:hunter2@{host}")).unwrap();
    proxy.cut_all();
    service.until("it is said", 30 * SECOND, |service| service.says("consume", "ACCESS")).await;
    std::fs::write(&file, &good).unwrap();
    service.until("ready again", 60 * SECOND, Service::is_ready).await;
    assert!(!service.log().contains("hunter2"), "{}", service.log());
}

/// Boxes have no room: nothing is taken, nothing fails, and it goes on once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_scratch_disk() {
    let vhost = Node::shared().vhost();
    let service = Service::start_on_a_small_disk(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    service.until("ready", MINUTE, Service::is_ready).await;
    let filler = service.scratch().join("filler");
    std::fs::write(&filler, vec![0; 60 << 20]).unwrap();
    service.until("it is said", 10 * SECOND, |service| service.says("machine", "MiB left")).await;
    stage.publish(&many("disk", 20, &["true"])).await;
    // What was taken before it was seen is settled; the rest waits.
    service
        .until("nothing runs", MINUTE, |service| service.metric("evalmill_unsettled_deliveries") == 0.0)
        .await;
    assert_eq!(service.metric("evalmill_results_total"), 0.0, "{}", service.log());
    std::fs::remove_file(filler).unwrap();
    service.until("ready again", 10 * SECOND, Service::is_ready).await;
    let (audit, results) = stage.audit(&service, 20, 0).await;
    assert_eq!((audit.results, audit.parked), (20, 0));
    assert!(results.iter().all(|result| result.json()["verdict"] == "passed"));
}

/// User and password beside the URL, which are changed at the broker and in their files while the service
/// runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_are_rotated() {
    let node = Node::shared();
    let vhost = node.vhost();
    let proxy = Proxy::start(node.port());
    let with_user = proxy.url_for(&vhost);
    let (scheme, rest) = with_user.split_once("://").unwrap();
    let url = format!("{scheme}://{}", rest.split_once('@').unwrap().1);
    let (user, dir) = (format!("u-{}", vhost.name), tempfile::tempdir().unwrap());
    let (user_file, password_file) = (dir.path().join("user"), dir.path().join("password"));
    let change = |password: &str| {
        let body = json!({"password": password, "tags": ""});
        node.api("PUT", &format!("users/{user}"), Some(&body));
    };
    change("hunter2 @/1");
    let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
    node.api("PUT", &format!("permissions/{}/{user}", vhost.name), Some(&all));
    std::fs::write(&user_file, format!("{user}\n")).unwrap();
    std::fs::write(&password_file, "hunter2 @/1\n").unwrap();
    let settings = [
        ("RABBITMQ__USER_FILE", user_file.to_str().unwrap()),
        ("RABBITMQ__PASSWORD_FILE", password_file.to_str().unwrap()),
    ];
    let service = Service::start_with(&url, &settings);
    let mut stage = Stage::new(&vhost).await;
    service.until("ready", 30 * SECOND, Service::is_ready).await;
    stage.publish(&many("before", 10, &["true"])).await;
    change("hunter3");
    proxy.cut_all();
    service.until("it is said", 30 * SECOND, |service| service.says("consume", "ACCESS")).await;
    std::fs::remove_file(&password_file).unwrap();
    service
        .until("it is said", 30 * SECOND, |service| service.says("consume", "rabbitmq.password_file"))
        .await;
    std::fs::write(&password_file, "hunter3").unwrap();
    service.until("ready again", 60 * SECOND, Service::is_ready).await;
    stage.publish(&many("after", 10, &["true"])).await;
    stage.audit(&service, 20, PREFETCH).await;
    assert!(!service.log().contains("hunter"), "{}", service.log());
    node.api("DELETE", &format!("users/{user}"), None);
}

/// The queue of one class is there with another argument: the service says which, and the other class
/// goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_argument() {
    let vhost = Node::shared().vhost();
    let client = super::client::Client::connect(&vhost.url).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(7));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    client.channel.queue_declare("evalmill.work.other".into(), options, arguments).await.unwrap();
    let service = Service::start_with(&vhost.url, &[("RABBITMQ__CLASSES", "other,default")]);
    let mut stage = Stage::new(&vhost).await;
    service
        .until("it is said", MINUTE, |service| {
            service.says("consume", "inequivalent arg") && service.says("consume", "evalmill.work.other")
        })
        .await;
    stage.publish(&many("other", 10, &["true"])).await;
    stage.audit(&service, 10, 0).await;
    // Once it is out of the way, it is declared as it must be.
    client.channel.queue_delete("evalmill.work.other".into(), QueueDeleteOptions::default()).await.unwrap();
    service.until("ready", 30 * SECOND, Service::is_ready).await;
}

/// The broker takes back what is held for too long, and closes the channel for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_is_held_too_long() {
    let node = tokio::task::spawn_blocking(Node::private).await.unwrap();
    // It looks once a minute unless it is told otherwise, which no configuration file can.
    let set = "application:set_env(rabbit, consumer_timeout, 1000), \
               application:set_env(rabbit, channel_tick_interval, 300).";
    let node = tokio::task::spawn_blocking(move || {
        node.ctl(&["eval", set]);
        node
    });
    let node = node.await.unwrap();
    let vhost = node.vhost();
    let service = Service::start(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&[runs("long", &["sleep", "4"])]).await;
    stage.publish(&many("short", 20, &["true"])).await;
    let (audit, _) = stage.audit(&service, 21, 8 * PREFETCH).await;
    assert_eq!((audit.results, audit.parked), (21, 0));
    assert!(service.metric("evalmill_reconnects_total") >= 1.0, "{}", service.log());
    service.until("ready again", MINUTE, Service::is_ready).await;
}

/// Its message comes again and again while it runs; that alone does not make it a danger to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_prediction_over_many_lost_links_does_not_stop_the_others() {
    let node = Node::shared();
    let vhost = node.vhost();
    let proxy = Proxy::start(node.port());
    // The program tells the test of itself by files of the host.
    let settings =
        [("RABBITMQ__CLASSES", "default,other"), ("SANDBOX__TIER", "none"), ("SANDBOX__REQUIRE", "none")];
    let service = Service::start_with(&proxy.url_for(&vhost), &settings);
    let mut stage = Stage::new(&vhost).await;
    let dir = tempfile::tempdir().unwrap();
    let (begun, go) = (dir.path().join("begun"), dir.path().join("go"));
    // It runs until the test lets it end.
    let script =
        format!("echo x >> {}; while [ ! -e {} ]; do sleep 0.05; done", begun.display(), go.display());
    stage.publish(&[runs("long", &["sh", "-c", &script])]).await;
    service.until("it runs", MINUTE, |_| begun.exists()).await;
    for losses in 1..=3 {
        proxy.cut_all();
        service
            .until("it is back", MINUTE, |service| {
                service.metric("evalmill_reconnects_total") >= 2.0 * f64::from(losses) && service.is_ready()
            })
            .await;
        service
            .until("it comes again", MINUTE, |service| {
                service.metric("evalmill_redeliveries_total") >= f64::from(losses)
            })
            .await;
    }
    // More is taken of its class again, and of no other.
    let prefetch = |class: &str| {
        let queue = node.api("GET", &format!("queues/{}/evalmill.work.{class}", vhost.name), None);
        let consumers = queue["consumer_details"].as_array().cloned().unwrap_or_default();
        consumers.iter().filter_map(|consumer| consumer["prefetch_count"].as_u64()).sum::<u64>()
    };
    service.until("more is taken", MINUTE, |_| prefetch("default") > 1).await;
    assert_eq!(prefetch("other"), 1);
    stage.publish(&many("short", 10, &["true"])).await;
    // Before the long one's own limit.
    stage.client.wait_for_messages(AUDIT, 10, 30 * SECOND).await.unwrap();
    std::fs::write(go, "").unwrap();
    let (audit, _) = stage.audit(&service, 11, 0).await;
    assert_eq!((audit.results, audit.parked), (11, 0));
    assert_eq!(std::fs::read_to_string(begun).unwrap(), "x\n", "it ran once");
}

/// What is given back, or lost with a link, is counted by the broker: of those that come again and again
/// because their links are lost, none may be given back for the sake of the others each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_long_predictions_over_lost_links_are_not_parked() {
    const LONG: usize = 30;
    let node = Node::shared();
    let vhost = node.vhost();
    let proxy = Proxy::start(node.port());
    // Room for each of them and what comes again of it after each loss. The programs wait for a file of
    // the host.
    let settings = [("RABBITMQ__PREFETCH", "200"), ("SANDBOX__TIER", "none"), ("SANDBOX__REQUIRE", "none")];
    let service = Service::start_with(&proxy.url_for(&vhost), &settings);
    let mut stage = Stage::new(&vhost).await;
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done", go.display());
    stage.publish(&many("long", LONG, &["sh", "-c", &script])).await;
    let held = |service: &Service| service.metric("evalmill_unsettled_deliveries");
    service.until("all are taken", MINUTE, |service| held(service) >= LONG as f64).await;
    for losses in 1..=4 {
        proxy.cut_all();
        let again = (losses * LONG) as f64;
        service
            .until("all come again", MINUTE, |service| {
                service.metric("evalmill_redeliveries_total") >= again && service.is_ready()
            })
            .await;
    }
    // Whatever is given back is so by now.
    tokio::time::sleep(4 * SECOND).await;
    proxy.set(Mode::Refuse);
    proxy.cut_all();
    stage.client.wait_for_messages(WORK, LONG as u32, MINUTE).await.unwrap();
    let get = json!({"count": 1000, "ackmode": "ack_requeue_true", "encoding": "auto"});
    let all = node.api("POST", &format!("queues/{}/{WORK}/get", vhost.name), Some(&get));
    let counts: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["properties"]["headers"]["x-delivery-count"].as_u64().unwrap())
        .collect();
    eprintln!("handed over in vain: {counts:?}");
    // Five losses.
    assert!(counts.len() == LONG && counts.iter().all(|count| (5..=8).contains(count)), "{counts:?}");
    proxy.set(Mode::Pass);
    std::fs::write(go, "").unwrap();
    let (audit, _) = stage.audit(&service, LONG, 0).await;
    assert_eq!((audit.results, audit.parked), (LONG, 0));
}
