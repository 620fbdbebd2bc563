//! The demo: a balancer is killed under live connections, with sync and without; its secondary is killed under load.

mod hops;
mod narrator;
mod observer;
mod restarts;
mod stage;
mod takeover;
mod traffic;
mod verdict;
mod wait;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::demo::narrator::Narrator;
use crate::demo::stage::Stage;
use crate::demo::verdict::Figures;
use crate::{down, signals};

/// What the demo is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// HTTP connections through the node that is killed, half of them IPv6; 1000 unless --quick
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    connections: Option<u32>,
    /// Fewer connections and shorter waits: about a third of the time
    #[arg(long)]
    quick: bool,
    /// Write the figures to this file too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Start of the random sequence that says when the secondary is killed; by default another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// Where Baton's binaries are; by default beside this one
    #[arg(long)]
    bin_dir: Option<PathBuf>,
}

/// Sizes and times of the acts.
#[derive(Clone, Copy, Debug)]
struct Script {
    takeover: takeover::Plan,
    restarts: restarts::Plan,
    control: takeover::Plan,
}

impl Script {
    fn new(arguments: &Arguments) -> Result<Self> {
        let quick = arguments.quick;
        let seed = match arguments.seed {
            Some(seed) => seed,
            None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64,
        };
        let timeout = Duration::from_secs(if quick { 5 } else { 10 });
        let warm_up = if quick { Duration::from_millis(500) } else { Duration::from_secs(2) };
        let watch = if quick { Duration::from_secs(2) } else { Duration::from_secs(6) };
        let connections = arguments.connections.unwrap_or(if quick { 100 } else { 1000 });
        let takeover = takeover::Plan { connections, timeout, warm_up, watch, sync: true };
        Ok(Self {
            takeover,
            restarts: restarts::Plan {
                rounds: if quick { 2 } else { 5 },
                connections: connections / 5,
                timeout,
                seed,
            },
            // Long enough for every connection to be given up.
            control: takeover::Plan { watch: timeout + Duration::from_secs(2), sync: false, ..takeover },
        })
    }
}

/// Plays the demo; failure if anything was lost that should not have been, or nothing where it should.
///
/// # Errors
/// If the lab fails or the demo is interrupted.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    signals::note()?;
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces and hugepages need root");
    }
    let narrator = Narrator::new();
    for name in down::down_stale().unwrap_or_default() {
        narrator.say(&format!("took down the lab `{name}`, which somebody left behind"));
    }
    let kept = std::env::temp_dir().join(format!("baton-demo-{}", std::process::id()));
    let played = play(arguments, &narrator, &kept);
    if kept.exists() {
        narrator.show(&format!("\nlogs and reports of the failed act are kept in {}\n", kept.display()));
    }
    let figures = played?;
    narrator.show(&format!("\n=== Verdict\n{}\n{}", verdict::tables(&figures), verdict::words(&figures)));
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if figures.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(arguments: &Arguments, narrator: &Narrator, kept: &Path) -> Result<Figures> {
    let script = Script::new(arguments)?;
    let mut troubles = Vec::new();
    let mut steering = Vec::new();

    narrator.act("Act one: a node is killed under live connections, sync on");
    let stage = raise(arguments, narrator, true)?;
    let acts = keeping(&stage, kept, || {
        steering = introduce(&stage, narrator)?;
        let takeover = takeover::play(&stage, narrator, &script.takeover)?;
        narrator.act("Act two: the sync secondary is killed under load");
        let restarts = restarts::play(&stage, narrator, &script.restarts)?;
        troubles.extend(takeover.troubles(script.takeover.connections));
        troubles.extend(restarts.troubles(&script.restarts));
        Ok(((takeover, restarts), troubles.is_empty()))
    });
    drop(stage);
    let (takeover, restarts) = acts?;

    narrator.act("Control run: the same death as in act one, sync off");
    let stage = raise(arguments, narrator, false)?;
    let control = keeping(&stage, kept, || {
        introduce(&stage, narrator)?;
        let control = takeover::play(&stage, narrator, &script.control)?;
        let found = verdict::control_troubles(&control);
        let fine = found.is_empty();
        troubles.extend(found);
        Ok((control, fine))
    });
    drop(stage);
    let control = control?;
    let (passed, seed) = (troubles.is_empty(), script.restarts.seed);
    let elapsed_s = narrator.elapsed().as_secs_f64();
    Ok(Figures { passed, troubles, steering, seed, takeover, restarts, control, elapsed_s })
}

/// Makes a lab whose name no other demo on this machine has.
fn raise(arguments: &Arguments, narrator: &Narrator, sync: bool) -> Result<Stage> {
    let name = format!("demo{}{}", std::process::id(), if sync { "s" } else { "c" });
    let stage = Stage::raise(&name, sync, true, arguments.bin_dir.as_deref())?;
    narrator.say(&format!(
        "lab `{name}` is up: a router, two Baton nodes, two nginx servers, a MariaDB server, a client"
    ));
    Ok(stage)
}

/// Says of which processes the nodes consist and how they steer; returns the latter.
fn introduce(stage: &Stage, narrator: &Narrator) -> Result<Vec<String>> {
    let lab = stage.lab()?;
    let mut all = Vec::new();
    for number in lab.shape.node_numbers() {
        let processes: Vec<String> = observer::process_numbers(&lab, number)?
            .iter()
            .map(|(role, pid)| format!("baton-{role} is process {pid}"))
            .collect();
        let steering = stage.observe(number)?.status()?.steering;
        narrator.say(&format!(
            "n{number}: {}; steering: {}",
            processes.join(", "),
            observer::steering_words(&steering)
        ));
        all.push(steering);
    }
    Ok(all)
}

/// Does `work`; if it fails or says that things are not fine, keeps the lab's logs. An interruption is no failure.
fn keeping<T>(stage: &Stage, kept: &Path, work: impl FnOnce() -> Result<(T, bool)>) -> Result<T> {
    let result = work();
    let fine = matches!(result, Ok((_, true)));
    if !fine
        && !signals::is_set()
        && let Err(error) = stage.keep_files(kept)
    {
        eprintln!("baton-lab: the logs could not be kept: {error:#}");
    }
    Ok(result?.0)
}
