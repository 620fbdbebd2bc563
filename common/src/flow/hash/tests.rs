use std::collections::BTreeSet;

use super::*;
use crate::flow::{Address, Endpoint, Protocol};

/// A generator of test values: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}

fn hash_key(seed: u64) -> HashKey {
    let mut random = Random(seed);
    HashKey([random.next(), random.next()])
}

/// The key of a client towards 192.0.2.1:443, or towards 2001:db8::1 port 443.
fn key(client: Address, port: u16) -> FlowKey {
    let vip = match client.is_v4() {
        true => Address::v4([192, 0, 2, 1]),
        false => v6(1),
    };
    FlowKey {
        source: Endpoint { address: client, port },
        destination: Endpoint { address: vip, port: 443 },
        protocol: Protocol::Tcp,
    }
}

fn v4(number: u32) -> Address {
    Address::v4((0x0a00_0000 + number).to_be_bytes())
}

fn v6(low: u128) -> Address {
    Address::v6(((0x2001_0db8 << 96) + low).to_be_bytes())
}

/// All numbers with at most four bits set.
fn few_bits() -> Vec<u32> {
    let bits = || (0..33).map(|bit| (1_u64 << bit) as u32);
    let twos = || bits().flat_map(move |one| bits().map(move |two| one | two));
    let numbers: BTreeSet<u32> = twos().flat_map(|two| twos().map(move |other| two | other)).collect();
    numbers.into_iter().collect()
}

/// Sets of some 65,536 keys that differ as little, and as regularly, as a client or a network can have them.
fn structured() -> Vec<(&'static str, Vec<FlowKey>)> {
    let numbers = || 0..=u16::MAX;
    let bits_apart = few_bits();
    vec![
        ("ports of one IPv4 client", numbers().map(|n| key(v4(7), n)).collect()),
        ("ports of one IPv6 client", numbers().map(|n| key(v6(7), n)).collect()),
        ("sequential IPv4 clients", numbers().map(|n| key(v4(n.into()), 40_000)).collect()),
        ("sequential IPv6 clients", numbers().map(|n| key(v6(n.into()), 40_000)).collect()),
        ("sequential IPv6 networks", numbers().map(|n| key(v6(u128::from(n) << 64), 40_000)).collect()),
        ("sequential IPv4 clients and ports", numbers().map(|n| key(v4(n.into()), n)).collect()),
        (
            "IPv4 clients and ports a few bits apart",
            bits_apart.iter().map(|n| key(v4(n >> 8), (n & 0xff) as u16)).collect(),
        ),
        (
            "IPv6 clients a few bits apart",
            bits_apart.iter().map(|n| key(v6(u128::from(*n) << 48), 40_000)).collect(),
        ),
        (
            "both sides",
            numbers()
                .map(|n| {
                    let mut key = key(v4(u32::from(n) >> 8), 1024 + (n & 0xff));
                    key.destination.address = v4(0x10_0000 + (u32::from(n) & 15));
                    key
                })
                .collect(),
        ),
    ]
}

/// How far the counts are from what random numbers would give, in standard deviations of the chi-squared statistic.
fn deviation(counts: &[u32]) -> f64 {
    let mean = counts.iter().map(|count| f64::from(*count)).sum::<f64>() / counts.len() as f64;
    let squares: f64 = counts.iter().map(|count| (f64::from(*count) - mean).powi(2) / mean).sum();
    let freedom = counts.len() as f64 - 1.0;
    (squares - freedom) / (2.0 * freedom).sqrt()
}

/// The counts of what `place` makes of the hashes, `places` of them.
fn counts(hashes: &[u64], places: usize, place: impl Fn(u64) -> usize) -> Vec<u32> {
    let mut counts = vec![0; places];
    hashes.iter().for_each(|hash| counts[place(*hash)] += 1);
    counts
}

#[test]
fn hash_never_changes_for_a_key() {
    // Values of an independent implementation. The hash says where a session stands in a table file: other values take another LAYOUT_VERSION.
    let hasher = HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]).hasher();
    let mut udp = key(v4(1), 53);
    udp.protocol = Protocol::Udp;
    let hashes = [key(v4(1), 1024), key(v4(2), 1024), key(v6(1), 1024), udp].map(|key| hasher.hash(&key).0);
    if cfg!(target_endian = "little") {
        assert_eq!(
            hashes,
            [0x6bae_57b4_7283_ccd9, 0x3b48_e1be_c289_1d73, 0x4912_38bc_f87d_141b, 0xf2f7_699d_1b86_45c1],
            "{hashes:#018x?}"
        );
    }
    assert_eq!(
        hasher.hash_words(&udp.words()),
        HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]).hash(&udp)
    );
}

#[test]
fn every_hash_bit_flips_half_of_the_time_with_every_bit_of_a_key() {
    const SAMPLES: u32 = 4096;
    for seed in 0..4 {
        let (hasher, mut random) = (hash_key(seed).hasher(), Random(seed + 100));
        let samples: Vec<[u64; 5]> = (0..SAMPLES).map(|_| std::array::from_fn(|_| random.next())).collect();
        // Bit 3 to 7 of the last word stand for the protocol's; its upper 16 bits are never used.
        for bit in (0..4 * 64 + 48).filter(|bit| !(256..259).contains(bit)) {
            let mut flips = [0_u32; 64];
            for words in &samples {
                let mut other = *words;
                other[bit / 64] ^= 1 << (bit % 64);
                let changed = hasher.hash_words(words).0 ^ hasher.hash_words(&other).0;
                flips.iter_mut().enumerate().for_each(|(out, flips)| *flips += (changed >> out & 1) as u32);
            }
            for (out, flips) in flips.into_iter().enumerate() {
                let share = f64::from(flips) / f64::from(SAMPLES);
                assert!(
                    (share - 0.5).abs() < 0.06,
                    "seed {seed}: bit {bit} flips bit {out} in {share} of cases"
                );
            }
        }
    }
}

#[test]
fn structured_keys_spread_over_the_buckets_like_random_ones() {
    for seed in 0..8 {
        let hasher = hash_key(seed).hasher();
        for (name, keys) in structured() {
            let hashes: Vec<u64> = keys.iter().map(|key| hasher.hash(key).0).collect();
            for buckets in [16, 1000, 21_846] {
                let bucket = |half: u64| ((half * buckets as u64) >> 32) as usize;
                let low = deviation(&counts(&hashes, buckets, |hash| bucket(hash & 0xffff_ffff)));
                let high = deviation(&counts(&hashes, buckets, |hash| bucket(hash >> 32)));
                assert!(low.abs() < 6.0 && high.abs() < 6.0, "seed {seed}, {name}, {buckets}: {low} {high}");
            }
        }
    }
}

#[test]
fn tags_are_uniform_among_the_keys_of_a_bucket() {
    for seed in 0..8 {
        let hasher = hash_key(seed).hasher();
        for (name, keys) in structured() {
            let hashes: Vec<u64> = keys.iter().map(|key| hasher.hash(key).0).collect();
            for shift in [0, 32] {
                // Sixteen groups of buckets, by the upper bits of this half; tag bytes of this half and of the other.
                let group = |hash: u64| (hash >> (shift + 28) & 15) as usize;
                for tag_shift in [0, 32] {
                    let cells = counts(&hashes, 16 * 256, |hash| {
                        group(hash) << 8 | (hash >> tag_shift & 0xff) as usize
                    });
                    let deviation = deviation(&cells);
                    assert!(deviation.abs() < 6.0, "seed {seed}, {name}, {shift}, {tag_shift}: {deviation}");
                }
            }
            let both = counts(&hashes, 1 << 12, |hash| (hash & 63 | (hash >> 32 & 63) << 6) as usize);
            assert!(deviation(&both).abs() < 6.0, "seed {seed}, {name}: {}", deviation(&both));
        }
    }
}

#[test]
fn keys_that_share_a_bucket_under_one_key_do_not_under_another() {
    let (own, file) = (hash_key(1).hasher(), hash_key(2).hasher());
    let buckets = 1000;
    let bucket = |hash: u64| ((hash & 0xffff_ffff) * buckets) >> 32;
    let colliding =
        (0..).map(|n: u32| key(v4(n >> 16), n as u16)).filter(|key| bucket(own.hash(key).0) == 0).take(5000);
    let hashes: Vec<u64> = colliding.map(|key| file.hash(&key).0).collect();
    let spread = deviation(&counts(&hashes, buckets as usize, |hash| bucket(hash) as usize));
    assert!(spread.abs() < 6.0, "{spread}");
}
