//! The launcher seen from the supervisor: starting it, and being rid of it.
//!
//! The launcher is never killed because a handle was dropped: when its socket closes it ends by
//! itself and takes everything below with it. Killing it is for one that does not answer.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use std::os::fd::{AsFd, AsRawFd};
use tokio::process::{Child, Command};

use super::fork;
use super::launcher::{LAUNCHER_ARGUMENT, is_launcher};
use super::packet::{self, PacketSocket};
use super::protocol::{FromLauncher, ToLauncher};
use super::settings::{PoolSettings, WorkerError};
use crate::config::Tier;
use crate::sandbox::Missing;

/// How long a launcher may take to answer; one that takes longer hangs.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The same for its start: it asks the interpreter, and makes a worker to see which tier works.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(2);
/// All of our environment that a launcher gets.
const ENVIRONMENT: [&str; 5] = ["PATH", "LD_LIBRARY_PATH", "TMPDIR", "RUST_BACKTRACE", "LLVM_PROFILE_FILE"];

/// A launcher that has its policy.
#[derive(Debug)]
pub(crate) struct LauncherProcess {
    child: Child,
    /// Its process id.
    pub(crate) pid: i32,
    /// Our end of its socket.
    pub(crate) socket: PacketSocket,
    /// The isolation of its workers.
    pub(crate) tier: Tier,
    /// What keeps it from being more.
    pub(crate) missing: Vec<Missing>,
}

impl LauncherProcess {
    /// The program that is started.
    pub(crate) fn executable(settings: &PoolSettings) -> PathBuf {
        settings.executable.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
    }

    /// Starts a launcher and gives it its policy.
    pub(crate) async fn start(settings: &PoolSettings) -> Result<Self, WorkerError> {
        let executable = Self::executable(settings);
        let failed =
            |reason: String| WorkerError::LauncherUnavailable { executable: executable.clone(), reason };
        if is_launcher() {
            // Without this a program that never calls `init` would start itself without end.
            return Err(failed(
                "this process was itself started as a launcher, and `init` was not called".into(),
            ));
        }
        let start = ToLauncher::Start(settings.policy.clone());
        packet::encode(&start).map_err(WorkerError::Policy)?;
        let (ours, theirs) = packet::pair().map_err(|error| failed(format!("no socket: {error}")))?;
        let mut command = Command::new(&executable);
        command
            .arg0("evalmill")
            .arg(LAUNCHER_ARGUMENT)
            .arg(theirs.as_raw_fd().to_string())
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        fork::pass_descriptor(&mut command, theirs.as_fd());
        let mut child = command.spawn().map_err(|error| failed(format!("it cannot be started: {error}")))?;
        drop(theirs);
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        let greeting = async {
            let socket = PacketSocket::new(ours).map_err(|error| format!("no socket: {error}"))?;
            socket.try_send(&start).map_err(|error| format!("it takes no policy: {error}"))?;
            match socket.receive::<FromLauncher>().await {
                Ok(Some((FromLauncher::Started { tier, missing }, None))) => Ok((socket, tier, missing)),
                Ok(Some(_)) => Err("its first answer is not the expected one".to_owned()),
                Ok(None) => Err(String::new()),
                Err(error) => Err(format!("it cannot be understood: {error}")),
            }
        };
        let reason = match tokio::time::timeout(START_LIMIT, greeting).await {
            Ok(Ok((socket, tier, missing))) => return Ok(Self { child, pid, socket, tier, missing }),
            Ok(Err(reason)) => reason,
            Err(_) => format!("it did not answer within {START_LIMIT:?}"),
        };
        // Its socket is closed: it may be about to end, and then its status says most.
        let status = match tokio::time::timeout(KILL_LIMIT, child.wait()).await {
            Ok(Ok(status)) => format!("it ended without an answer ({status})"),
            Ok(Err(error)) => format!("it cannot be waited for: {error}"),
            Err(_) => {
                kill(&mut child).await;
                "it closed its socket without an answer".to_owned()
            }
        };
        Err(failed(if reason.is_empty() { status } else { reason }))
    }

    /// Kills a launcher that is of no use any more. Its workers live on.
    pub(crate) async fn kill(mut self) {
        drop(self.socket);
        kill(&mut self.child).await;
    }

    /// Closes the socket and sees the launcher to its end, for at most `limit`; then kills it.
    pub(crate) async fn finish(mut self, limit: Duration) {
        drop(self.socket);
        if tokio::time::timeout(limit, self.child.wait()).await.is_err() {
            tracing::warn!(pid = self.pid, "the launcher did not end in time and is killed");
            kill(&mut self.child).await;
        }
    }
}

async fn kill(child: &mut Child) {
    // Fails only if it was already reaped.
    let _ = child.start_kill();
    let _ = tokio::time::timeout(KILL_LIMIT, child.wait()).await;
}
