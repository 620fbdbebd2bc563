//! The datagrams that the UDP load sends and the echo server signs.
//!
//! ```text
//!  0      4      8          16         24          32
//!  | magic| flow | sequence | sent, ns | instance |
//! ```
//! Little-endian. `instance` is zero in a question and names the server process in an answer.

/// Bytes of a datagram.
pub const BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"BLud";

/// The content of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Which flow it belongs to.
    pub flow: u32,
    /// Its number in the flow, from 0.
    pub sequence: u64,
    /// When it was sent, nanoseconds since the load's start.
    pub sent_ns: u64,
    /// The server process that answered; 0 in a question.
    pub instance: u64,
}

impl Datagram {
    /// As bytes.
    pub fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.flow.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sent_ns.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.instance.to_le_bytes());
        bytes
    }

    /// From bytes; `None` if they are no such datagram.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| -> u64 {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let head = word(0).to_le_bytes();
        (head[..4] == MAGIC).then(|| Self {
            flow: u32::from_le_bytes([head[4], head[5], head[6], head[7]]),
            sequence: word(8),
            sent_ns: word(16),
            instance: word(24),
        })
    }
}

/// Writes the server's instance into a question; anything else stays as it is.
pub fn sign(bytes: &mut [u8], instance: u64) {
    if Datagram::decode(bytes).is_some() {
        bytes[24..32].copy_from_slice(&instance.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Datagram = Datagram { flow: 7, sequence: 1 << 40, sent_ns: 9, instance: 0 };

    #[test]
    fn a_datagram_comes_back_as_it_was() {
        assert_eq!(Datagram::decode(&QUESTION.encode()), Some(QUESTION));
    }

    #[test]
    fn a_signed_question_names_its_server() {
        let mut bytes = QUESTION.encode();
        sign(&mut bytes, 42);
        assert_eq!(Datagram::decode(&bytes), Some(Datagram { instance: 42, ..QUESTION }));
    }

    #[test]
    fn foreign_bytes_are_left_alone() {
        let mut bytes = *b"hello";
        sign(&mut bytes, 42);
        assert_eq!(&bytes, b"hello");
        assert_eq!(Datagram::decode(&bytes), None);
    }
}
