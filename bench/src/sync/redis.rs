//! Redis: sessions as messages of a channel, one publisher, one subscriber, one server between them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::host::cpus::{self, Cpus};

/// Bytes of a message: the client, the local port, and what an upsert says besides.
const MESSAGE_BYTES: usize = 32;

/// Longest time of a part.
const LIMIT: Duration = Duration::from_secs(60);

/// What Redis did.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// Messages.
    pub sessions: u32,
    /// Messages in a pipeline.
    pub pipeline: u32,
    /// From the first message sent until the last had come.
    pub seconds: f64,
}

impl Published {
    /// Sessions a second, millions.
    pub fn rate(&self) -> f64 {
        f64::from(self.sessions) / self.seconds / 1e6
    }
}

/// A server that is killed when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Publishes sessions in pipelines of each of these lengths; 1 waits for the answer to each.
///
/// # Errors
/// There is no `redis-server`, or messages are lost.
pub fn publish(sessions: u32, pipelines: &[u32], cpus: Cpus) -> Result<Vec<Published>> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("redis");
    let server = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(["--client-output-buffer-limit", "pubsub 0 0 0", "--unixsocket"])
        .arg(&socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start redis-server: `make testdeps` installs it")?;
    let _server = Server(server);
    let start = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        ensure!(start.elapsed() < LIMIT, "redis-server does not listen");
        thread::sleep(Duration::from_millis(5));
    }
    pipelines
        .iter()
        .map(|pipeline| {
            // One by one it takes long, and no longer run says more.
            let sessions = if *pipeline == 1 { sessions.min(100_000) } else { sessions };
            round(&socket, sessions, *pipeline, cpus)
        })
        .collect()
}

fn round(socket: &Path, sessions: u32, pipeline: u32, cpus: Cpus) -> Result<Published> {
    let mut subscriber = connect(socket)?;
    subscriber.write_all(b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\ns\r\n")?;
    let mut answer = [0; 256];
    ensure!(subscriber.read(&mut answer)? > 0, "redis-server has gone");
    // *3, message, the channel, the payload.
    let message = "*3\r\n$7\r\nmessage\r\n$1\r\ns\r\n$32\r\n".len() + MESSAGE_BYTES + 2;
    let expected = u64::from(sessions) * message as u64;
    let receiving = thread::spawn(move || -> Result<Instant> {
        cpus::pin(cpus.reader)?;
        let mut room = vec![0; 1 << 18];
        let mut received = 0;
        while received < expected {
            let bytes = subscriber.read(&mut room).context("messages are missing")?;
            ensure!(bytes > 0, "redis-server has gone");
            received += bytes as u64;
        }
        Ok(Instant::now())
    });
    let start = Instant::now();
    send(connect(socket)?, sessions, pipeline)?;
    let end = receiving.join().map_err(|_| anyhow::anyhow!("the subscriber panicked"))??;
    Ok(Published { sessions, pipeline, seconds: (end - start).as_secs_f64() })
}

fn send(mut publisher: UnixStream, sessions: u32, pipeline: u32) -> Result<()> {
    let mut commands = Vec::new();
    let mut answers = vec![0; 1 << 16];
    let mut left = sessions;
    while left > 0 {
        let count = left.min(pipeline);
        commands.clear();
        for number in 0..count {
            commands.extend_from_slice(b"*3\r\n$7\r\nPUBLISH\r\n$1\r\ns\r\n$32\r\n");
            let mut payload = [b'.'; MESSAGE_BYTES];
            payload[..4].copy_from_slice(&(left - number).to_le_bytes());
            commands.extend_from_slice(&payload);
            commands.extend_from_slice(b"\r\n");
        }
        publisher.write_all(&commands)?;
        // ":1\r\n" each.
        let mut awaited = 4 * count as usize;
        while awaited > 0 {
            let bytes = publisher.read(&mut answers)?;
            ensure!(bytes > 0, "redis-server has gone");
            awaited = awaited.saturating_sub(bytes);
        }
        left -= count;
    }
    Ok(())
}

fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket).context("cannot connect to redis-server")?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}
