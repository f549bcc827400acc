//! The service: from RabbitMQ to RabbitMQ.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::broker;
use super::{Engine, EngineError, EngineOptions, SERVE_REQUIRES};
use crate::config::{Problems, Settings, Tier};
use crate::metrics::Window;
use crate::pipeline::{Framing, Pipeline};
use crate::service::{
    self, Disposition, Flow, FlowEnd, FlowError, FlowSettings, RetryRule, Settled, timings_key,
};
use crate::telemetry::{Health, Link as LinkName, ListenError, Metrics, PublishedAs, Refresh, SettledAs};
use crate::telemetry::{listen, serve_http};
use crate::transport::rabbitmq::{BrokerError, Link, RabbitMqSink, Stats, connect};
use crate::transport::{Address, Outgoing, Receipt, Sink as _};
use crate::worker::Pools;

/// Between two looks at the links.
const TICK: Duration = Duration::from_millis(200);
/// Between two looks at the machine.
const LOOK: Duration = Duration::from_secs(1);
/// Below this, boxes fail for want of room.
const MIN_FREE_BYTES: u64 = 64 << 20;
const MIN_FREE_FILES: u64 = 1000;
const MIN_FREE_DESCRIPTORS: u64 = 32;
/// How long the last timings may take to get out.
const LAST_WINDOW: Duration = Duration::from_secs(1);
/// How long the tasks of the links may take to end.
const END_LIMIT: Duration = Duration::from_secs(12);

/// The service cannot start, or cannot go on.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The engine cannot start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The broker cannot be named.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The address for health and metrics cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The flow broke off.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// A setting does not go with a broker.
    #[error(transparent)]
    Setting(#[from] Problems),
}

impl Settings {
    /// Deliveries that are taken and not settled, at most.
    #[must_use]
    pub fn prefetch(&self) -> u16 {
        match self.rabbitmq.prefetch {
            0 => u16::try_from(4 * self.num_workers() + 64).unwrap_or(u16::MAX),
            prefetch => prefetch,
        }
    }
}

/// Serves until `draining` is cancelled: then nothing new is taken, what has not begun is given back,
/// and what runs is finished, within `rabbitmq.drain_seconds` or until `forced` is cancelled.
///
/// # Errors
/// It cannot start. A broker that is away is no error: it is waited for.
pub async fn serve(
    settings: &Settings,
    draining: CancellationToken,
    forced: CancellationToken,
) -> Result<FlowEnd, ServeError> {
    serve_measured(settings, draining, forced, None).await
}

/// Seconds from each prediction's arrival until its result was confirmed, without its execution.
pub(super) type Overheads = Arc<Mutex<Vec<f64>>>;

/// [`serve`], noting what messaging costs.
pub(super) async fn serve_measured(
    settings: &Settings,
    draining: CancellationToken,
    forced: CancellationToken,
    overheads: Option<Overheads>,
) -> Result<FlowEnd, ServeError> {
    settings.held_long_enough().map_err(|problem| Problems(vec![problem]))?;
    let listener = listen(&settings.telemetry.listen).await?;
    let broker = broker(settings);
    let max_wait = Duration::from_secs_f64(settings.rabbitmq.consumer_timeout_seconds / 4.0);
    let options = EngineOptions {
        framing: Framing::Message,
        max_wait: Some(max_wait),
        max_result_bytes: Some(broker.max_message_bytes.clone()),
        require: SERVE_REQUIRES,
    };
    let engine = Engine::start(settings, options).await?;
    match engine.tier() {
        Tier::None => tracing::warn!("{}", engine.notice()),
        _ => tracing::info!("{}", engine.notice()),
    }
    if let Err(error) = broker.usable().await {
        engine.shutdown().await;
        return Err(error.into());
    }
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let guard = stop.clone().drop_guard();
    let (hold, held_back) = watch::channel(false);
    let (mut source, mut sink, stats) =
        connect(&broker, settings.prefetch(), max_wait, held_back, &tracker, &stop);
    let watched = Arc::new(Watched {
        health: Health::new(&["consume", "publish", "machine"]),
        scratch: settings.scratch_dir(),
        hold,
        metrics: Metrics::new(),
        stats,
        pools: engine.pools(),
        pipeline: engine.pipeline(),
        links: [source.consume_link(), source.publish_link()],
        window: Mutex::new(Window::new(engine.instance())),
        retried: Mutex::new((0, 0)),
        slots: settings.num_workers(),
    });
    if let Some(listener) = listener {
        tracing::info!(address = ?listener.local_addr().ok(), "health and metrics");
        let refreshed = Arc::clone(&watched);
        let refresh: Refresh = Arc::new(move || refreshed.refresh());
        let (health, metrics) = (watched.health.clone(), watched.metrics.clone());
        tracker.spawn(serve_http(listener, health, metrics, refresh, stop.clone()));
    }
    let every = Duration::from_secs_f64(settings.telemetry.window_seconds);
    tracker.spawn(Arc::clone(&watched).watch(sink.clone(), every, draining.clone(), stop.clone()));
    tracker.spawn(deadline(
        draining.clone(),
        forced.clone(),
        Duration::from_secs_f64(settings.rabbitmq.drain_seconds),
        stop.clone(),
    ));
    let seen = Arc::clone(&watched);
    let flow = Flow {
        pipeline: engine.pipeline(),
        settings: FlowSettings {
            ordered: false,
            max_unsettled: settings.prefetch().into(),
            max_unsettled_bytes: (settings.pipeline.max_unsettled_mb as usize) << 20,
            retry: Some(RetryRule { max_attempts: settings.rabbitmq.max_attempts }),
        },
        tracker: tracker.clone(),
        draining,
        forced,
        done_already: Arc::new(Mutex::new(|_: &str| false)),
        observe: &mut |settled| seen.saw(settled, overheads.as_ref()),
    };
    let end = service::run(flow, &mut source, &mut sink).await;
    if let Some(receipt) = watched.emit(&mut sink).await {
        // Nothing depends on it.
        let _ = tokio::time::timeout(LAST_WINDOW, receipt).await;
    }
    watched.health.stopped();
    // Acknowledgements that are on their way get out before the connection is closed.
    source.settled(END_LIMIT).await;
    drop(guard);
    tracker.close();
    if tokio::time::timeout(END_LIMIT, tracker.wait()).await.is_err() {
        tracing::warn!(tasks = tracker.len(), "tasks of ours did not end in time");
    }
    engine.shutdown().await;
    Ok(end?)
}

/// What runs gets so long once draining has begun.
async fn deadline(
    draining: CancellationToken,
    forced: CancellationToken,
    limit: Duration,
    stop: CancellationToken,
) {
    let late = async {
        draining.cancelled().await;
        tokio::time::sleep(limit).await;
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = late => {
            tracing::warn!(?limit, "what still runs is given up (rabbitmq.drain_seconds)");
            forced.cancel();
        }
    }
}

/// Everything that is looked at from outside.
struct Watched {
    health: Health,
    /// Where boxes are made.
    scratch: PathBuf,
    /// True: take nothing.
    hold: watch::Sender<bool>,
    metrics: Metrics,
    stats: Arc<Stats>,
    pools: Pools,
    pipeline: Arc<Pipeline<crate::executor::PoolExecutor>>,
    /// Consuming, publishing.
    links: [Link; 2],
    window: Mutex<Window>,
    /// Sent to be tried again, parked.
    retried: Mutex<(u64, u64)>,
    slots: usize,
}

impl Watched {
    fn saw(&self, settled: Settled<'_>, overheads: Option<&Overheads>) {
        let Settled { processed: done, disposition, age } = settled;
        let mut retried = self.retried.lock().unwrap_or_else(PoisonError::into_inner);
        match disposition {
            Disposition::Retry { .. } => {
                retried.0 += 1;
                return;
            }
            Disposition::Park => {
                retried.1 += 1;
                self.metrics.parked("attempts");
            }
            Disposition::Publish => {}
        }
        self.metrics.result(done.verdict, &done.timings);
        let overhead = (age.as_secs_f64() - done.timings.in_worker()).max(0.0);
        self.metrics.messaging(overhead);
        if let Some(overheads) = overheads {
            overheads.lock().unwrap_or_else(PoisonError::into_inner).push(overhead);
        }
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.add_parts(done.verdict, &done.timings);
    }

    /// Brings the metrics up to date.
    fn refresh(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        let (metrics, stats) = (&self.metrics, &self.stats);
        let (retried, parked) = *self.retried.lock().unwrap_or_else(PoisonError::into_inner);
        // What is sent elsewhere is acknowledged, too.
        let acked = stats.acked.load(Relaxed).saturating_sub(retried + parked);
        metrics.settled(SettledAs::Ack, acked);
        metrics.settled(SettledAs::Requeue, stats.requeued.load(Relaxed));
        metrics.settled(SettledAs::Retry, retried);
        metrics.settled(SettledAs::Park, parked);
        metrics.redelivered(stats.redelivered.load(Relaxed));
        metrics.published(PublishedAs::Confirmed, stats.confirmed.load(Relaxed));
        metrics.published(PublishedAs::Nacked, stats.nacked.load(Relaxed));
        metrics.unconfirmed(usize::try_from(stats.unconfirmed.load(Relaxed)).unwrap_or(usize::MAX));
        let (unsettled, oldest) = stats.unsettled();
        metrics.unsettled(unsettled);
        metrics.oldest_in_flight(oldest);
        metrics.slots(self.slots);
        metrics.slots_busy(self.pipeline.busy_slots().min(self.slots));
        let losses = [&stats.consume_losses, &stats.publish_losses];
        for ((name, link), losses) in LinkName::ALL.into_iter().zip(&self.links).zip(losses) {
            let state = link.state();
            metrics.connection_up(name, state.is_up());
            metrics.connection_blocked(name, state.is_blocked());
            metrics.reconnected(name, losses.load(Relaxed));
        }
        let pool = self.pools.stats();
        metrics.recycled(pool.recycled);
        metrics.launcher_restarts(pool.launcher_restarts);
    }

    /// Keeps the state of health, tells systemd, and sends the timings of each window.
    async fn watch(
        self: Arc<Self>,
        mut sink: RabbitMqSink,
        every: Duration,
        draining: CancellationToken,
        stop: CancellationToken,
    ) {
        let mut windows = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        windows.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let [mut consume, mut publish] = self.links.clone();
        let (mut told, mut was) = (false, None);
        let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        let mut pinged = tokio::time::Instant::now();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drain = pin!(draining.cancelled());
        let mut drains = false;
        loop {
            self.health.set("consume", consume.state().ready().as_ref().map(drop).map_err(String::as_str));
            self.health.set("publish", publish.state().ready().as_ref().map(drop).map_err(String::as_str));
            let ready = self.health.ready();
            if was.as_ref() != Some(&ready) {
                match &ready {
                    Ok(()) => tracing::info!("ready"),
                    Err(reasons) => tracing::info!(?reasons, "not ready"),
                }
                was = Some(ready.clone());
            }
            if ready.is_ok() && !told {
                told = true;
                notify(NotifyState::Ready);
            }
            if watchdog.is_some_and(|every| pinged.elapsed() >= every.min(Duration::from_secs(5))) {
                pinged = tokio::time::Instant::now();
                notify(NotifyState::Watchdog);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut drain, if !drains => {
                    drains = true;
                    self.health.draining();
                    notify(NotifyState::Stopping);
                }
                () = consume.changed() => {}
                () = publish.changed() => {}
                _ = tick.tick() => {}
                _ = looks.tick() => self.look().await,
                _ = windows.tick() => drop(self.emit(&mut sink).await),
            }
        }
    }

    /// Whether the machine has room for what runs. Where it has none, nothing is taken until it has.
    async fn look(&self) {
        let scratch = self.scratch.clone();
        // A file system may be slow to say so.
        let looked = tokio::task::spawn_blocking(move || headroom(&scratch)).await;
        let Ok(found) = looked else { return };
        self.health.set("machine", found.as_ref().map(drop).map_err(String::as_str));
        self.hold.send_if_modified(|hold| std::mem::replace(hold, found.is_err()) != found.is_err());
    }

    /// Sends the timings of the window that ends now; nobody waits for them.
    async fn emit(&self, sink: &mut RabbitMqSink) -> Option<oneshot::Receiver<()>> {
        let recycled = self.pools.stats().recycled;
        let busy = self.pipeline.busy_slots().min(self.slots) as u64;
        let message = {
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            window.emit(recycled.iter().map(|(reason, count)| (*reason, *count)), busy)
        };
        let to = Address::Results {
            key: timings_key(&message.instance),
            message_id: format!("{}/{}", message.instance, message.timestamp),
            schema: "timings.v1",
        };
        // Numbers and text: encoding cannot fail. A window that finds no room is left out.
        let body = serde_json::to_vec(&message).unwrap_or_default();
        let sent = tokio::time::timeout(TICK, sink.deliver(Outgoing { body, to, envelope: None })).await;
        let Ok(Ok(Receipt::Later(receipt))) = sent else {
            tracing::warn!("the timings of a window could not be sent");
            return None;
        };
        Some(receipt)
    }
}

/// Room for boxes and descriptors.
fn headroom(scratch: &Path) -> Result<(), String> {
    let dir = scratch.display();
    let space =
        rustix::fs::statvfs(scratch).map_err(|error| format!("{dir} cannot be looked at: {error}"))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free < MIN_FREE_BYTES {
        return Err(format!("{dir} has {} MiB left: boxes need {} MiB", free >> 20, MIN_FREE_BYTES >> 20));
    }
    // Some file systems have no fixed number of files, and say 0 of 0.
    if space.f_files > 0 && space.f_favail < MIN_FREE_FILES {
        return Err(format!("{dir} has room for {} files: boxes need {MIN_FREE_FILES}", space.f_favail));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    if open.saturating_add(MIN_FREE_DESCRIPTORS) > limit {
        return Err(format!("{open} of {limit} descriptors are open (ulimit -n)"));
    }
    Ok(())
}

fn notify(state: NotifyState<'_>) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[state]);
}
