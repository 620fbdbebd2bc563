//! What the nodes of a simulated cluster hold, and where that differs.

use super::cluster::Cluster;
use crate::id::NodeId;
use crate::sync::protocol::Tables;

impl Cluster<'_> {
    /// What a node holds and others should hold too: key, other half, owner and generation, sorted.
    pub fn picture(&self, node: usize) -> Vec<String> {
        let node = &self.nodes[node];
        let own = node.worker.node;
        let mut picture: Vec<String> = node
            .tables
            .iter()
            .filter(|(place, session)| {
                let unreported = !crate::session::told::is_told(session.last_sent)
                    || crate::session::tcp::is_closed(session.state);
                session.owner != NodeId(0)
                    && !(session.owner == own && unreported)
                    && node.tables.find(&session.client_key()).is_some_and(|held| held.place == *place)
            })
            .map(|(_, session)| {
                let (client, local) = (session.client_key(), session.local);
                format!("{client:?} by {local:?} owner {} generation {}", session.owner, session.generation)
            })
            .collect();
        picture.sort();
        picture
    }

    /// Where two nodes' pictures differ, if they do.
    pub fn difference(&self) -> Option<String> {
        let mut belonging = (0..self.nodes.len()).filter(|number| self.belongs[*number]);
        let one = belonging.next()?;
        let first = self.picture(one);
        belonging.find_map(|number| {
            let other = self.picture(number);
            if first == other {
                return None;
            }
            let only = |one: &[String], other: &[String]| {
                one.iter().filter(|line| !other.contains(line)).cloned().collect::<Vec<_>>()
            };
            Some(format!(
                "node {} alone: {:#?}\nnode {} alone: {:#?}",
                one + 1,
                only(&first, &other),
                number + 1,
                only(&other, &first)
            ))
        })
    }
}
