//! Labs of Baton nodes, routers, servers and clients in network namespaces, and the load that tests them.

mod command;
mod demo;
mod down;
mod echo;
mod guard;
mod host;
mod impair;
mod load;
mod netns;
mod node;
mod node_config;
mod process;
mod random;
mod relay;
mod routes;
mod server;
mod signals;
mod socket;
mod state;
mod status;
mod topology;
mod up;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use crate::host::Host;
use crate::impair::Impairment;
use crate::node::Role;
use crate::state::{Lab, Locked, dir_of};

/// Labs of Baton nodes, routers, servers and clients in network namespaces, and the load that tests them.
///
/// Hosts are `router`, `n1`.. (nodes), `s1`.. (real servers), `c1`.. (clients) and `db`. Labs of different names run
/// side by side.
#[derive(Parser)]
#[command(name = "baton-lab", version)]
struct CommandLine {
    /// Name of the lab: 1 to 12 lower-case letters and digits
    #[arg(long, global = true, default_value = "lab")]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a lab and start everything in it
    Up(up::Arguments),
    /// Run a command on a host
    Exec {
        /// The host
        host: Host,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Kill a node's processes (SIGKILL)
    Kill {
        /// The node, such as n1
        node: Host,
        /// One process; both if left out
        role: Option<Role>,
    },
    /// Start a node's processes and wait until they are ready
    Start {
        /// The node, such as n1
        node: Host,
        /// One process; both if left out
        role: Option<Role>,
    },
    /// Have a node's secondary hand over to a successor, as `systemctl reload` does
    HandOver {
        /// The node, such as n1
        node: Host,
    },
    /// Make a dead node forget everything, as a machine does that loses its power
    Forget {
        /// The node, such as n1
        node: Host,
    },
    /// Let the router send a node's traffic to the other nodes
    Withdraw {
        /// The node, such as n1
        node: Host,
    },
    /// Let the router send traffic to a node again, once it holds what the others have
    Announce {
        /// The node, such as n1
        node: Host,
    },
    /// Lose, delay or double a node's sync traffic, in both directions
    Impair {
        /// The node, such as n1
        node: Host,
        #[command(flatten)]
        impairment: Impairment,
        /// Stop impairing
        #[arg(long, conflicts_with_all = ["loss_percent", "delay_ms", "duplicate_percent"])]
        off: bool,
    },
    /// Say what the lab consists of and what of it lives
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take the lab down, whatever there is of it
    Down {
        /// Take down every lab whose owner is gone or that was left half-made, whatever its name
        #[arg(long)]
        stale: bool,
    },
    /// Make load on a host of the lab and measure what becomes of it
    Load {
        /// The host; by default c1, and inside `exec` the host that one is on
        #[arg(long, global = true)]
        from: Option<Host>,
        #[command(subcommand)]
        kind: load::Kind,
    },
    /// Kill a balancer under live connections and count what is lost: with sync, and without
    Demo(demo::Arguments),
    /// Answer UDP datagrams
    Echo(echo::Arguments),
    /// Impair what a tap carries (started by `impair`)
    #[command(hide = true)]
    Relay(relay::Arguments),
    /// Take the lab down when its owner is gone (started by `up --owner`)
    #[command(hide = true)]
    Guard,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match act(&line.name, line.action) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("baton-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(name: &str, action: Action) -> Result<ExitCode> {
    match action {
        Action::Up(arguments) => {
            signals::note()?;
            up::up(name, &arguments)?;
            status::print(name, false)?;
        }
        Action::Exec { host, command } => exec(name, host, &command)?,
        Action::Kill { node, role } => kill(name, node, role)?,
        Action::Start { node, role } => start(name, node, role)?,
        Action::HandOver { node } => {
            let lab = Lab::load(&dir_of(name))?;
            node::hand_over(&lab.dir, node_number(&lab, node)?)?;
        }
        Action::Forget { node } => {
            let lab = Lab::load(&dir_of(name))?;
            node::forget(&lab, node_number(&lab, node)?)?;
        }
        Action::Withdraw { node } => announce(name, node, false)?,
        Action::Announce { node } => announce(name, node, true)?,
        Action::Impair { node, impairment, off } => {
            let (mut locked, number) = locked_node(name, node)?;
            if off {
                impair::clear(&mut locked, number)?;
            } else {
                impair::set(&mut locked, number, impairment)?;
            }
        }
        Action::Status { json } => status::print(name, json)?,
        Action::Down { stale: false } => {
            if !down::down(name)? {
                eprintln!("baton-lab: there is no lab `{name}`");
            }
        }
        Action::Down { stale: true } => {
            for removed in down::down_stale()? {
                println!("{removed}");
            }
        }
        Action::Load { from, kind } => {
            signals::note()?;
            return kind.run(name, from);
        }
        Action::Demo(arguments) => return demo::run(&arguments),
        Action::Echo(arguments) => echo::serve(&arguments)?,
        Action::Relay(arguments) => relay::relay(&arguments)?,
        Action::Guard => guard::guard(name)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes the command, inside the host's namespace; on a node with the node's config at hand.
fn exec(name: &str, host: Host, words: &[String]) -> Result<()> {
    let lab = Lab::load(&dir_of(name))?;
    lab.check_host(host)?;
    netns::enter(&lab.netns(host))?;
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Host::Node(number) = host {
        command.env("BATON_CONFIG", node::config_path(&lab, number));
    }
    Err(command.exec()).with_context(|| format!("cannot start {program}"))
}

fn kill(name: &str, node: Host, role: Option<Role>) -> Result<()> {
    let lab = Lab::load(&dir_of(name))?;
    let number = node_number(&lab, node)?;
    let roles = role.as_ref().map_or(&[Role::Primary, Role::Sync][..], std::slice::from_ref);
    let hit = node::kill(&lab, number, roles)?;
    for &missed in roles.iter().filter(|role| !hit.contains(role)) {
        eprintln!("baton-lab: the {missed} of {node} does not run");
    }
    Ok(())
}

fn start(name: &str, node: Host, role: Option<Role>) -> Result<()> {
    let dir = dir_of(name);
    let lab = Lab::load(&dir)?;
    let number = node_number(&lab, node)?;
    let roles = role.as_ref().map_or(Role::of(&lab), std::slice::from_ref);
    roles.iter().try_for_each(|&role| node::start(&dir, number, role).map(drop))
}

fn announce(name: &str, node: Host, announced: bool) -> Result<()> {
    if announced {
        let lab = Lab::load(&dir_of(name))?;
        node::wait_until_in_sync(&lab, node_number(&lab, node)?)?;
    }
    let (mut locked, number) = locked_node(name, node)?;
    let mut withdrawn = locked.lab.withdrawn.clone();
    if announced {
        withdrawn.remove(&number);
    } else {
        withdrawn.insert(number);
    }
    routes::withdraw(&mut locked, withdrawn)
}

fn locked_node(name: &str, node: Host) -> Result<(Locked, u16)> {
    let locked = Locked::open(&dir_of(name))?;
    let number = node_number(&locked.lab, node)?;
    Ok((locked, number))
}

fn node_number(lab: &Lab, host: Host) -> Result<u16> {
    lab.check_host(host)?;
    match host {
        Host::Node(number) => Ok(number),
        _ => bail!("{host} is no node"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }
}
