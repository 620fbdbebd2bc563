//! A digest of what must be configured the same on all members of a cluster.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};

use super::Config;

impl Config {
    /// Eight bytes of a SHA-256 over what must be the same on all members: services with their real servers, whatever the
    /// weights, and timeouts. Two members with different ones forward the same connection differently.
    pub fn cluster_digest(&self) -> u64 {
        let mut text = format!("{:?}\n", self.timeouts);
        for service in &self.services {
            let _ = write!(text, "{:?} {:?}:", service.vip, service.protocol);
            let mut endpoints: Vec<_> = service.real_servers.iter().map(|server| server.endpoint).collect();
            endpoints.sort_unstable();
            let _ = writeln!(text, "{endpoints:?}");
        }
        let hash = digest(&SHA256, text.as_bytes());
        hash.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, SAMPLE};

    fn digest(from: &str, to: &str) -> u64 {
        assert!(SAMPLE.contains(from), "{from}");
        Config::parse(&SAMPLE.replacen(from, to, 1), "sample").unwrap().cluster_digest()
    }

    #[test]
    fn what_one_node_may_have_alone_is_not_in_it() {
        let sample = digest("id: 1", "id: 1");
        assert_eq!(digest("name: \"lb1\"", "name: \"lb9\""), sample);
        assert_eq!(digest("weight: 2", "weight: 7"), sample);
        assert_ne!(digest("udp_ms: 60000", "udp_ms: 60001"), sample);
        assert_ne!(digest("192.0.2.12:8080", "192.0.2.13:8080"), sample);
        assert_ne!(digest("203.0.113.1:53", "203.0.113.1:54"), sample);
    }
}
