//! Where load is made: on a host of a lab, so that it never reaches a network outside one.

use std::net::SocketAddr;

use anyhow::{Result, bail};

use crate::host::Host;
use crate::netns;
use crate::state::{LABS_PREFIX, Lab, dir_of};

/// Moves the calling thread to where load for `target` is to be made: the host `from` of lab `name`, its first client
/// if none is named. A thread that is on a lab's host already, as inside `exec`, stays there unless a host is named.
/// Outside every lab only the loopback interface is allowed.
///
/// # Errors
/// If there is no such lab or host, and `target` is not on the loopback interface.
pub fn enter(name: &str, from: Option<Host>, target: SocketAddr) -> Result<()> {
    if from.is_none() && netns::is_in_one_of(LABS_PREFIX)? {
        return Ok(());
    }
    match Lab::load(&dir_of(name)) {
        Ok(lab) => {
            let host = from.unwrap_or(Host::Client(1));
            lab.check_host(host)?;
            netns::enter(&lab.netns(host))
        }
        Err(_) if from.is_none() && is_loopback(target) => Ok(()),
        Err(error) => bail!(
            "load for {target} is made inside a lab only, and {error:#}; name a lab that is up with --name"
        ),
    }
}

fn is_loopback(target: SocketAddr) -> bool {
    target.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_lab_only_the_loopback_interface_is_a_target() {
        for target in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            assert!(enter("nosuchlab", None, target.parse().unwrap()).is_ok(), "{target}");
        }
        for target in ["10.9.0.1:80", "0.0.0.0:80", "[::]:80", "[fd00:9::1]:80", "[::ffff:10.9.0.1]:80"] {
            let error = enter("nosuchlab", None, target.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains("inside a lab only"), "{target}: {error}");
        }
    }

    #[test]
    fn a_named_host_needs_a_lab_whatever_the_target() {
        let error = enter("nosuchlab", Some(Host::Client(1)), "127.0.0.1:80".parse().unwrap());
        assert!(error.is_err());
    }
}
