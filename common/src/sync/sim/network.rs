//! The simulated network: it loses, doubles, delays, reorders and cuts one way.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::random::Random;

/// How bad the network is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Datagrams lost, millionths.
    pub loss: u32,
    /// Datagrams that come twice, millionths.
    pub duplicates: u32,
    /// Longest delay, microseconds.
    pub delay_us: u64,
    /// Transmissions that find the queue full, millionths.
    pub full: u32,
}

/// A datagram on its way: when it arrives, in which order it was sent, from whom, to whom, and what it says.
type Flying = Reverse<(u64, u64, usize, usize, Vec<u8>)>;

/// The network between the nodes.
pub struct Network {
    flying: BinaryHeap<Flying>,
    sent: u64,
    /// Until when a link is cut, from node to node.
    cut: Vec<Vec<u64>>,
    /// How bad it is now.
    pub weather: Weather,
    /// Most bytes that were on their way at a time.
    pub delivered: u64,
}

impl Network {
    /// A network between so many nodes.
    pub fn new(nodes: usize) -> Network {
        Network {
            flying: BinaryHeap::new(),
            sent: 0,
            cut: vec![vec![0; nodes]; nodes],
            weather: Weather::default(),
            delivered: 0,
        }
    }

    /// Sends; `false` if the queue is full.
    pub fn send(&mut self, now: u64, from: usize, to: usize, datagram: &[u8], random: &mut Random) -> bool {
        if random.chance(self.weather.full) {
            return false;
        }
        if self.cut[from][to] > now || random.chance(self.weather.loss) {
            return true;
        }
        let copies = 1 + u32::from(random.chance(self.weather.duplicates));
        for _ in 0..copies {
            let delay = 50 + random.below(self.weather.delay_us.max(1));
            self.sent += 1;
            self.flying.push(Reverse((now + delay, self.sent, from, to, datagram.to_vec())));
        }
        true
    }

    /// The next datagram that has arrived.
    pub fn arrived(&mut self, now: u64) -> Option<(usize, usize, Vec<u8>)> {
        if self.flying.peek()?.0.0 > now {
            return None;
        }
        self.delivered += 1;
        self.flying.pop().map(|Reverse((_, _, from, to, datagram))| (from, to, datagram))
    }

    /// Cuts a link, one way.
    pub fn cut(&mut self, from: usize, to: usize, until: u64) {
        self.cut[from][to] = until;
    }

    /// Ends all cuts.
    pub fn heal(&mut self) {
        self.cut.iter_mut().for_each(|links| links.fill(0));
    }
}
