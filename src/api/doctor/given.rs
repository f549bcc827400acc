//! What the probes are told of this host.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::calls::CALLS;
use super::examine::NAMESPACES;
use super::host::{self, Host};
use super::tools;
use crate::config::Settings;

/// What no program needs to see.
const SECRET: &str = "/etc/shadow";
pub(super) const DIRECTORIES: [&str; 2] = ["/root", "/home"];

/// What the probes are told.
pub(super) fn given(settings: &Settings, config: Option<&Path>, host: &Host, disk_mb: u64) -> Value {
    let secrets: Vec<_> = secrets(settings, config, host).into_iter().map(|(path, _)| path).collect();
    let mut directories = DIRECTORIES.map(str::to_owned).to_vec();
    directories.push(host.outside().display().to_string());
    json!({
        "secrets": secrets,
        "directories": directories,
        "bound": host.bound(),
        "outside": host.outside(),
        "setuid": host.setuid(),
        "mark": host.mark(),
        "daemon": host.daemon_name(),
        "port": host.port(),
        "abstract": host.abstract_name(),
        "doctor": std::process::id(),
        "namespaces": host::namespaces(&NAMESPACES.map(|(name, _)| name)),
        "environment": environment(settings),
        "calls": CALLS,
        "tools": tools(settings).keys().collect::<Vec<_>>(),
        "disk_mb": disk_mb,
        "control": false,
    })
}

/// Files that programs must not read, and what each is.
pub(super) fn secrets(settings: &Settings, config: Option<&Path>, host: &Host) -> Vec<(PathBuf, String)> {
    let broker = &settings.rabbitmq;
    let keys = [
        ("rabbitmq.url_file", &broker.url_file),
        ("rabbitmq.user_file", &broker.user_file),
        ("rabbitmq.password_file", &broker.password_file),
        ("rabbitmq.tls_key_file", &broker.tls_key_file),
    ];
    let mut secrets = vec![
        (PathBuf::from(SECRET), SECRET.to_owned()),
        (host.secret().to_owned(), "a host's file that anybody may read".to_owned()),
    ];
    secrets.extend(config.map(|config| (config.to_owned(), "the configuration file".to_owned())));
    let named = keys.into_iter().filter(|(_, path)| !path.is_empty());
    secrets
        .extend(named.map(|(key, path)| {
            (std::fs::canonicalize(path).unwrap_or(path.into()), format!("{key}'s file"))
        }));
    secrets
}

/// Names of our variables that no box has by itself, or is meant to have.
fn environment(settings: &Settings) -> Vec<String> {
    const COMMON: [&str; 15] = [
        "HOME",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "LOGNAME",
        "OLDPWD",
        "PATH",
        "PWD",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHASHSEED",
        "SHLVL",
        "TMPDIR",
        "TZ",
        "USER",
        "_",
    ];
    let meant = |name: &String| {
        settings.environment.pass.contains(name) || settings.environment.set.contains_key(name)
    };
    let ours = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    ours.filter(|name| !COMMON.contains(&&**name) && !meant(name)).collect()
}
