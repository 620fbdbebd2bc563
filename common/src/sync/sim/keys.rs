//! Simulated keys: key files that are changed node by node while the nodes talk.

use std::sync::Arc;

use crate::config::KeyFile;
use crate::sync::seal::Keyring;

/// What a key file says in the course of a change, as operators go about it: each step on all nodes before the next. Number
/// and use of each key.
const STEPS: [&[(u8, &str)]; 4] =
    [&[(1, "seal")], &[(1, "seal"), (2, "open")], &[(1, "open"), (2, "seal")], &[(2, "seal")]];

/// A change of keys under way.
pub struct KeyChange {
    steps: Vec<Arc<Keyring>>,
    /// How many steps each node has behind it.
    done: Vec<usize>,
}

impl KeyChange {
    /// A change that has not begun, on so many nodes.
    pub fn new(nodes: usize) -> KeyChange {
        let text = |keys: &[(u8, &str)]| -> String {
            keys.iter()
                .map(|(id, usage)| format!("{id} {usage} {:064x}\n", u32::from(*id) * 0x1234_5677))
                .collect()
        };
        let keyring = |keys: &&[(u8, &str)]| {
            let file = KeyFile::parse(&text(keys), "simulated").expect("these files are right");
            Arc::new(Keyring::new(&file))
        };
        KeyChange { steps: STEPS.iter().map(keyring).collect(), done: vec![0; nodes] }
    }

    /// The keys to begin with.
    pub fn first(&self) -> Arc<Keyring> {
        self.steps[0].clone()
    }

    /// The node that is next to get another key file, and what is in that; `None` when all have the last one.
    pub fn next(&mut self) -> Option<(usize, Arc<Keyring>)> {
        let least = *self.done.iter().min()?;
        let node = self.done.iter().position(|done| *done == least)?;
        let keyring = self.steps.get(least + 1)?.clone();
        self.done[node] += 1;
        Some((node, keyring))
    }
}
