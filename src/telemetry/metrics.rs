//! What Prometheus is told. Every label comes from a closed set of ours, so that no message can
//! make series.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use crate::model::{StageTimings, Verdict};

/// From half a millisecond to the longest that a prediction may take by default.
const BUCKETS: [f64; 19] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
    300.0, 600.0,
];

/// The longest time that is recorded: one odd value must not spoil a sum for good.
const LONGEST_SECONDS: f64 = 86_400.0;

/// A connection to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Predictions come in over it.
    Consume,
    /// Results leave over it.
    Publish,
}

impl Link {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Consume, Self::Publish];

    /// The value of the label `link`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Publish => "publish",
        }
    }
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettledAs {
    /// It has its result.
    Ack,
    /// It was given back untouched.
    Requeue,
    /// It comes again later.
    Retry,
    /// It was put aside for people to look at.
    Park,
}

impl SettledAs {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ack, Self::Requeue, Self::Retry, Self::Park];

    /// The value of the label `kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Requeue => "requeue",
            Self::Retry => "retry",
            Self::Park => "park",
        }
    }
}

/// What became of a message that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishedAs {
    /// The broker has it.
    Confirmed,
    /// The broker refused it.
    Nacked,
    /// The connection went before the broker answered.
    Lost,
}

impl PublishedAs {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Confirmed, Self::Nacked, Self::Lost];

    /// The value of the label `outcome`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Nacked => "nacked",
            Self::Lost => "lost",
        }
    }
}

/// One label: its name, and a value from a closed set.
type Label = [(&'static str, &'static str); 1];
type Counters = Family<Label, Counter>;
type Gauges = Family<Label, Gauge>;
type Histograms = Family<Label, Histogram, fn() -> Histogram>;

struct Inner {
    registry: Registry,
    results: Counters,
    stage_seconds: Histograms,
    messaging_seconds: Histogram,
    redeliveries: Counter,
    settlements: Counters,
    parked: Counters,
    published: Counters,
    unconfirmed: Gauge,
    unsettled: Gauge,
    slots: Gauge,
    slots_busy: Gauge,
    connection_up: Gauges,
    connection_blocked: Gauges,
    reconnects: Counters,
    recycled: Counters,
    launcher_restarts: Counter,
    oldest_in_flight: Gauge<f64, AtomicU64>,
}

/// All metrics of this process. Clones are handles of the same.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero; series whose labels are known are there from the start, so that a first event
    /// is seen as an increase.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("evalmill");
        let to = &mut registry;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        to.register("build", "The program", version);
        let inner = Inner {
            results: add(to, "results", "Results delivered"),
            stage_seconds: add_as(
                to,
                "stage_seconds",
                "Time of one prediction in a stage",
                Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            ),
            messaging_seconds: add_as(
                to,
                "messaging_seconds",
                "From a prediction's arrival until its result is confirmed, without its execution",
                Histogram::new(BUCKETS),
            ),
            redeliveries: add(to, "redeliveries", "Deliveries that were delivered before"),
            settlements: add(to, "settlements", "Deliveries settled"),
            parked: add(to, "parked", "Deliveries put aside"),
            published: add(to, "published", "Messages published, by what became of them"),
            unconfirmed: add(to, "unconfirmed_messages", "Published, and not confirmed yet"),
            unsettled: add(to, "unsettled_deliveries", "Taken in, and not settled yet"),
            slots: add(to, "slots", "Predictions that can run at once"),
            slots_busy: add(to, "slots_busy", "Predictions that run"),
            connection_up: add(to, "connection_up", "1 while there is a connection to the broker"),
            connection_blocked: add(to, "connection_blocked", "1 while the broker takes no messages"),
            reconnects: add(to, "reconnects", "Connections that were lost, to be made again"),
            recycled: add(to, "recycled", "Workers replaced"),
            launcher_restarts: add(
                to,
                "launcher_restarts",
                "Launchers started in place of one that was lost",
            ),
            oldest_in_flight: add(
                to,
                "oldest_in_flight_seconds",
                "Age of the oldest delivery not settled yet",
            ),
            registry,
        };
        begin(&inner.results, "verdict", Verdict::ALL.map(Verdict::as_str));
        begin(&inner.stage_seconds, "stage", StageTimings::default().parts().map(|(stage, _)| stage));
        begin(&inner.settlements, "kind", SettledAs::ALL.map(SettledAs::as_str));
        begin(&inner.published, "outcome", PublishedAs::ALL.map(PublishedAs::as_str));
        let links = Link::ALL.map(Link::as_str);
        begin(&inner.connection_up, "link", links);
        begin(&inner.connection_blocked, "link", links);
        begin(&inner.reconnects, "link", links);
        Self(Arc::new(inner))
    }

    /// A result was delivered.
    pub fn result(&self, verdict: Verdict, timings: &StageTimings) {
        self.0.results.get_or_create(&[("verdict", verdict.as_str())]).inc();
        for (stage, seconds) in timings.parts() {
            let seconds = if seconds.is_nan() { 0.0 } else { seconds.clamp(0.0, LONGEST_SECONDS) };
            self.0.stage_seconds.get_or_create(&[("stage", stage)]).observe(seconds);
        }
    }

    /// Seconds between a prediction's arrival and the confirmation of its result, without its execution.
    pub fn messaging(&self, seconds: f64) {
        self.0.messaging_seconds.observe(seconds);
    }

    /// Deliveries so far that had been handed over before.
    pub fn redelivered(&self, count: u64) {
        raise(&self.0.redeliveries, count);
    }

    /// Deliveries so far that ended this way.
    pub fn settled(&self, kind: SettledAs, count: u64) {
        raise(&self.0.settlements.get_or_create(&[("kind", kind.as_str())]), count);
    }

    /// A delivery was put aside; `reason` is one of a few names of ours.
    pub fn parked(&self, reason: &'static str) {
        self.0.parked.get_or_create(&[("reason", reason)]).inc();
    }

    /// Published messages so far of which this became.
    pub fn published(&self, outcome: PublishedAs, count: u64) {
        raise(&self.0.published.get_or_create(&[("outcome", outcome.as_str())]), count);
    }

    /// How many published messages wait for their confirmation.
    pub fn unconfirmed(&self, messages: usize) {
        set(&self.0.unconfirmed, messages);
    }

    /// How many deliveries are in flight: taken in, and not settled yet.
    pub fn unsettled(&self, deliveries: usize) {
        set(&self.0.unsettled, deliveries);
    }

    /// How many predictions can run at once.
    pub fn slots(&self, total: usize) {
        set(&self.0.slots, total);
    }

    /// How many predictions run.
    pub fn slots_busy(&self, busy: usize) {
        set(&self.0.slots_busy, busy);
    }

    /// Whether there is a connection.
    pub fn connection_up(&self, link: Link, up: bool) {
        self.0.connection_up.get_or_create(&[("link", link.as_str())]).set(up.into());
    }

    /// Whether the broker takes no messages on this connection.
    pub fn connection_blocked(&self, link: Link, blocked: bool) {
        self.0.connection_blocked.get_or_create(&[("link", link.as_str())]).set(blocked.into());
    }

    /// Connections lost so far.
    pub fn reconnected(&self, link: Link, count: u64) {
        raise(&self.0.reconnects.get_or_create(&[("link", link.as_str())]), count);
    }

    /// Workers replaced since the start of the pool, by reason.
    pub fn recycled(&self, counts: impl IntoIterator<Item = (&'static str, u64)>) {
        for (reason, count) in counts {
            raise(&self.0.recycled.get_or_create(&[("reason", reason)]), count);
        }
    }

    /// Launchers started in place of one that was lost, since the start of the pool.
    pub fn launcher_restarts(&self, count: u64) {
        raise(&self.0.launcher_restarts, count);
    }

    /// The age of the oldest delivery in flight; `None` where there is none.
    pub fn oldest_in_flight(&self, age: Option<Duration>) {
        self.0.oldest_in_flight.set(age.unwrap_or_default().as_secs_f64());
    }

    /// Everything in the text format of Prometheus, of the type [`Metrics::CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // A string takes everything.
        let _ = prometheus_text::encode(&mut text, &self.0.registry);
        text
    }

    /// The content type of [`Metrics::encode`].
    pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;
}

fn add<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    add_as(registry, name, help, M::default())
}

fn add_as<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Makes the series of these values.
fn begin<M: Clone, C: MetricConstructor<M>, const N: usize>(
    family: &Family<Label, M, C>,
    label: &'static str,
    values: [&'static str; N],
) {
    for value in values {
        drop(family.get_or_create(&[(label, value)]));
    }
}

fn set(gauge: &Gauge, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// For counts that somebody else keeps: a counter never goes back.
fn raise(counter: &Counter, count: u64) {
    counter.inner().fetch_max(count, Ordering::Relaxed);
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
