//! The key file's text: read, and written.

use std::fmt::Write;

use zeroize::Zeroizing;

use super::{KEYS_MAX, KeyFile, KeyFileError, KeyUse, SECRET_BYTES, Secret, SyncKey};
use crate::id::KeyId;

/// What stands at the head of a file that is written.
const HEADING: &str = "\
# Keys of Baton's sync protocol. Secret: mode 0600, the same keys on every node of the cluster.
# All of them open what peers send; the one with `seal` seals what this node sends. To change keys without a gap:
# `batonctl key add`, copy to every node and restart baton-sync; `batonctl key use`, copy and restart; `batonctl key remove`,
# copy and restart.
# id use  256 bits in hex
";

impl KeyFile {
    /// Reads `text`; `name` is what messages call it.
    ///
    /// # Errors
    /// `Line` or `Set`.
    pub fn parse(text: &str, name: &str) -> Result<KeyFile, KeyFileError> {
        let mut keys: Vec<SyncKey> = Vec::new();
        for (position, line) in text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or_default();
            if content.trim().is_empty() {
                continue;
            }
            let wrong = |(found, expected): (String, &'static str)| KeyFileError::Line {
                name: name.to_owned(),
                line: position + 1,
                found,
                expected,
            };
            let key = key_of(content).map_err(wrong)?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(wrong((format!("key {} a second time", key.id), "a number of its own for each")));
            }
            if let Some(other) = keys.iter().find(|other| other.secret == key.secret) {
                return Err(wrong((
                    format!("the same bits as key {} has", other.id),
                    "other bits for each key: `batonctl key add` makes them",
                )));
            }
            keys.push(key);
        }
        let sealing = keys.iter().filter(|key| key.usage == KeyUse::Seal).count();
        let wrong =
            |found: String, expected| Err(KeyFileError::Set { name: name.to_owned(), found, expected });
        match (keys.len(), sealing) {
            (0, _) => wrong("no key".to_owned(), "at least one: `batonctl key new` makes a file"),
            (1..=KEYS_MAX, 1) => Ok(KeyFile { keys }),
            (1..=KEYS_MAX, _) => wrong(format!("{sealing} keys with `seal`"), "exactly one"),
            (count, _) => wrong(format!("{count} keys"), "at most 16: take away what no node uses"),
        }
    }

    /// The text of a file with these keys.
    pub fn text(&self) -> Zeroizing<String> {
        let longest = HEADING.len() + self.keys.len() * (2 * SECRET_BYTES + 16);
        // Room for all of it, so that no half of it is left behind in memory by growing.
        let mut text = Zeroizing::new(String::with_capacity(longest));
        text.push_str(HEADING);
        for key in &self.keys {
            let usage = match key.usage {
                KeyUse::Seal => "seal",
                KeyUse::Open => "open",
            };
            // Writing into a string cannot fail.
            let _ = write!(text, "{:<4} {usage} ", key.id);
            for byte in key.secret.bytes() {
                let _ = write!(text, "{byte:02x}");
            }
            text.push('\n');
        }
        text
    }
}

/// The key of a line; what was found and expected if it is none.
fn key_of(line: &str) -> Result<SyncKey, (String, &'static str)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [id, usage, digits] = words.as_slice() else {
        return Err((
            format!("{} words", words.len()),
            "three: a number, `seal` or `open`, and 64 hexadecimal digits",
        ));
    };
    let id = match id.parse::<u8>() {
        Ok(id @ 1..) => KeyId(id),
        _ => return Err(("no key number in the first place".to_owned(), "1..=255")),
    };
    let usage = match *usage {
        "seal" => KeyUse::Seal,
        "open" => KeyUse::Open,
        _ => return Err((format!("another word behind key {id}"), "`seal` or `open`")),
    };
    Ok(SyncKey { id, usage, secret: secret_of(digits)? })
}

fn secret_of(digits: &str) -> Result<Secret, (String, &'static str)> {
    const EXPECTED: &str = "64 hexadecimal digits";
    if digits.len() != 2 * SECRET_BYTES {
        return Err((format!("a key of {} digits", digits.len()), EXPECTED));
    }
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(("a key with other characters than digits".to_owned(), EXPECTED));
        };
        *byte = (high << 4 | low) as u8;
    }
    if bytes.iter().all(|byte| *byte == bytes[0]) {
        return Err(("a key whose bytes are all the same".to_owned(), "256 random bits"));
    }
    Ok(Secret(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const TWO: &str = "f00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1F";

    fn parse(text: &str) -> Result<KeyFile, String> {
        KeyFile::parse(text, "keys").map_err(|error| error.to_string())
    }

    #[test]
    fn keys_stand_one_a_line_between_comments() {
        let file = parse(&format!("# ours\n\n  1 open {ONE} # old\n\t255  seal {TWO}\r\n")).unwrap();

        let keys: Vec<_> = file.keys().iter().map(|key| (key.id.0, key.usage)).collect();
        assert_eq!(keys, [(1, KeyUse::Open), (255, KeyUse::Seal)]);
        assert_eq!(file.sealing().id, KeyId(255));
        assert_eq!(*file.keys()[0].secret.bytes(), std::array::from_fn(|at| at as u8));
        assert_eq!(file.sealing().secret.bytes()[0], 0xf0);
    }

    #[test]
    fn each_mistake_is_told_with_its_line_and_without_the_key() {
        let good = format!("1 seal {ONE}");
        let cases = [
            (format!("{good}\n2 open\n"), "keys:2: found 2 words, expected three"),
            (format!("0 seal {ONE}"), "keys:1: found no key number in the first place, expected 1..=255"),
            (format!("256 seal {ONE}"), "expected 1..=255"),
            (format!("-1 seal {ONE}"), "expected 1..=255"),
            (format!("{ONE} seal 1"), "keys:1: found no key number"),
            (format!("\n1 send {ONE}"), "keys:2: found another word behind key 1, expected `seal` or `open`"),
            (format!("1 seal {}", &ONE[1..]), "found a key of 63 digits, expected 64"),
            (format!("1 seal {ONE}0"), "found a key of 65 digits"),
            (format!("1 seal {}", ONE.replace('f', "g")), "other characters"),
            (format!("1 seal +{}", &ONE[1..]), "other characters"),
            (format!("1 seal {}", "ab".repeat(32)), "all the same, expected 256 random bits"),
            (format!("{good}\n1 open {TWO}"), "keys:2: found key 1 a second time"),
            (format!("{good}\n2 open {}", ONE.to_uppercase()), "keys:2: found the same bits as key 1 has"),
            (String::new(), "keys: found no key"),
            (format!("1 open {ONE}"), "keys: found 0 keys with `seal`, expected exactly one"),
            (format!("{good}\n2 seal {TWO}"), "keys: found 2 keys with `seal`"),
        ];
        for (text, part) in cases {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(part), "{error:?} does not contain {part:?}");
            assert!(!error.to_lowercase().contains("0a0b0c"), "{error}");
        }
        let many: String = (1..=17).map(|id| format!("{id} open {id:02x}{}\n", &ONE[2..])).collect();
        assert!(parse(&many.replacen("open", "seal", 1)).unwrap_err().contains("found 17 keys"));
    }

    #[test]
    fn nothing_shows_a_key() {
        let file = parse(&format!("1 seal {ONE}")).unwrap();
        assert!(!format!("{file:?}").contains("0, 1, 2"), "{file:?}");
        assert!(format!("{file:?}").contains("Secret(…)"));
    }

    #[test]
    fn new_keys_only_open_until_they_are_told_to_seal() {
        let mut file = KeyFile::generate().unwrap();
        assert_eq!(file.add().unwrap(), KeyId(2));
        assert_eq!(file.sealing().id, KeyId(1));
        assert_ne!(file.keys()[0].secret, file.keys()[1].secret);

        file.seal_with(KeyId(2)).unwrap();
        assert_eq!(file.sealing().id, KeyId(2));
        assert!(file.remove(KeyId(2)).unwrap_err().to_string().contains("key 2 seals"));
        file.remove(KeyId(1)).unwrap();
        assert!(file.remove(KeyId(1)).unwrap_err().to_string().contains("no key 1"));
        assert!(file.seal_with(KeyId(1)).is_err());

        assert_eq!(file.keys().len(), 1);
        assert_eq!(file.add().unwrap(), KeyId(3), "a number is not given again while a later one is in use");
    }

    #[test]
    fn a_full_file_takes_no_more_keys() {
        let mut file = KeyFile::generate().unwrap();
        for _ in 1..KEYS_MAX {
            file.add().unwrap();
        }
        assert!(file.add().is_err());
        assert_eq!(KeyFile::parse(&file.text(), "x").unwrap(), file);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(ids in proptest::collection::btree_set(1u8.., 1..KEYS_MAX), seals in any::<prop::sample::Index>()) {
            let seals = seals.index(ids.len());
            let keys = ids.iter().enumerate().map(|(at, id)| SyncKey {
                id: KeyId(*id),
                usage: if at == seals { KeyUse::Seal } else { KeyUse::Open },
                secret: Secret::new(std::array::from_fn(|byte| id.wrapping_mul(31).wrapping_add(byte as u8))),
            });
            let file = KeyFile { keys: keys.collect() };
            prop_assert_eq!(KeyFile::parse(&file.text(), "x").unwrap(), file);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}\n?\\PC{0,80}") {
            let _ = KeyFile::parse(&text, "x");
        }
    }
}
