//! What of the frames on the secondary's queue is a sync datagram, and what is somebody else's.

use baton_common::counter::Counter;
use baton_common::flow::Endpoint;
use baton_common::packet::{Malformed, OpenError, UdpDatagram};

/// Why a packet is not given to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No sync datagram at all.
    Foreign,
    /// Perhaps a sync datagram once, but damaged.
    Damaged,
}

impl Refused {
    /// The counter that counts it.
    pub fn counter(self) -> Counter {
        match self {
            Refused::Foreign => Counter::SyncRxForeign,
            Refused::Damaged => Counter::SyncRejectChecksum,
        }
    }
}

/// The datagram, if it is one for `own`: the sync address and port of this secondary.
pub fn accept<'a>(
    opened: Result<UdpDatagram<'a>, OpenError>,
    own: Endpoint,
) -> Result<UdpDatagram<'a>, Refused> {
    match opened {
        Ok(datagram) if datagram.destination == own => Ok(datagram),
        Ok(_) | Err(OpenError::NotUdp | OpenError::Fragment) => Err(Refused::Foreign),
        Err(OpenError::Length | OpenError::Checksum) => Err(Refused::Damaged),
        Err(OpenError::Malformed(Malformed::UdpLength | Malformed::UdpChecksumMissing)) => {
            Err(Refused::Damaged)
        }
        Err(OpenError::Malformed(_)) => Err(Refused::Foreign),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use baton_common::packet::{UdpPath, open_udp_frame};

    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<SocketAddr>().unwrap().into()
    }

    fn frame(destination: &str) -> Vec<u8> {
        let path = UdpPath {
            source_mac: [2; 6],
            next_hop_mac: [4; 6],
            source: endpoint("10.2.0.102:3784"),
            destination: endpoint(destination),
        };
        let mut frame = vec![0; 128];
        let length = path.write(&mut frame, b"hello").unwrap();
        frame.truncate(length);
        frame
    }

    #[test]
    fn only_whole_datagrams_to_the_own_address_and_port_are_accepted() {
        let own = endpoint("10.2.0.101:3784");
        let mut damaged = frame("10.2.0.101:3784");
        *damaged.last_mut().unwrap() ^= 1;

        let accepted =
            |frame: &[u8]| accept(open_udp_frame(frame), own).map(|datagram| datagram.payload.to_vec());

        assert_eq!(accepted(&frame("10.2.0.101:3784")), Ok(b"hello".to_vec()));
        assert_eq!(accepted(&frame("10.2.0.101:3785")), Err(Refused::Foreign));
        assert_eq!(accepted(&frame("10.2.0.103:3784")), Err(Refused::Foreign));
        assert_eq!(accepted(&damaged), Err(Refused::Damaged));
        assert_eq!(accepted(&damaged[..20]), Err(Refused::Foreign));
        assert_eq!(accepted(&[]), Err(Refused::Foreign));
    }
}
