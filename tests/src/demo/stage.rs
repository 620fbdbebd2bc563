//! The lab of an act: up as long as the act goes on, down afterwards, whatever happens.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::demo::observer::Observer;
use crate::down;
use crate::host::Host;
use crate::routes;
use crate::signals;
use crate::state::{Lab, Locked, dir_of};
use crate::up;

/// How often a lab is tried to be taken down: every attempt can be interrupted.
const DOWN_ATTEMPTS: usize = 3;

/// A lab that this process owns.
pub struct Stage {
    /// The lab's name.
    pub name: String,
    /// The lab's directory.
    pub dir: PathBuf,
}

impl Stage {
    /// Makes a lab that does not outlive this process.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn raise(name: &str, sync: bool, database: bool, bin_dir: Option<&Path>) -> Result<Self> {
        let arguments = up::Arguments {
            present: None,
            dir: None,
            nodes: 2,
            servers: 2,
            clients: 1,
            workers: 1,
            no_sync: !sync,
            no_seal: false,
            steering: "Auto".into(),
            database,
            bin_dir: bin_dir.map(Path::to_path_buf),
            no_baton: false,
            owner: Some(std::process::id()),
            keep: false,
        };
        up::up(name, &arguments)?;
        Ok(Self { name: name.to_owned(), dir: dir_of(name) })
    }

    /// The lab's state as it is now.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn lab(&self) -> Result<Lab> {
        Lab::load(&self.dir)
    }

    /// Looks into node `number`.
    ///
    /// # Errors
    /// If its configuration cannot be read.
    pub fn observe(&self, number: u16) -> Result<Observer> {
        Observer::new(&self.lab()?, number)
    }

    /// Lets the router send all traffic to one node.
    ///
    /// # Errors
    /// If the routes cannot be changed.
    pub fn announce_only(&self, number: u16) -> Result<()> {
        let mut locked = Locked::open(&self.dir)?;
        let withdrawn: BTreeSet<u16> =
            locked.lab.shape.node_numbers().filter(|&node| node != number).collect();
        routes::withdraw(&mut locked, withdrawn)
    }

    /// Copies configurations, logs, reports and counters to `destination`, in a directory a host.
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn keep_files(&self, destination: &Path) -> Result<()> {
        for host in self.lab()?.shape.hosts() {
            let to = destination.join(host.to_string());
            std::fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
            for entry in std::fs::read_dir(self.host_dir(host))?.filter_map(Result::ok) {
                let kept = entry.path().extension().is_some_and(|e| e == "log" || e == "json" || e == "ron");
                if kept {
                    std::fs::copy(entry.path(), to.join(entry.file_name()))?;
                }
            }
        }
        std::fs::copy(self.dir.join("state.json"), destination.join("state.json"))?;
        for number in self.lab()?.shape.node_numbers() {
            let counters = self.observe(number)?.counters()?.to_string();
            std::fs::write(destination.join(Host::Node(number).to_string()).join("counters"), counters)?;
        }
        Ok(())
    }

    /// The directory of a host's files.
    pub fn host_dir(&self, host: Host) -> PathBuf {
        self.dir.join(host.to_string())
    }
}

impl Drop for Stage {
    /// Takes the lab down. If this process is killed before, the lab's guard does it.
    fn drop(&mut self) {
        for _ in 0..DOWN_ATTEMPTS {
            // What was interrupted has ended; this is to run through.
            signals::clear();
            match down::down(&self.name) {
                Ok(_) => return,
                Err(error) => eprintln!("baton-lab: {error:#}"),
            }
        }
    }
}
