//! The announcer: tells the world how far this node is, by a ready file and by the operator's hook.
//!
//! `sync-<numa>.ready` is in the runtime directory while the sync domain is ready. The hook is run when the state changes, on a
//! thread of its own, one run at a time and in order.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use baton_common::config::Config;
use baton_common::id::{NodeId, NumaId};
use baton_common::runtime::ready_path;
use baton_common::sync::protocol::readiness::ReadyState;
use rustix::process::{Pid, Signal, kill_process_group};

/// How long the hook may run before it is ended.
const HOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked at meanwhile.
const HOOK_POLL: Duration = Duration::from_millis(10);

/// News that wait for the hook.
const NEWS_MAX: usize = 16;

/// How this node is, to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// Its secondary works.
    Up {
        /// How far it is.
        state: ReadyState,
        /// Whether it should long be ready and is not.
        alarm: bool,
    },
    /// It forwards nothing: its primary is gone.
    Down,
}

impl Announcement {
    fn name(self) -> &'static str {
        match self {
            Announcement::Up { state, .. } => state.name(),
            Announcement::Down => "down",
        }
    }

    fn is_ready(self) -> bool {
        matches!(self, Announcement::Up { state: ReadyState::Ready, .. })
    }

    fn alarm(self) -> bool {
        matches!(self, Announcement::Up { alarm: true, .. })
    }
}

/// The sync thread's end.
pub struct Announcer {
    news: SyncSender<Announcement>,
    told: Option<Announcement>,
    thread: JoinHandle<()>,
}

/// The thread's own.
struct Crier {
    node: NodeId,
    numa: NumaId,
    ready_file: PathBuf,
    hook: Vec<String>,
}

impl Announcer {
    /// Starts the thread. To be called before DPDK binds the caller to its CPU.
    ///
    /// A ready file that is there was left by a predecessor: the world knows that the node is ready.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(config: &Config, numa: NumaId) -> anyhow::Result<Announcer> {
        let ready_file = ready_path(&config.paths.runtime, numa);
        let ready = Announcement::Up { state: ReadyState::Ready, alarm: false };
        let told = ready_file.exists().then_some(ready);
        let crier = Crier { node: config.node.id, numa, ready_file, hook: config.sync.hook.clone() };
        let (news, heard) = sync_channel(NEWS_MAX);
        let thread = std::thread::Builder::new()
            .name("announcer".into())
            .spawn(move || crier.run(&heard))
            .context("starting the announcer's thread")?;
        Ok(Announcer { news, told, thread })
    }

    /// Tells how the node is, if that is new, and says whether it was. Never waits: with a slow hook, what comes between is
    /// left out.
    pub fn tell(&mut self, announcement: Announcement) -> bool {
        let is_news = self.told != Some(announcement) && self.news.try_send(announcement).is_ok();
        if is_news {
            self.told = Some(announcement);
        }
        is_news
    }

    /// Tells the last word, and waits until the hook has heard it.
    pub fn tell_last(self, announcement: Announcement) {
        let Announcer { news, told, thread } = self;
        if told != Some(announcement) {
            // The thread lives for as long as this end does.
            let _ = news.send(announcement);
        }
        drop(news);
        let _ = thread.join();
    }
}

impl Crier {
    fn run(&self, heard: &Receiver<Announcement>) {
        while let Ok(announcement) = heard.recv() {
            let name = announcement.name();
            if announcement.alarm() {
                tracing::error!(numa = self.numa.0, state = name, "not ready yet: see `batonctl peers`");
            } else {
                tracing::info!(numa = self.numa.0, state = name, "this node's state");
            }
            if let Err(error) = mark(&self.ready_file, announcement.is_ready()) {
                tracing::error!(path = %self.ready_file.display(), %error, "the ready file cannot be changed");
            }
            if let [program, arguments @ ..] = self.hook.as_slice() {
                self.run_hook(program, arguments, announcement);
            }
        }
    }

    fn run_hook(&self, program: &str, arguments: &[String], announcement: Announcement) {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("BATON_STATE", announcement.name())
            .env("BATON_ALARM", u8::from(announcement.alarm()).to_string())
            .env("BATON_NODE", self.node.0.to_string())
            .env("BATON_NUMA", self.numa.0.to_string())
            .env("BATON_READY_FILE", &self.ready_file)
            .stdin(Stdio::null())
            // What it starts is ended with it.
            .process_group(0);
        match command.spawn().and_then(wait) {
            Ok(Some(status)) if status.success() => {}
            Ok(Some(status)) => tracing::warn!(hook = program, %status, "the hook failed"),
            Ok(None) => {
                tracing::warn!(hook = program, timeout_s = HOOK_TIMEOUT.as_secs(), "the hook was ended");
            }
            Err(error) => tracing::warn!(hook = program, %error, "the hook cannot be run"),
        }
    }
}

/// Waits for the hook; ends it and its like after a while, and then there is no status.
fn wait(mut child: Child) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + HOOK_TIMEOUT;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(HOOK_POLL);
    }
    if let Some(group) = Pid::from_raw(child.id() as i32) {
        kill_process_group(group, Signal::KILL)?;
    }
    child.wait()?;
    Ok(None)
}

/// Makes or removes the ready file.
fn mark(path: &Path, ready: bool) -> std::io::Result<()> {
    if ready {
        return std::fs::write(path, "ready\n");
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use baton_common::config::SAMPLE;

    use super::*;

    const READY: Announcement = Announcement::Up { state: ReadyState::Ready, alarm: false };
    const JOINING: Announcement = Announcement::Up { state: ReadyState::Joining, alarm: false };

    fn config(runtime: &Path, script: &str) -> Config {
        let mut config = Config::parse(SAMPLE, "sample").unwrap();
        config.paths.runtime = runtime.into();
        config.sync.hook = ["/bin/sh", "-c", script].map(String::from).to_vec();
        config
    }

    fn announcer(runtime: &Path) -> Announcer {
        let script =
            format!("echo $BATON_STATE $BATON_ALARM $BATON_NODE $BATON_NUMA >> {}/heard", runtime.display());
        Announcer::start(&config(runtime, &script), NumaId(0)).unwrap()
    }

    fn heard(runtime: &Path) -> String {
        std::fs::read_to_string(runtime.join("heard")).unwrap_or_default()
    }

    #[test]
    fn hook_and_ready_file_follow_the_state_in_order() {
        let runtime = tempfile::tempdir().unwrap();
        let mut announcer = announcer(runtime.path());
        announcer.tell(JOINING);
        announcer.tell(JOINING);
        announcer.tell(Announcement::Up { state: ReadyState::Syncing, alarm: true });
        announcer.tell_last(READY);

        assert_eq!(heard(runtime.path()), "joining 0 1 0\nsyncing 1 1 0\nready 0 1 0\n");
        assert!(ready_path(runtime.path(), NumaId(0)).exists());
    }

    #[test]
    fn a_successor_of_a_ready_secondary_announces_nothing_anew() {
        let runtime = tempfile::tempdir().unwrap();
        announcer(runtime.path()).tell_last(READY);
        let mut successor = announcer(runtime.path());
        successor.tell(READY);
        successor.tell_last(Announcement::Down);

        assert_eq!(heard(runtime.path()), "ready 0 1 0\ndown 0 1 0\n");
        assert!(!ready_path(runtime.path(), NumaId(0)).exists());
    }

    #[test]
    fn a_hook_that_cannot_be_run_keeps_nothing_else_from_being_done() {
        let runtime = tempfile::tempdir().unwrap();
        let mut config = config(runtime.path(), "");
        config.sync.hook = vec!["/nonexistent".into()];
        Announcer::start(&config, NumaId(0)).unwrap().tell_last(READY);
        assert!(ready_path(runtime.path(), NumaId(0)).exists());
    }
}
