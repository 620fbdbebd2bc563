//! Network namespaces for tests.

use std::process::Command;
use std::sync::mpsc::{Sender, channel};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace: a thread that moved into a new one, and runs what it is given.
pub struct Namespace {
    jobs: Sender<Job>,
    thread: i32,
}

impl Namespace {
    /// Makes the namespace.
    pub fn new() -> Namespace {
        let (jobs, queue) = channel::<Job>();
        let (told, thread) = channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, which takes root");
            told.send(gettid().as_raw()).unwrap();
            queue.iter().for_each(|job| job());
        });
        Namespace { jobs, thread: thread.recv().unwrap() }
    }

    /// The thread inside, for `ip link … netns`.
    pub fn thread(&self) -> i32 {
        self.thread
    }

    /// Runs a job inside, to its end.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        self.jobs.send(Box::new(move || drop(answer.send(job())))).unwrap();
        answered.recv().expect("the job to end well")
    }

    /// Runs `ip` inside; it must succeed.
    pub fn ip(&self, arguments: &str) {
        let arguments = arguments.to_owned();
        self.run(move || {
            let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
            assert!(status.success(), "ip {arguments}");
        });
    }
}
