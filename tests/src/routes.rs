//! The router's routes: which nodes get the VIPs' traffic and who serves the sessions of a node that is withdrawn.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::command::ip_in;
use crate::host::{Host, VIP4, VIP6};
use crate::state::{Lab, Locked};

/// Withdraws these nodes, announces all others, and notes that in the state.
///
/// Who gets new connections is reachable for the servers' answers to them: so the prefixes of local addresses come first when a
/// node is announced, and last when one is withdrawn.
///
/// # Errors
/// If a command fails or the state cannot be written.
pub fn withdraw(locked: &mut Locked, withdrawn: BTreeSet<u16>) -> Result<()> {
    let announces = withdrawn.len() < locked.lab.withdrawn.len();
    locked.lab.withdrawn = withdrawn;
    let mut lines = lines(&locked.lab);
    if announces {
        lines.reverse();
    }
    run(&locked.lab, &lines)?;
    locked.save()
}

/// Makes the router's routes what the state says.
///
/// The VIPs are spread over the announced nodes by a hash over addresses and ports. The prefixes of a node's local
/// addresses lead to the node; those of a withdrawn node are spread over the others, which serve its sessions.
///
/// # Errors
/// If a command fails.
pub fn apply(lab: &Lab) -> Result<()> {
    run(lab, &lines(lab))
}

fn run(lab: &Lab, lines: &[String]) -> Result<()> {
    let router = lab.netns(Host::Router);
    lines.iter().try_for_each(|line| ip_in(&router, line).map(drop))
}

fn lines(lab: &Lab) -> Vec<String> {
    let announced: Vec<u16> = lab.shape.node_numbers().filter(|node| !lab.withdrawn.contains(node)).collect();
    let mut lines = vec![
        route("", &format!("{VIP4}/32"), &gateways4(&announced)),
        route("-6 ", &format!("{VIP6}/128"), &gateways6(&announced)),
    ];
    for node in lab.shape.node_numbers() {
        let (prefix4, prefix6) = Host::local_prefixes(node);
        let own = [node];
        let serving: &[u16] = if announced.contains(&node) { &own } else { &announced };
        lines.push(route("", &prefix4, &gateways4(serving)));
        lines.push(route("-6 ", &prefix6, &gateways6(serving)));
    }
    lines
}

fn route(family: &str, prefix: &str, gateways: &[String]) -> String {
    match gateways {
        // The router has no default route: what nobody serves is refused at once.
        [] => format!("{family}route flush exact {prefix}"),
        [gateway] => format!("{family}route replace {prefix} via {gateway} dev fabric"),
        _ => {
            let hops: String =
                gateways.iter().map(|gateway| format!(" nexthop via {gateway} dev fabric")).collect();
            format!("{family}route replace {prefix}{hops}")
        }
    }
}

fn gateways4(nodes: &[u16]) -> Vec<String> {
    nodes.iter().map(|&node| Host::Node(node).ipv4().to_string()).collect()
}

fn gateways6(nodes: &[u16]) -> Vec<String> {
    nodes.iter().map(|&node| Host::Node(node).ipv6().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_gateways_make_one_route_with_several_next_hops() {
        let line = route("-6 ", "fd00:9::1/128", &gateways6(&[1, 2]));
        assert_eq!(
            line,
            "-6 route replace fd00:9::1/128 nexthop via fd00:2::11 dev fabric nexthop via fd00:2::12 dev fabric"
        );
    }

    #[test]
    fn a_prefix_that_nobody_serves_has_no_route() {
        assert_eq!(route("", "10.9.0.1/32", &[]), "route flush exact 10.9.0.1/32");
    }
}
