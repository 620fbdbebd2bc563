//! The shared counters as metrics: `rx_packets` is `baton_rx_packets_total`, and counters that tell reasons are one family.

use super::exposition::{Exposition, MetricKind};
use crate::counter::{Counter, CounterBlock};

/// Which threads count a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// The workers, and the punt thread.
    Forwarding,
    /// The sync secondaries.
    Sync,
}

/// The threads' blocks, each with its labels.
pub type LabelledBlock<'a> = (Vec<(&'static str, String)>, &'a CounterBlock);

/// A metric family, and the counters that are its samples.
struct Family {
    name: String,
    help: String,
    members: Vec<Member>,
}

struct Member {
    counter: Counter,
    reason: Option<&'static str>,
    /// Whether there is a sample of it before anything was counted.
    is_expected: bool,
}

/// The families of all counters, as the metrics of one kind of thread.
pub struct CounterFamilies(Vec<Family>);

impl CounterFamilies {
    /// Those that these threads count are always there, so that a rate is known from the first event on; others are there
    /// when they are not zero, so that nothing that is counted goes unseen.
    pub fn new(counted: Counted) -> CounterFamilies {
        let mut families: Vec<Family> = Vec::new();
        for &counter in Counter::ALL {
            let (name, reason) = metric(counter);
            let member = Member { counter, reason, is_expected: is_counted_by(counter, counted) };
            match families.iter_mut().find(|family| family.name == name) {
                Some(family) => family.members.push(member),
                None => families.push(Family { help: help(counter), name, members: vec![member] }),
            }
        }
        CounterFamilies(families)
    }

    /// Writes what the blocks hold now.
    pub fn write(&self, to: &mut Exposition, blocks: &[LabelledBlock<'_>]) {
        for family in &self.0 {
            let mut begun = false;
            for member in &family.members {
                for (labels, block) in blocks {
                    let value = block.value(member.counter);
                    if value == 0 && !member.is_expected {
                        continue;
                    }
                    if !begun {
                        to.family(&family.name, MetricKind::Counter, &family.help);
                        begun = true;
                    }
                    let labels = labels.iter().map(|(name, value)| (*name, value.as_str()));
                    let reason = member.reason.map(|reason| ("reason", reason));
                    to.sample(&labels.chain(reason).collect::<Vec<_>>(), value);
                }
            }
        }
    }
}

/// The family of a counter, and the reason that tells it from the others there.
fn metric(counter: Counter) -> (String, Option<&'static str>) {
    let name = counter.name();
    if let Some(reason) = name.strip_prefix("drop_") {
        return ("baton_dropped_packets_total".into(), Some(reason));
    }
    if let Some(reason) = name.strip_prefix("sync_reject_") {
        return (format!("baton_sync_rejected_{}_total", counter.unit()), Some(reason));
    }
    (format!("baton_{name}_total"), None)
}

fn help(counter: Counter) -> String {
    match metric(counter).1 {
        None => format!("{} Unit: {}.", counter.help().trim(), counter.unit()),
        Some(_) if counter.name().starts_with("drop_") => {
            "Packets dropped, each for one reason: docs/operations.md tells them.".into()
        }
        Some(_) => {
            let unit = counter.unit();
            format!("Sync {unit} that were not believed, by reason: docs/operations.md tells them.")
        }
    }
}

fn is_counted_by(counter: Counter, counted: Counted) -> bool {
    let is_sync = (Counter::SyncTxDatagrams as u16..=Counter::OwnExpired as u16).contains(&(counter as u16));
    match counted {
        Counted::Forwarding => !is_sync,
        Counted::Sync => is_sync || counter == Counter::EmptyPolls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(counted: Counted, block: &CounterBlock) -> String {
        let mut exposition = Exposition::new();
        let labels = vec![("worker", "3".to_owned())];
        CounterFamilies::new(counted).write(&mut exposition, &[(labels, block)]);
        exposition.into_text()
    }

    #[test]
    fn a_counter_is_a_family_and_reasons_share_one() {
        let block = CounterBlock::new();
        block.add(Counter::RxPackets, 5);
        block.add(Counter::DropNotReady, 7);
        let text = text(Counted::Forwarding, &block);

        assert!(text.contains("\nbaton_rx_bytes_total{worker=\"3\"} 0\n"), "{text}");
        assert!(text.contains("baton_rx_packets_total{worker=\"3\"} 5\n"), "{text}");
        assert!(
            text.contains("baton_dropped_packets_total{worker=\"3\",reason=\"not_ready\"} 7\n"),
            "{text}"
        );
        assert_eq!(text.matches("# TYPE baton_dropped_packets_total counter").count(), 1);
        let drops = Counter::ALL.iter().filter(|counter| counter.name().starts_with("drop_")).count();
        assert_eq!(text.matches("\nbaton_dropped_packets_total{").count(), drops);
    }

    #[test]
    fn what_nobody_expects_is_there_when_it_is_counted_all_the_same() {
        let block = CounterBlock::new();
        assert!(!text(Counted::Forwarding, &block).contains("baton_sync_rejected"));
        assert!(!text(Counted::Sync, &block).contains("baton_rx_packets"));

        block.add(Counter::SyncRejectTag, 2);
        let found = text(Counted::Forwarding, &block);
        assert!(
            found.contains("baton_sync_rejected_datagrams_total{worker=\"3\",reason=\"tag\"} 2\n"),
            "{found}"
        );
        assert_eq!(found.matches("\nbaton_sync_rejected_datagrams_total{").count(), 1);
    }

    #[test]
    fn each_counter_is_expected_of_somebody_and_has_a_name_of_its_own() {
        let mut names = std::collections::BTreeSet::new();
        for &counter in Counter::ALL {
            assert!(names.insert(metric(counter)), "{}", counter.name());
            let expected = [Counted::Forwarding, Counted::Sync].map(|by| is_counted_by(counter, by));
            assert!(expected.contains(&true), "{}", counter.name());
        }
    }
}
