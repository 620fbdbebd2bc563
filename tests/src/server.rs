//! The real servers: nginx, a UDP echo server, MariaDB.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::run_command;
use crate::host::Host;
use crate::netns;
use crate::process::{Process, spawn, tail};
use crate::state::Lab;

/// TCP port of nginx.
pub const HTTP_PORT: u16 = 80;
/// UDP port of the echo server.
pub const ECHO_PORT: u16 = 7;
/// TCP port of MariaDB.
pub const DATABASE_PORT: u16 = 3306;

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts nginx on `host` and waits until it takes connections.
///
/// # Errors
/// If it does not start.
pub fn start_nginx(lab: &Lab, host: Host) -> Result<Process> {
    let dir = lab.host_dir(host);
    let prefix = dir.join("nginx");
    std::fs::create_dir_all(&prefix)?;
    std::fs::write(prefix.join("nginx.conf"), nginx_config(host))?;
    let log = dir.join("nginx.log");
    let mut command = Command::new(program("nginx")?);
    command.arg("-e").arg(&log).arg("-p").arg(&prefix).args(["-c", "nginx.conf"]);
    start(lab, host, command, &log, HTTP_PORT)
}

/// Answers with the server's name and the number that the request asks for, so that a client can tell a wrong answer.
/// One process, connections that are never closed for age.
fn nginx_config(host: Host) -> String {
    format!(
        r#"daemon off;
master_process off;
user root;
pid nginx.pid;
worker_rlimit_nofile 65536;
events {{ worker_connections 30000; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 1000000000;
    keepalive_time 24h;
    keepalive_timeout 24h;
    server {{
        listen 0.0.0.0:{HTTP_PORT} backlog=8192;
        listen [::]:{HTTP_PORT} ipv6only=on backlog=8192;
        location / {{
            default_type text/plain;
            return 200 "{host} $arg_n\n";
        }}
    }}
}}
"#
    )
}

/// Starts the UDP echo server on `host`.
///
/// # Errors
/// If it does not start.
pub fn start_echo(lab: &Lab, host: Host) -> Result<Process> {
    let dir = lab.host_dir(host);
    let log = dir.join("echo.log");
    let ready = dir.join("echo.ready");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["echo", "--port", &ECHO_PORT.to_string(), "--ready-file"]).arg(&ready);
    let (mut child, process) = netns::inside(&lab.netns(host), || spawn(command, &log))?;
    wait_for(&mut child, "the echo server", &log, || ready.exists())?;
    Ok(process)
}

/// Makes MariaDB's data directory, starts it on `host` and waits until it takes connections. It has a database `lab`
/// and a user `lab` without a password.
///
/// # Errors
/// If it does not start.
pub fn start_mariadb(lab: &Lab, host: Host) -> Result<Process> {
    let dir = lab.host_dir(host);
    let data = dir.join("mariadb");
    // Of its own: a starting MariaDB removes the temporary tables of others that it finds.
    let temporary = dir.join("tmp");
    std::fs::create_dir_all(&temporary)?;
    let mut install = Command::new(program("mariadb-install-db")?);
    // By force: it would refuse on a machine that cannot look up its own name.
    install.args(["--no-defaults", "--force", "--user=root", "--skip-name-resolve", "--skip-test-db"]);
    install.arg("--auth-root-authentication-method=normal").arg(option("--datadir", &data));
    install.env("TMPDIR", &temporary);
    // Inside the namespace, where `down` finds what this starts.
    netns::inside(&lab.netns(host), || run_command(install, Duration::from_secs(90)))
        .context("making MariaDB's data directory")?;
    let init = dir.join("init.sql");
    std::fs::write(
        &init,
        "CREATE DATABASE IF NOT EXISTS lab;\n\
         CREATE USER IF NOT EXISTS 'lab'@'%';\n\
         GRANT ALL ON lab.* TO 'lab'@'%';\n",
    )?;
    let log = dir.join("mariadb.log");
    let mut command = Command::new(program("mariadbd")?);
    command.env("TMPDIR", &temporary);
    command.args([
        "--no-defaults",
        "--user=root",
        "--bind-address=*",
        "--skip-name-resolve",
        "--skip-log-bin",
    ]);
    command.args([
        "--innodb-buffer-pool-size=32M",
        "--innodb-log-file-size=8M",
        "--innodb-flush-method=fsync",
    ]);
    command.arg(format!("--port={DATABASE_PORT}"));
    command.arg(option("--datadir", &data)).arg(option("--init-file", &init));
    command
        .arg(option("--socket", &dir.join("mariadb.sock")))
        .arg(option("--pid-file", &dir.join("mariadb.pid")));
    start(lab, host, command, &log, DATABASE_PORT)
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

/// Starts a server and waits until it takes TCP connections on both of the host's addresses.
fn start(lab: &Lab, host: Host, command: Command, log: &Path, port: u16) -> Result<Process> {
    let netns = lab.netns(host);
    let shown = format!("{} on {host}", command.get_program().to_string_lossy());
    let (mut child, process) = netns::inside(&netns, || spawn(command, log))?;
    for address in [IpAddr::V4(host.ipv4()), IpAddr::V6(host.ipv6())] {
        let address = SocketAddr::new(address, port);
        wait_for(&mut child, &shown, log, || {
            let connect = || Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1))?);
            netns::inside(&netns, connect).is_ok()
        })?;
    }
    Ok(process)
}

/// Waits until `ready`, unless the process ends or [`START_TIMEOUT`] passes.
fn wait_for(child: &mut Child, name: &str, log: &Path, mut ready: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    while !ready() {
        if let Some(status) = child.try_wait()? {
            bail!("{name} ended ({status}) before it was ready; its log ends:\n{}", tail(log));
        }
        if Instant::now() > deadline {
            bail!("{name} was not ready within {} s; its log ends:\n{}", START_TIMEOUT.as_secs(), tail(log));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The full path of a server's program: they live in directories that are not in everybody's path.
fn program(name: &str) -> Result<std::path::PathBuf> {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists());
    found.with_context(|| format!("{name} is not installed; tests/install-deps installs it"))
}
