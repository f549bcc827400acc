//! A RabbitMQ node of our own: own ports, cookie and directories, and gone when this process is.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::broker::{Broker, Vhost};
use crate::support::eventually;

/// The longest message that a node takes: what RabbitMQ 4 takes by default, and less than older ones do.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// How long a node may take to open its ports.
const START: Duration = Duration::from_secs(60);

/// Runs epmd and the server in the current directory (`$1` is the server) on orders from standard
/// input. A test process has no last moment to clean up in, but its pipe closes however it ends.
/// The epmd is started here because one that the server starts is a daemon which outlives it.
const SUPERVISOR: &str = r#"
trap '' INT TERM HUP
server=
stop() {
    [ -n "$server" ] || return 0
    kill -s KILL -- "-$server" || kill -s KILL "$server"
    wait "$server"
    server=
}
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 </dev/null >epmd.log 2>&1 &
epmd=$!
while read -r order; do
    case $order in
        start) setsid "$1" </dev/null >>server.log 2>&1 & server=$! ;;
        kill) stop ;;
    esac
    echo "$order"
done
stop
kill -s KILL "$epmd"
wait "$epmd"
dir=$PWD
cd /
rm -rf "$dir" || rm -rf "$dir"
"#;

/// A broker, ours or one that was pointed at.
pub(crate) struct Node {
    broker: Broker,
    /// Ours alone: what runs it.
    server: Option<Server>,
}

struct Server {
    supervisor: Mutex<Supervisor>,
    environment: Vec<(String, String)>,
    dir: PathBuf,
    ports: [u16; 3],
}

struct Supervisor {
    child: Child,
    orders: Option<ChildStdin>,
    done: BufReader<ChildStdout>,
}

/// A port on which nothing listens. It lies below the range of ephemeral ports, so that nobody gets it
/// by chance while the node or the proxy that owns it is down.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() * 257;
    loop {
        let next = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + ((start + next) % 22_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// The directory of the server's own programs: the one that `EVALMILL_TEST_RABBITMQ` names, or the
/// installed ones. Debian's wrappers in `/usr/sbin` switch the user.
fn programs() -> Result<PathBuf, String> {
    let complete = |dir: &PathBuf| dir.join("rabbitmq-server").is_file() && dir.join("rabbitmqctl").is_file();
    if let Some(dir) = std::env::var_os("EVALMILL_TEST_RABBITMQ").map(PathBuf::from) {
        let why = format!("EVALMILL_TEST_RABBITMQ={}: no rabbitmq-server and rabbitmqctl", dir.display());
        // A node does not run in our directory.
        return Some(dir).filter(complete).and_then(|dir| dir.canonicalize().ok()).ok_or(why);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(PathBuf::from("/usr/lib/rabbitmq/bin"))
        .chain(std::env::split_paths(&path))
        .chain([PathBuf::from("/usr/sbin")])
        .find(complete)
        .ok_or_else(|| {
            "no rabbitmq-server: run tests/run, or apt-get install rabbitmq-server, \
             or set EVALMILL_TEST_AMQP_URL and EVALMILL_TEST_AMQP_MANAGEMENT to a broker"
                .to_owned()
        })
}

impl Node {
    /// The node of this test run, started when first asked for; or the broker at
    /// `EVALMILL_TEST_AMQP_URL`, its management API at `EVALMILL_TEST_AMQP_MANAGEMENT`.
    pub(crate) fn shared() -> &'static Node {
        static SHARED: OnceLock<Result<Node, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| match std::env::var("EVALMILL_TEST_AMQP_URL") {
            Ok(url) => Broker::at(&url).map(|broker| Node { broker, server: None }),
            Err(_) => Node::start(""),
        });
        shared.as_ref().unwrap_or_else(|why| panic!("{why}"))
    }

    /// A node for one test that does things to it.
    pub(crate) fn private() -> Node {
        Node::private_with("")
    }

    /// The same, with these lines in its configuration.
    pub(crate) fn private_with(lines: &str) -> Node {
        Node::start(lines).unwrap_or_else(|why| panic!("{why}"))
    }

    fn start(lines: &str) -> Result<Node, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let programs = programs()?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("evalmill-{}-{count}@localhost", std::process::id());
        let [amqp, management, epmd, distribution] = std::array::from_fn(|_| free_port());
        let dir =
            scratch(amqp, management, lines).map_err(|why| format!("a directory for RabbitMQ: {why}"))?;
        let at = |part: &str| dir.join(part).to_string_lossy().into_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let loopback = "-kernel inet_dist_use_interface {127,0,0,1}";
        let environment = [
            // First the server's own directory: where there is an epmd in it, it is the server's.
            ("PATH", format!("{}:{path}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display())),
            ("HOME", at("home")),
            ("LC_ALL", "C.UTF-8".to_owned()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("ERL_EPMD_PORT", epmd.to_string()),
            ("RABBITMQ_NODENAME", name),
            ("RABBITMQ_DIST_PORT", distribution.to_string()),
            ("RABBITMQ_CONF_ENV_FILE", at("none")),
            ("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", at("none.config")),
            ("RABBITMQ_MNESIA_BASE", at("data")),
            ("RABBITMQ_GENERATED_CONFIG_DIR", at("data")),
            ("RABBITMQ_LOG_BASE", at("log")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins")),
            ("RABBITMQ_ENABLED_PLUGINS", "rabbitmq_management".to_owned()),
            // Two schedulers: a test is no load, and a large machine would start a hundred threads.
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", format!("+S 2:2 {loopback}")),
            ("RABBITMQ_CTL_ERL_ARGS", loopback.to_owned()),
            ("RABBITMQ_CTL_DIST_PORT_MIN", "0".to_owned()),
            ("RABBITMQ_CTL_DIST_PORT_MAX", "0".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));

        let mut child = Command::new("sh")
            .args(["-c", SUPERVISOR, "evalmill-test-rabbitmq"])
            .arg(programs.join("rabbitmq-server"))
            .env_clear()
            .envs(environment.clone())
            .current_dir(&dir)
            // Out of the way of a Ctrl-C at the terminal, which would end it before it cleans up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|why| format!("sh: {why}"))?;
        let orders = child.stdin.take();
        let done = BufReader::new(child.stdout.take().unwrap());
        let server = Server {
            supervisor: Mutex::new(Supervisor { child, orders, done }),
            environment: environment.to_vec(),
            dir,
            ports: [epmd, amqp, management],
        };
        // The server would start a daemon if it found no epmd.
        server.wait_for_ports(&[epmd])?;
        server.run()?;
        let broker = Broker {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: amqp,
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            management: format!("127.0.0.1:{management}"),
        };
        Ok(Node { broker, server: Some(server) })
    }

    /// The AMQP port.
    pub(crate) fn port(&self) -> u16 {
        self.broker.port
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("a node of our own: not the broker at EVALMILL_TEST_AMQP_URL")
    }

    /// Kills the server (SIGKILL) and waits until it is gone.
    pub(crate) fn kill9(&self) {
        let server = self.server();
        server.order("kill").unwrap();
        // The shell of the server is reaped by now, the server itself may still be about to die.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()));
        eventually("the broker's port is closed", || TcpStream::connect_timeout(&address, START).is_err());
    }

    /// Starts the server after [`Node::kill9`], on the same ports and data.
    pub(crate) fn start_again(&self) {
        self.server().run().unwrap_or_else(|why| panic!("{why}"));
    }

    /// Sets or clears the memory alarm, which blocks every connection that publishes: not on the shared
    /// node, therefore.
    pub(crate) fn alarm(&self, on: bool) {
        self.ctl(&["set_vm_memory_high_watermark", if on { "0.00001" } else { "0.6" }]);
    }

    /// `rabbitmqctl ARGS`, which must succeed; its standard output.
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        let server = self.server();
        let output = Command::new(programs().unwrap().join("rabbitmqctl"))
            .args(["--quiet", "--timeout", "30"])
            .args(args)
            .env_clear()
            .envs(server.environment.clone())
            .current_dir(&server.dir)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {args:?}: {text}{errors}");
        text
    }

    /// One call of the management API, such as `("GET", "queues/VHOST/NAME", None)`, which must succeed.
    pub(crate) fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.broker.api(method, path, body).unwrap_or_else(|why| panic!("{why}"))
    }

    /// A new virtual host, deleted when the value is dropped.
    pub(crate) fn vhost(&self) -> Vhost {
        self.broker.vhost().unwrap_or_else(|why| panic!("{why}"))
    }
}

impl Server {
    fn order(&self, order: &str) -> io::Result<()> {
        let mut supervisor = self.supervisor.lock().unwrap();
        writeln!(supervisor.orders.as_mut().unwrap(), "{order}")?;
        let mut line = String::new();
        supervisor.done.read_line(&mut line)?;
        if line.trim_end() == order { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn run(&self) -> Result<(), String> {
        self.order("start").map_err(|why| format!("the supervisor of RabbitMQ: {why}"))?;
        self.wait_for_ports(&self.ports)
    }

    fn wait_for_ports(&self, ports: &[u16]) -> Result<(), String> {
        let deadline = Instant::now() + START;
        for &port in ports {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            while TcpStream::connect_timeout(&address, START).is_err() {
                if Instant::now() > deadline {
                    let log = |name| tail(&self.dir.join(name));
                    let (epmd, server) = (log("epmd.log"), log("server.log"));
                    return Err(format!("RabbitMQ: port {port} not open in {START:?}\n{epmd}{server}"));
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let supervisor = self.supervisor.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(supervisor.orders.take());
        drop(supervisor.child.wait());
    }
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let start = text.len().saturating_sub(4000);
    String::from_utf8_lossy(&text[start..]).into_owned()
}

/// The directory of a node: the supervisor removes it.
fn scratch(amqp: u16, management: u16, lines: &str) -> io::Result<PathBuf> {
    let dir = tempfile::Builder::new().prefix("evalmill-rabbitmq-").tempdir()?.keep();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    for part in ["home", "data", "log"] {
        fs::create_dir(dir.join(part))?;
    }
    let mut cookie = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(dir.join("home/.erlang.cookie"))?;
    cookie.write_all(uuid::Uuid::new_v4().simple().to_string().as_bytes())?;
    fs::write(
        dir.join("rabbitmq.conf"),
        format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {management}\n\
             loopback_users = none\n\
             vm_memory_high_watermark.relative = 0.6\n\
             disk_free_limit.absolute = 50MB\n\
             max_message_size = {MAX_MESSAGE_BYTES}\n\
             raft.wal_max_size_bytes = 67108864\n\
             {lines}\n"
        ),
    )?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes with this environment variable.
    fn processes(variable: &str) -> Vec<PathBuf> {
        let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let ours = |dir: &PathBuf| fs::read(dir.join("environ")).is_ok_and(|text| has(&text, variable));
        all.filter(ours).collect()
    }

    fn has(environment: &[u8], variable: &str) -> bool {
        environment.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
    }

    #[test]
    fn nothing_is_left_of_a_node() {
        let node = Node::private();
        let server = node.server();
        let (dir, epmd) = (server.dir.clone(), format!("ERL_EPMD_PORT={}", server.ports[0]));
        assert!(processes(&epmd).len() >= 3, "the supervisor, epmd and the server");
        drop(node);
        assert!(!dir.exists());
        // The port programs of the server end by themselves.
        eventually("the processes are gone", || processes(&epmd).is_empty());
    }
}
