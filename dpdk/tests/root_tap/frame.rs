//! Turns a UDP packet round, so that it goes back to where it came from.

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const UDP: u8 = 17;

/// Makes the frame an answer whose payload's first byte is `tag`, from `mac`. `None` if it is no UDP packet to `mac`.
pub fn turn_round(frame: &mut [u8], mac: [u8; 6], tag: u8) -> Option<()> {
    let (ethernet, packet) = frame.split_at_mut_checked(14)?;
    if ethernet[..6] != mac {
        return None;
    }
    let (protocol, addresses, header_len) = match [ethernet[12], ethernet[13]] {
        ETHERTYPE_IPV4 => (*packet.get(9)?, 12..20, usize::from(packet[0] & 0x0f) * 4),
        ETHERTYPE_IPV6 => (*packet.get(6)?, 8..40, 40),
        _ => return None,
    };
    if protocol != UDP || packet.len() < header_len + 9 {
        return None;
    }
    ethernet.copy_within(6..12, 0);
    ethernet[6..12].copy_from_slice(&mac);
    let (header, datagram) = packet.split_at_mut(header_len);
    let addresses = &mut header[addresses];
    let half = addresses.len() / 2;
    addresses.rotate_left(half);
    let length = usize::from(u16::from_be_bytes([datagram[4], datagram[5]]));
    let datagram = datagram.get_mut(..length)?;
    datagram[..4].rotate_left(2);
    datagram[8] = tag;
    datagram[6..8].fill(0);
    let sum = udp_checksum(addresses, datagram);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// The checksum over the pseudo header and the datagram (RFC 768; RFC 8200, section 8.1).
fn udp_checksum(addresses: &[u8], datagram: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from)).sum()
    };
    let mut sum = words(addresses) + u32::from(UDP) + datagram.len() as u32 + words(datagram);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        0 => 0xffff,
        sum => sum,
    }
}
