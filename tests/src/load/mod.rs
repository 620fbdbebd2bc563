//! Load generators: each runs for a bounded time and ends with a report as JSON.

pub mod churn;
pub mod database;
pub mod datagram;
pub mod http;
pub mod pace;
mod place;
pub mod udp;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::host::Host;

/// The kinds of load.
#[derive(Debug, Subcommand)]
pub enum Kind {
    /// Keep many HTTP connections open, with requests going on in each
    Http(http::Arguments),
    /// Open HTTP connections at a steady rate, a few requests in each, and close them
    Churn(churn::Arguments),
    /// Send numbered datagrams to the echo service
    Udp(udp::Arguments),
    /// Hold a MariaDB session in a transaction, then commit it
    Db(database::Arguments),
}

impl Kind {
    fn target(&self) -> SocketAddr {
        match self {
            Self::Http(arguments) => arguments.target,
            Self::Churn(arguments) => arguments.target,
            Self::Udp(arguments) => arguments.target,
            Self::Db(arguments) => arguments.target,
        }
    }

    /// Moves to the host `from` of lab `lab`, runs the load there and prints its report; failure if anything was lost.
    ///
    /// # Errors
    /// If the load cannot be made, or would leave the lab.
    pub fn run(&self, lab: &str, from: Option<Host>) -> Result<ExitCode> {
        place::enter(lab, from, self.target())?;
        let (report, whole) = match self {
            Self::Http(arguments) => {
                let report = http::run(arguments)?;
                (serde_json::to_string(&report)?, report.is_whole())
            }
            Self::Churn(arguments) => {
                let report = churn::run(arguments)?;
                (serde_json::to_string(&report)?, report.is_whole())
            }
            Self::Udp(arguments) => {
                let report = udp::run(arguments)?;
                (serde_json::to_string(&report)?, report.is_whole())
            }
            Self::Db(arguments) => {
                let report = database::run(arguments)?;
                (serde_json::to_string(&report)?, report.is_whole())
            }
        };
        println!("{report}");
        Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
