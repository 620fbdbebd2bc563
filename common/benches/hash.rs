//! What a hash of a flow costs, and what it is worth: the candidates for the tables' keyed hash, side by side.
//!
//!     cargo bench -p baton-common --bench hash
//!
//! *alone*: nanoseconds a hash when each key is chosen by the hash before (what a single lookup waits for). *stream*:
//! nanoseconds a hash when hashes do not depend on each other (what a batch pays). *pair*: both keys of a session, in a
//! stream. *overflow*: entries of one client's 65,536 ports that find the ten slots of their bucket taken, in a table of
//! which they fill six of ten, divided by how many of random numbers do: the worst of 200 keys of the hash. One is as good
//! as random; a large number means that some key of the hash, sooner or later, is some operator's bad day.

use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;
use std::time::Instant;

use baton_common::flow::{Address, Endpoint, FlowHasher, FlowKey, HashKey, Protocol};

const KEYS: usize = 512;
const ROUNDS: usize = 4_000;
const TRIALS: usize = 9;
const PORTS: usize = 65_536;
const BUCKETS: usize = PORTS / 6;
const HASH_KEYS: u64 = 200;

/// One way to hash, ready with its key.
trait Candidate {
    const NAME: &'static str;
    fn with_key(key: HashKey) -> Self;
    fn hash(&self, key: &FlowKey) -> u64;
}

/// SipHash-1-3 of the crate `siphasher`.
struct SipCrate(HashKey);

impl Candidate for SipCrate {
    const NAME: &'static str = "SipHash-1-3, crate";
    fn with_key(key: HashKey) -> Self {
        SipCrate(key)
    }
    #[inline]
    fn hash(&self, key: &FlowKey) -> u64 {
        let mut hasher = siphasher::sip::SipHasher13::new_with_keys(self.0.0[0], self.0.0[1]);
        for word in key.words() {
            hasher.write_u64(word);
        }
        hasher.finish()
    }
}

/// SipHash-1-3 written out for five words.
struct SipInline(HashKey);

#[inline]
fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

impl Candidate for SipInline {
    const NAME: &'static str = "SipHash-1-3, five words";
    fn with_key(key: HashKey) -> Self {
        SipInline(key)
    }
    #[inline]
    fn hash(&self, key: &FlowKey) -> u64 {
        let [k0, k1] = self.0.0;
        let mut v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        for word in key.words().into_iter().chain([40 << 56]) {
            v[3] ^= word;
            sip_round(&mut v);
            v[0] ^= word;
        }
        v[2] ^= 0xff;
        for _ in 0..3 {
            sip_round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

/// HalfSipHash-1-3 (32-bit words), with 64 bits of output.
struct HalfSip(HashKey);

#[inline]
fn half_sip_round(v: &mut [u32; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(5) ^ v[0];
    v[3] = v[3].rotate_left(8) ^ v[2];
    v[0] = v[0].rotate_left(16);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[2];
    v[3] = v[3].rotate_left(7) ^ v[0];
    v[2] = v[2].rotate_left(16);
}

impl Candidate for HalfSip {
    const NAME: &'static str = "HalfSipHash-1-3";
    fn with_key(key: HashKey) -> Self {
        HalfSip(key)
    }
    #[inline]
    fn hash(&self, key: &FlowKey) -> u64 {
        let (k0, k1) = (self.0.0[0] as u32, (self.0.0[0] >> 32) as u32);
        let mut v = [k0, k1 ^ 0xee, k0 ^ 0x6c79_6765, k1 ^ 0x7465_6462];
        let words = key.words().into_iter().flat_map(|word| [word as u32, (word >> 32) as u32]);
        for word in words.chain([40 << 24]) {
            v[3] ^= word;
            half_sip_round(&mut v);
            v[0] ^= word;
        }
        v[2] ^= 0xee;
        let finish = |v: &mut [u32; 4]| {
            (0..3).for_each(|_| half_sip_round(v));
            u64::from(v[1] ^ v[3])
        };
        let low = finish(&mut v);
        v[1] ^= 0xdd;
        finish(&mut v) << 32 | low
    }
}

/// NH (Black and others, 1999): three products of sums in 128 bits, then a fold of one more.
struct NhFold([u64; 8]);

#[inline]
fn product(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = product(a, b);
    wide as u64 ^ (wide >> 64) as u64
}

#[inline]
fn nh(k: &[u64; 8], words: &[u64; 5]) -> u128 {
    let [s0, s1, d0, d1, ports] = *words;
    product(s0.wrapping_add(k[0]), s1.wrapping_add(k[1]))
        .wrapping_add(product(d0.wrapping_add(k[2]), d1.wrapping_add(k[3])))
        .wrapping_add(product(ports.wrapping_add(k[4]), k[5]))
}

fn secrets<const N: usize>(key: HashKey) -> [u64; N] {
    let sip = SipInline(key);
    std::array::from_fn(|number| sip.hash(&flow(0, number as u32, 0)))
}

impl Candidate for NhFold {
    const NAME: &'static str = "NH, folded product";
    fn with_key(key: HashKey) -> Self {
        NhFold(secrets(key))
    }
    #[inline]
    fn hash(&self, key: &FlowKey) -> u64 {
        let sum = nh(&self.0, &key.words());
        fold(sum as u64 ^ self.0[6], (sum >> 64) as u64 ^ self.0[7])
    }
}

/// NH, then the multilinear sum of its two words, and a mixer of `MIXER` multiplications; with one it is the choice.
struct NhMultilinear<const MIXER: u8>([u64; 8], [u128; 3]);

impl<const MIXER: u8> Candidate for NhMultilinear<MIXER> {
    const NAME: &'static str = match MIXER {
        0 => "NH, multilinear, none",
        _ => "NH, multilinear, two",
    };
    fn with_key(key: HashKey) -> Self {
        let wide = secrets::<14>(key);
        let pair = |n: usize| u128::from(wide[n]) << 64 | u128::from(wide[n + 1]);
        NhMultilinear(secrets(key), [pair(8), pair(10), pair(12)])
    }
    #[inline]
    fn hash(&self, key: &FlowKey) -> u64 {
        let sum = nh(&self.0, &key.words());
        let [a, b, c] = self.1;
        let linear = a
            .wrapping_mul(u128::from(sum as u64))
            .wrapping_add(b.wrapping_mul(u128::from((sum >> 64) as u64)))
            .wrapping_add(c);
        mixed::<MIXER>((linear >> 64) as u64)
    }
}

/// A word after a mixer of so many multiplications.
#[inline]
fn mixed<const MIXER: u8>(word: u64) -> u64 {
    match MIXER {
        0 => word,
        1 => {
            let word = (word ^ word >> 32).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ word >> 32
        }
        _ => mix(word),
    }
}

#[inline]
fn mix(mut word: u64) -> u64 {
    word ^= word >> 30;
    word = word.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word ^= word >> 27;
    word = word.wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// Folded products with secret words, as wyhash, rapidhash and the fallback of ahash are made.
struct Folded([u64; 8]);

impl Candidate for Folded {
    const NAME: &'static str = "folded products (wyhash)";
    fn with_key(key: HashKey) -> Self {
        Folded(secrets(key))
    }
    #[inline]
    fn hash(&self, key: &FlowKey) -> u64 {
        let ([s0, s1, d0, d1, ports], k) = (key.words(), &self.0);
        let addresses = fold(s0 ^ k[0], s1 ^ k[1]) ^ fold(d0 ^ k[2], d1 ^ k[3]);
        fold(fold(addresses ^ k[4], ports ^ k[5]) ^ k[6], k[7])
    }
}

/// The crate `foldhash`, its quality variant; its seed has 64 bits.
struct Foldhash(foldhash::quality::FixedState);

impl Candidate for Foldhash {
    const NAME: &'static str = "foldhash, crate";
    fn with_key(key: HashKey) -> Self {
        Foldhash(foldhash::quality::FixedState::with_seed(key.0[0] ^ key.0[1]))
    }
    #[inline]
    fn hash(&self, key: &FlowKey) -> u64 {
        let mut hasher = self.0.build_hasher();
        for word in key.words() {
            hasher.write_u64(word);
        }
        hasher.finish()
    }
}

/// The crate `rustc-hash`: no key at all, for the price of nothing but the hashing.
struct Fx;

impl Candidate for Fx {
    const NAME: &'static str = "FxHash, crate (no key)";
    fn with_key(_: HashKey) -> Self {
        Fx
    }
    #[inline]
    fn hash(&self, key: &FlowKey) -> u64 {
        let mut hasher = rustc_hash::FxHasher::default();
        for word in key.words() {
            hasher.write_u64(word);
        }
        hasher.finish()
    }
}

/// The multilinear sum over all five words.
struct Multilinear<const MIXER: u8>([u128; 6]);

impl<const MIXER: u8> Candidate for Multilinear<MIXER> {
    const NAME: &'static str = match MIXER {
        0 => "multilinear, none",
        1 => "multilinear, one",
        _ => "multilinear, two",
    };
    fn with_key(key: HashKey) -> Self {
        let words = secrets::<12>(key);
        Multilinear(std::array::from_fn(|n| u128::from(words[2 * n]) << 64 | u128::from(words[2 * n + 1])))
    }
    #[inline]
    fn hash(&self, key: &FlowKey) -> u64 {
        let words = key.words();
        let sum =
            (0..5).fold(self.0[5], |sum, n| sum.wrapping_add(self.0[n].wrapping_mul(u128::from(words[n]))));
        mixed::<MIXER>((sum >> 64) as u64)
    }
}

impl Candidate for FlowHasher {
    const NAME: &'static str = "FlowHasher (the choice)";
    fn with_key(key: HashKey) -> Self {
        FlowHasher::new(key)
    }
    #[inline]
    fn hash(&self, key: &FlowKey) -> u64 {
        FlowHasher::hash(self, key).0
    }
}

/// Client number `client`'s flow from `port`; `family` is 4 or 6.
fn flow(family: u8, client: u32, port: u16) -> FlowKey {
    let [a, b, c, d] = client.to_be_bytes();
    let address = |prefix: u8, low: [u8; 3]| match family {
        4 => Address::v4([prefix, low[0], low[1], low[2]]),
        _ => Address::v6([0x20, 1, 0xd, 0xb8, prefix, 0, 0, 0, 0, 0, 0, 0, 0, low[0], low[1], low[2]]),
    };
    FlowKey {
        source: Endpoint { address: address(10 ^ a, [b, c, d]), port },
        destination: Endpoint { address: address(192, [0, 2, 1]), port: 443 },
        protocol: Protocol::Tcp,
    }
}

fn keys(family: u8) -> Vec<FlowKey> {
    (0..KEYS as u32).map(|n| flow(family, n.wrapping_mul(0x9e37_79b9), n as u16 ^ 0x8123)).collect()
}

/// The best of the trials, in nanoseconds a hash.
fn best(hashes: usize, mut trial: impl FnMut()) -> f64 {
    let times = (0..TRIALS).map(|_| {
        let start = Instant::now();
        trial();
        start.elapsed().as_nanos() as f64 / hashes as f64
    });
    times.fold(f64::INFINITY, f64::min)
}

#[inline(never)]
fn alone<C: Candidate>(candidate: &C, keys: &[FlowKey; KEYS]) -> u64 {
    let mut hash = 0;
    for _ in 0..KEYS * ROUNDS {
        hash = candidate.hash(&keys[hash as usize % KEYS]);
    }
    hash
}

#[inline(never)]
fn stream<C: Candidate>(candidate: &C, keys: &[FlowKey; KEYS], hashes: &mut [u64; KEYS]) {
    for _ in 0..ROUNDS {
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = candidate.hash(key);
        }
        black_box(&mut *hashes);
    }
}

/// The overflow of one client's ports, the worst key's in relation to what random numbers give.
fn worst_overflow<C: Candidate>(family: u8) -> f64 {
    let overflow = |hashes: &mut dyn Iterator<Item = u64>, upper: bool| {
        let mut loads = vec![0_u32; BUCKETS];
        for hash in hashes {
            let half = if upper { hash >> 32 } else { hash & 0xffff_ffff };
            loads[((half * BUCKETS as u64) >> 32) as usize] += 1;
        }
        loads.iter().map(|load| load.saturating_sub(10)).sum::<u32>()
    };
    let random: u32 = (0..32)
        .map(|seed| overflow(&mut (0..PORTS as u64).map(|n| mix(mix(seed).wrapping_add(n << 20))), true))
        .sum();
    let worst = (0..HASH_KEYS)
        .map(|seed| {
            let candidate = C::with_key(HashKey([mix(seed + 1), mix(seed + 1000)]));
            let hashes = |upper| {
                overflow(&mut (0..PORTS).map(|port| candidate.hash(&flow(family, 1, port as u16))), upper)
            };
            hashes(true).max(hashes(false))
        })
        .max();
    f64::from(worst.unwrap_or(0)) / (f64::from(random) / 32.0)
}

fn report<C: Candidate>(wanted: &str) {
    if !C::NAME.contains(wanted) {
        return;
    }
    let candidate = C::with_key(HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]));
    let mut hashes = [0; KEYS];
    print!("| {:<24} |", C::NAME);
    for family in [4, 6] {
        let keys: &[FlowKey; KEYS] = &keys(family).try_into().unwrap();
        let alone = best(KEYS * ROUNDS, || {
            black_box(alone(&candidate, black_box(keys)));
        });
        let stream = best(KEYS * ROUNDS, || stream(&candidate, black_box(keys), &mut hashes));
        print!(
            " {alone:>5.1} | {stream:>6.1} | {:>5.1} | {:>8.1} |",
            2.0 * stream,
            worst_overflow::<C>(family)
        );
    }
    println!();
}

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    println!(
        "ns a hash                  | IPv4: alone, stream, pair, overflow   | IPv6: alone, stream, pair, overflow"
    );
    report::<SipCrate>(&wanted);
    report::<SipInline>(&wanted);
    report::<HalfSip>(&wanted);
    report::<Fx>(&wanted);
    report::<Foldhash>(&wanted);
    report::<Folded>(&wanted);
    report::<NhFold>(&wanted);
    report::<NhMultilinear<0>>(&wanted);
    report::<NhMultilinear<2>>(&wanted);
    report::<Multilinear<0>>(&wanted);
    report::<Multilinear<1>>(&wanted);
    report::<Multilinear<2>>(&wanted);
    report::<FlowHasher>(&wanted);
}
