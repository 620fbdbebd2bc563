//! Namespaces, interfaces and addresses of a lab.
//!
//! ```text
//!  c1 ── router ── fabric bridge ── n1: up0 ─ br0 ─ lb0 (Baton's port)      punt0 (the kernel's side of Baton)
//!          │                   └─── n2: …
//!          └────── servers bridge ── s1, s2, db
//! ```

use std::path::Path;

use anyhow::{Context, Result};

use crate::command::{ip_in, run};
use crate::host::Host;
use crate::impair;
use crate::netns;
use crate::state::Lab;

/// Where the kernel's br_netfilter is loaded, bridges must not look into the packets they carry: they would drop bad ones and
/// put fragments together before Baton sees them.
const BRIDGE_SETTINGS: [&str; 3] = [
    "net.bridge.bridge-nf-call-iptables=0",
    "net.bridge.bridge-nf-call-ip6tables=0",
    "net.bridge.bridge-nf-call-arptables=0",
];

/// A sender gives each of its packets a hash, which virtual links carry to the router and by which the router chooses the node. By
/// default it changes when a packet is sent again, as if a connection changed its ports: a router that takes its hash
/// from the packet itself, as real ones do, sends every packet of a connection the same way.
const KEEP_HASH: &str = "net.core.txrehash=0";

/// Makes everything that has a network namespace, with the router's routes to every node.
///
/// # Errors
/// If a command fails; what was made until then stays for `down` to remove.
pub fn build(lab: &Lab) -> Result<()> {
    for host in lab.shape.hosts() {
        let netns = lab.netns(host);
        netns::add(&netns)?;
        settings(&netns, host).with_context(|| format!("settings of {host}"))?;
    }
    router(lab).context("router")?;
    for host in lab.shape.hosts() {
        match host {
            Host::Router => Ok(()),
            Host::Node(number) => node(lab, number),
            Host::Server(_) | Host::Database => server(lab, host),
            Host::Client(number) => client(lab, number),
        }
        .with_context(|| format!("interfaces of {host}"))?;
    }
    Ok(())
}

/// Kernel settings of a namespace, before it has interfaces.
fn settings(netns: &str, host: Host) -> Result<()> {
    let mut settings = vec![
        // Addresses must be usable at once: nobody else has them.
        "net.ipv6.conf.all.accept_dad=0",
        "net.ipv6.conf.default.accept_dad=0",
        "net.ipv6.conf.default.accept_ra=0",
        "net.ipv6.conf.default.router_solicitations=0",
        // A node's answers may leave through another interface than the question came in by.
        "net.ipv4.conf.all.rp_filter=0",
        "net.ipv4.conf.default.rp_filter=0",
        "net.ipv4.ping_group_range=0 2147483647",
    ];
    match host {
        Host::Router => settings.extend([
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            // Connections, not addresses, are spread over the nodes.
            "net.ipv4.fib_multipath_hash_policy=1",
            "net.ipv6.fib_multipath_hash_policy=1",
            // The router tells clients nothing that a real one would not have to.
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.default.send_redirects=0",
        ]),
        Host::Client(_) => settings.extend(["net.ipv4.ip_local_port_range=10000 65000"]),
        Host::Server(_) | Host::Database => settings.extend(["net.core.somaxconn=8192"]),
        // The bridge that carries Baton's port must not answer for the addresses of the punt interface: whoever believed
        // it would send past Baton.
        Host::Node(_) => settings.extend(["net.ipv4.conf.all.arp_ignore=1"]),
    }
    netns::inside(netns, || {
        if Path::new("/proc/sys/net/bridge").exists() {
            settings.extend(BRIDGE_SETTINGS);
        }
        if Path::new("/proc/sys/net/core/txrehash").exists() {
            settings.push(KEEP_HASH);
        }
        for setting in settings {
            run("sysctl", &["-q", "-w", setting])?;
        }
        Ok(())
    })
}

fn router(lab: &Lab) -> Result<()> {
    let netns = lab.netns(Host::Router);
    for (bridge, mac, ipv4, ipv6) in [
        ("fabric", "02:ba:70:01:00:01", "10.2.0.1/24", "fd00:2::1/64"),
        ("servers", "02:ba:70:01:00:02", "10.3.0.1/24", "fd00:3::1/64"),
    ] {
        // A link-layer address of its own: otherwise it is that of a port and changes as ports come and go. No multicast
        // snooping: neighbour discovery must reach every port from the first packet on.
        ip_in(
            &netns,
            &format!(
                "link add {bridge} address {mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
            ),
        )?;
        ip_in(&netns, &format!("link set {bridge} up"))?;
        ip_in(&netns, &format!("addr add {ipv4} dev {bridge}"))?;
        ip_in(&netns, &format!("addr add {ipv6} dev {bridge} nodad"))?;
    }
    Ok(())
}

/// A node: Baton's port `lb0` on a bridge with the uplink, and the kernel's side `punt0`. Both are taps that outlive
/// the processes that open them, so that a restarted primary finds addresses, routes and bridge as they were.
fn node(lab: &Lab, number: u16) -> Result<()> {
    let host = Host::Node(number);
    let netns = lab.netns(host);
    let router = lab.netns(Host::Router);
    let mac = Host::mac(number);
    ip_in(&netns, "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
    ip_in(&netns, &format!("link add up0 type veth peer name {host} netns {router}"))?;
    ip_in(&router, &format!("link set {host} master fabric up"))?;
    ip_in(&netns, "tuntap add dev lb0 mode tap multi_queue")?;
    ip_in(&netns, "tuntap add dev punt0 mode tap")?;
    // The kernel keeps 1000 packets for a tap by default, a few milliseconds of load; a worker that shares its CPU with
    // the whole lab may be away for longer.
    ip_in(&netns, "link set lb0 txqueuelen 10000")?;
    netns::inside(&netns, || {
        // The kernel has no address on these; without this it would speak IPv6 for itself there.
        for interface in ["br0", "up0", "lb0"] {
            run("sysctl", &["-q", "-w", &format!("net.ipv6.conf.{interface}.disable_ipv6=1")])?;
        }
        Ok(())
    })?;
    for interface in ["up0", "lb0"] {
        ip_in(&netns, &format!("link set {interface} master br0 up"))?;
    }
    ip_in(&netns, "link set br0 up")?;
    ip_in(&netns, &format!("link set punt0 address {mac} up"))?;
    ip_in(&netns, &format!("addr add {}/24 dev punt0", host.ipv4()))?;
    ip_in(&netns, &format!("addr add {}/32 dev punt0", Host::sync_address(number)))?;
    ip_in(&netns, &format!("addr add {}/64 dev punt0 nodad", host.ipv6()))?;
    ip_in(&netns, &format!("route add default via {} dev punt0", Host::Router.ipv4()))?;
    ip_in(&netns, &format!("-6 route add default via {} dev punt0", Host::Router.ipv6()))?;
    impair::prepare(lab, number);
    Ok(())
}

fn server(lab: &Lab, host: Host) -> Result<()> {
    let netns = lab.netns(host);
    let router = lab.netns(Host::Router);
    ip_in(&netns, &format!("link add eth0 type veth peer name {host} netns {router}"))?;
    ip_in(&router, &format!("link set {host} master servers up"))?;
    addresses(&netns, host, "10.3.0.1", "fd00:3::1")
}

fn client(lab: &Lab, number: u16) -> Result<()> {
    let host = Host::Client(number);
    let netns = lab.netns(host);
    let router = lab.netns(Host::Router);
    ip_in(&netns, &format!("link add eth0 type veth peer name {host} netns {router}"))?;
    ip_in(&router, &format!("link set {host} up"))?;
    ip_in(&router, &format!("addr add 10.1.{number}.1/24 dev {host}"))?;
    ip_in(&router, &format!("addr add fd00:1:{number}::1/64 dev {host} nodad"))?;
    addresses(&netns, host, &format!("10.1.{number}.1"), &format!("fd00:1:{number}::1"))
}

/// The one interface of a server or client, its addresses and default routes.
fn addresses(netns: &str, host: Host, gateway4: &str, gateway6: &str) -> Result<()> {
    ip_in(netns, "link set eth0 up")?;
    ip_in(netns, &format!("addr add {}/24 dev eth0", host.ipv4()))?;
    ip_in(netns, &format!("addr add {}/64 dev eth0 nodad", host.ipv6()))?;
    ip_in(netns, &format!("route add default via {gateway4}"))?;
    ip_in(netns, &format!("-6 route add default via {gateway6}"))?;
    Ok(())
}
