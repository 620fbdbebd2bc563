//! Extensions: the optional fields at a record's end, each a type, a length and that many bytes.
//!
//! Version 1 defines none. A later sender may add some (sequence deltas of a rewritten stream, for one); the type's high bit
//! says whether a receiver that does not know it may apply the record without it.

use crate::sync::Reject;

/// Set in an extension's type if the record must not be applied by a receiver that does not know it.
const MANDATORY: u8 = 0x80;

/// Walks over a record's extensions, all of them unknown to this version. Returns how many were skipped.
///
/// # Errors
/// `Extension` if one must be understood, `RecordField` if one runs past the record.
pub(super) fn skip_all(mut bytes: &[u8]) -> Result<u16, Reject> {
    let mut skipped = 0;
    while let [kind, length, rest @ ..] = bytes {
        bytes = rest.get(usize::from(*length)..).ok_or(Reject::RecordField)?;
        if kind & MANDATORY != 0 {
            return Err(Reject::Extension);
        }
        skipped += 1;
    }
    if bytes.is_empty() { Ok(skipped) } else { Err(Reject::RecordField) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_extensions_are_skipped_and_counted() {
        assert_eq!(skip_all(&[]), Ok(0));
        assert_eq!(skip_all(&[1, 0, 0x7f, 2, 9, 9]), Ok(2));
    }

    #[test]
    fn a_mandatory_extension_is_not_skipped() {
        assert_eq!(skip_all(&[1, 0, 0x81, 0]), Err(Reject::Extension));
    }

    #[test]
    fn an_extension_ends_within_its_record() {
        assert_eq!(skip_all(&[1]), Err(Reject::RecordField));
        assert_eq!(skip_all(&[1, 1]), Err(Reject::RecordField));
        assert_eq!(skip_all(&[1, 0, 1]), Err(Reject::RecordField));
    }
}
