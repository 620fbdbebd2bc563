//! External commands (`ip`, `tc`, `sysctl`, …) with checked results and a time limit.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::signals;

/// How long a command such as `ip` may take. Generous: the machine may be busy.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs `program` with `arguments` and returns its standard output.
///
/// # Errors
/// If it cannot be started, does not end in [`COMMAND_TIMEOUT`] (it is killed then), or ends with a failure; the error
/// holds the command line and what it wrote to standard error.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(command, COMMAND_TIMEOUT)
}

/// Runs `ip` with the words of `line`; for fixed text with addresses and names in it, none of which contains a space.
///
/// # Errors
/// As [`run`].
pub fn ip(line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    run("ip", &words)
}

/// Runs `ip -n NETNS` with the words of `line`.
///
/// # Errors
/// As [`run`].
pub fn ip_in(netns: &str, line: &str) -> Result<String> {
    ip(&format!("-n {netns} {line}"))
}

/// Runs a prepared command and returns its standard output. An interruption kills the command.
///
/// # Errors
/// As [`run`], with `timeout` as the limit.
pub fn run_command(command: Command, timeout: Duration) -> Result<String> {
    run_with(command, timeout, signals::is_set)
}

/// Runs a prepared command that is not to be cut off by an interruption, because it would leave something half-done.
///
/// # Errors
/// As [`run`], with `timeout` as the limit.
pub fn run_to_end(mut command: Command, timeout: Duration) -> Result<String> {
    // Out of reach of the terminal's signals.
    command.process_group(0);
    run_with(command, timeout, || false)
}

fn run_with(mut command: Command, timeout: Duration, stop: fn() -> bool) -> Result<String> {
    signals::check()?;
    let shown = shown(&command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let started = std::time::Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if stop() || started.elapsed() > timeout {
            child.kill().ok();
            child.wait().ok();
            signals::check()?;
            bail!("`{shown}` did not end within {} s", timeout.as_secs());
        }
        std::thread::sleep(if started.elapsed().as_millis() < 50 {
            Duration::from_micros(300)
        } else {
            Duration::from_millis(10)
        });
    };
    // A grandchild may hold the pipes open for longer than the command lived; what it writes is not waited for.
    let output = stdout.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    let errors = stderr.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    if !status.success() {
        let said = if errors.trim().is_empty() { output.trim() } else { errors.trim() };
        bail!("`{shown}` failed ({status}): {said}");
    }
    Ok(output)
}

fn collect(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(mut stream) = stream {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).ok();
            sender.send(String::from_utf8_lossy(&bytes).into_owned()).ok();
        });
    }
    receiver
}

fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_says_what_it_wrote() {
        let error = run("sh", &["-c", "echo broken >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.contains("broken") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_command_that_does_not_end_is_killed() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let error = run_command(command, Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.contains("did not end"), "{error}");
    }

    #[test]
    fn output_longer_than_a_pipe_is_read_whole() {
        let output = run("sh", &["-c", "head -c 300000 /dev/zero | tr '\\0' x"]).unwrap();
        assert_eq!(output.len(), 300_000);
    }
}
