//! A TCP proxy between a client and the broker, which can do what networks do.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::broker::Vhost;
use super::node::free_port;

/// Most bytes that are read at once.
const CHUNK: usize = 16 * 1024;

/// What the proxy does, to connections that exist and to new ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Pass,
    /// What the client sends is swallowed, its end included; the connection stays open.
    BlackholeToBroker,
    /// What the broker sends is swallowed, its end included; the connection stays open.
    BlackholeToClient,
    /// Both of these.
    Blackhole,
    /// Nothing is read: writers come to a stop. What they sent arrives when the mode changes.
    Stall,
    /// New connections are refused. Those that exist go on: see [`Proxy::cut_all`].
    Refuse,
    /// Every connection, old and new, is reset.
    Reset,
    /// Each byte arrives so much later, in both directions.
    Delay(Duration),
    /// So many bytes a second for each connection and direction.
    Throttle(u32),
    /// After so many bytes towards the broker, of all connections together, the one that carried the
    /// last is reset, and the mode is [`Mode::Pass`] again.
    CutAfter(u64),
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    ToBroker,
    ToClient,
}

impl Mode {
    /// Whether what goes this way does not arrive.
    fn holds(self, way: Way) -> bool {
        match self {
            Mode::Blackhole | Mode::Stall => true,
            Mode::BlackholeToBroker => way == Way::ToBroker,
            Mode::BlackholeToClient => way == Way::ToClient,
            _ => false,
        }
    }

    /// How many bytes to read at once.
    fn room(self) -> usize {
        match self {
            Mode::Stall => 0,
            Mode::Throttle(rate) => (rate as usize / 20).clamp(1, CHUNK),
            _ => CHUNK,
        }
    }
}

enum Order {
    Set(Mode),
    CutAll,
}

/// A proxy on a loopback port, with a thread of its own: no runtime of a test can hold it up.
pub(crate) struct Proxy {
    port: u16,
    orders: Option<mpsc::Sender<(Order, SyncSender<()>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy to loopback port `target`, in mode [`Mode::Pass`]. While nothing listens there, it resets
    /// whoever connects.
    pub(crate) fn start(target: u16) -> Proxy {
        let (port, listener) = loop {
            let port = free_port();
            if let Ok(listener) = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                break (port, listener);
            }
        };
        listener.set_nonblocking(true).unwrap();
        let (orders, received) = mpsc::channel(16);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                serve(port, listener, target, received).await;
            });
        });
        Proxy { port, orders: Some(orders), thread: Some(thread) }
    }

    /// The address of a virtual host through this proxy.
    pub(crate) fn url_for(&self, vhost: &Vhost) -> String {
        vhost.url_at(self.port)
    }

    /// Changes the mode; it is in force when this returns.
    pub(crate) fn set(&self, mode: Mode) {
        self.order(Order::Set(mode));
    }

    /// Resets every connection that exists; done when this returns.
    pub(crate) fn cut_all(&self) {
        self.order(Order::CutAll);
    }

    fn order(&self, order: Order) {
        let (done, wait) = sync_channel(1);
        let orders = self.orders.as_ref().unwrap();
        assert!(orders.try_send((order, done)).is_ok(), "the proxy takes no orders");
        wait.recv_timeout(Duration::from_secs(10)).expect("the proxy hangs");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.orders.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) && !std::thread::panicking() {
            panic!("the proxy panicked");
        }
    }
}

/// The mode, and what is left of [`Mode::CutAfter`].
#[derive(Clone)]
struct Control {
    mode: watch::Sender<Mode>,
    left: Arc<AtomicU64>,
}

async fn serve(
    port: u16,
    listener: TcpListener,
    target: u16,
    mut orders: mpsc::Receiver<(Order, SyncSender<()>)>,
) {
    let mut listener = Some(listener);
    let control = Control { mode: watch::Sender::new(Mode::Pass), left: Arc::default() };
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some((order, done)) = order else { return };
                match order {
                    Order::Set(mode) => {
                        if let Mode::CutAfter(bytes) = mode {
                            control.left.store(bytes, Ordering::Relaxed);
                        }
                        control.mode.send_replace(mode);
                        if mode == Mode::Refuse {
                            listener = None;
                        } else if listener.is_none() {
                            listener = Some(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap());
                        }
                        if mode == Mode::Reset {
                            links.shutdown().await;
                        }
                    }
                    Order::CutAll => links.shutdown().await,
                }
                let _ = done.send(());
            }
            client = accept(listener.as_ref()) => {
                // From here on, dropping the connection resets it.
                if client.set_zero_linger().is_ok() && *control.mode.borrow() != Mode::Reset {
                    links.spawn(link(client, target, control.clone()));
                }
            }
            Some(_) = links.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    if let Some(listener) = listener {
        loop {
            if let Ok((client, _)) = listener.accept().await {
                return client;
            }
        }
    }
    std::future::pending().await
}

/// One connection. It ends as its ends end it: closed when both closed it, else reset.
async fn link(mut client: TcpStream, target: u16, control: Control) {
    let Ok(mut broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    for end in [&client, &broker] {
        if end.set_zero_linger().and_then(|()| end.set_nodelay(true)).is_err() {
            return;
        }
    }
    let (from_client, to_client) = client.split();
    let (from_broker, to_broker) = broker.split();
    let ended = tokio::try_join!(
        pump(from_client, to_broker, Way::ToBroker, &control),
        pump(from_broker, to_client, Way::ToClient, &control),
    );
    match ended {
        Ok(_) => {
            let _ = set_socket_linger(&client, None);
            let _ = set_socket_linger(&broker, None);
        }
        // What counted before the cut has to arrive.
        Err(why) if why.kind() == io::ErrorKind::ConnectionAborted => {
            let _ = set_socket_linger(&broker, None);
        }
        Err(_) => {}
    }
}

/// Carries bytes one way until their end.
async fn pump(from: ReadHalf<'_>, mut to: WriteHalf<'_>, way: Way, control: &Control) -> io::Result<()> {
    let (chunks, mut received) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let writer = async move {
        while let Some((due, bytes)) = received.recv().await {
            sleep_until(due).await;
            to.write_all(&bytes).await?;
        }
        Ok(to)
    };
    let (cut, mut to) = tokio::try_join!(read(from, chunks, way, control), writer)?;
    if cut { Err(io::ErrorKind::ConnectionAborted.into()) } else { to.shutdown().await }
}

/// Reads one way as the mode says. `true`: this connection is to be cut.
async fn read(
    mut from: ReadHalf<'_>,
    chunks: mpsc::Sender<(Instant, Vec<u8>)>,
    way: Way,
    control: &Control,
) -> io::Result<bool> {
    let mut modes = control.mode.subscribe();
    let mut buffer = vec![0; CHUNK];
    loop {
        let mode = *modes.borrow_and_update();
        let room = mode.room();
        let read = tokio::select! {
            biased;
            _ = modes.changed() => continue,
            read = from.read(&mut buffer[..room]), if room > 0 => read,
        };
        if !matches!(read, Ok(1..)) {
            // The end of a connection does not get through either.
            drop(modes.wait_for(|mode| !mode.holds(way)).await);
            return read.map(|_| false);
        }
        if mode.holds(way) {
            continue;
        }
        let mut bytes = buffer[..read?].to_vec();
        let mut due = Instant::now();
        let mut pause = Duration::ZERO;
        let mut cut = false;
        match mode {
            Mode::Delay(delay) => due += delay,
            Mode::Throttle(rate) => {
                pause = Duration::from_secs_f64(bytes.len() as f64 / f64::from(rate.max(1)));
            }
            Mode::CutAfter(_) if way == Way::ToBroker => {
                let left = control.left.load(Ordering::Relaxed).min(bytes.len() as u64);
                bytes.truncate(left as usize);
                cut = control.left.fetch_sub(left, Ordering::Relaxed) == left;
            }
            _ => {}
        }
        if chunks.send((due, bytes)).await.is_err() {
            return Ok(false);
        }
        if cut {
            control.mode.send_if_modified(|mode| {
                let ours = matches!(mode, Mode::CutAfter(_));
                *mode = if ours { Mode::Pass } else { *mode };
                ours
            });
            return Ok(true);
        }
        sleep(pause).await;
    }
}
