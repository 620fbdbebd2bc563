//! News of sessions, byte by byte, and what their fields may hold.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::dictionary::Dictionary;
use super::family::{WireAddress, any_port};
use super::{Brief, Ended, Refreshed, Remaining, Reported};
use crate::id::Generation;
use crate::session::SessionState;
use crate::sync::Reject;
use crate::sync::address;

/// An upsert.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct UpsertItem<const N: usize> {
    pub(super) client: [u8; N],
    pub(super) client_port: U16,
    pub(super) local_port: U16,
    pub(super) server: u8,
    pub(super) local: u8,
    pub(super) standing: Standing,
    pub(super) remaining: U16,
}

/// A delete.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DeleteItem<const N: usize> {
    pub(super) client: [u8; N],
    pub(super) client_port: U16,
    pub(super) service: u8,
    pub(super) standing: Standing,
}

/// A refresh.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RefreshItem<const N: usize> {
    pub(super) client: [u8; N],
    pub(super) client_port: U16,
    pub(super) service: u8,
    pub(super) standing: Standing,
    pub(super) remaining: U16,
}

const _: () = {
    assert!(size_of::<UpsertItem<4>>() == 13 && size_of::<UpsertItem<16>>() == 25);
    assert!(size_of::<DeleteItem<4>>() == 8 && size_of::<DeleteItem<16>>() == 20);
    assert!(size_of::<RefreshItem<4>>() == 10 && size_of::<RefreshItem<16>>() == 22);
};

/// A session's state in the lower four bits, its generation's lower four bits in the upper.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub(super) struct Standing(u8);

/// Bits of a generation that stand in the item.
const GENERATION_BITS: u32 = 4;

/// The states by their number on the wire, beginning with 1.
const STATES: [SessionState; 9] = {
    use SessionState::*;
    [
        UdpOneWay,
        UdpTwoWay,
        TcpSynReceived,
        TcpSynAcked,
        TcpEstablished,
        TcpFinFromClient,
        TcpFinFromServer,
        TcpTimeWait,
        TcpReset,
    ]
};

/// The upper bits of a generation, which a whole run has in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GenerationBase(u32);

impl GenerationBase {
    /// That of every generation below 16.
    pub(super) const ZERO: GenerationBase = GenerationBase(0);

    /// The upper bits of this generation.
    #[inline]
    pub(super) fn of(generation: Generation) -> GenerationBase {
        GenerationBase(generation.0 >> GENERATION_BITS)
    }

    /// From the wire.
    pub(super) fn from_bits(bits: u32) -> Option<GenerationBase> {
        (bits >> (u32::BITS - GENERATION_BITS) == 0).then_some(GenerationBase(bits))
    }

    /// As it stands on the wire.
    pub(super) fn to_bits(self) -> u32 {
        self.0
    }
}

impl Standing {
    #[inline]
    pub(super) fn new(state: SessionState, generation: Generation) -> Standing {
        let number = state as u8;
        let number = if number < 16 { number } else { number - 13 };
        Standing(number | (generation.0 as u8) << GENERATION_BITS)
    }

    #[inline]
    fn decode(self, base: GenerationBase) -> Result<(SessionState, Generation), Reject> {
        let number = usize::from(self.0 & 0x0f).wrapping_sub(1);
        let state = *STATES.get(number).ok_or(Reject::RecordField)?;
        Ok((state, Generation(base.0 << GENERATION_BITS | u32::from(self.0 >> GENERATION_BITS))))
    }
}

impl<const N: usize> UpsertItem<N>
where
    [u8; N]: WireAddress,
{
    #[inline(always)]
    pub(super) fn brief(self, base: GenerationBase, dictionary: &Dictionary<N>) -> Result<Brief<'_>, Reject> {
        let (state, generation) = self.standing.decode(base)?;
        let route = dictionary.routes.at(self.server)?;
        let local = dictionary.locals.at(self.local)?;
        if address::protocol_of(state) != route.protocol || self.local_port == U16::ZERO {
            return Err(Reject::RecordField);
        }
        Ok(Brief {
            generation,
            state,
            remaining_ms: Remaining::from_bits(self.remaining.get()).milliseconds(),
            client: self.client.to_unicast_words().ok_or(Reject::RecordField)?,
            client_port: self.client_port.get(),
            vip: &route.vip,
            local,
            local_port: self.local_port.get(),
            server: &route.server,
        })
    }

    #[inline]
    pub(super) fn decode(self, base: GenerationBase, dictionary: &Dictionary<N>) -> Result<Reported, Reject> {
        self.brief(base, dictionary).map(|brief| brief.reported())
    }
}

impl<const N: usize> DeleteItem<N>
where
    [u8; N]: WireAddress,
{
    #[inline]
    pub(super) fn decode(self, base: GenerationBase, dictionary: &Dictionary<N>) -> Result<Ended, Reject> {
        let (state, generation) = self.standing.decode(base)?;
        let service = dictionary.services.at(self.service)?;
        if address::protocol_of(state) != service.protocol {
            return Err(Reject::RecordField);
        }
        let client = any_port(self.client, self.client_port.get())?;
        Ok(Ended { generation, state, client, vip: service.vip })
    }
}

impl<const N: usize> RefreshItem<N>
where
    [u8; N]: WireAddress,
{
    #[inline]
    pub(super) fn decode(
        self,
        base: GenerationBase,
        dictionary: &Dictionary<N>,
    ) -> Result<Refreshed, Reject> {
        let (state, generation) = self.standing.decode(base)?;
        let service = dictionary.services.at(self.service)?;
        if address::protocol_of(state) != service.protocol {
            return Err(Reject::RecordField);
        }
        let remaining_ms = Remaining::from_bits(self.remaining.get()).milliseconds();
        let client = any_port(self.client, self.client_port.get())?;
        Ok(Refreshed { generation, state, remaining_ms, client, vip: service.vip })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_generation_share_a_byte_without_loss() {
        for state in STATES {
            for generation in [0, 1, 15, 16, 255, 0x1234_5678, u32::MAX].map(Generation) {
                let base = GenerationBase::of(generation);
                assert_eq!(Standing::new(state, generation).decode(base), Ok((state, generation)));
                assert_eq!(GenerationBase::from_bits(base.to_bits()), Some(base));
            }
        }
        assert_eq!(GenerationBase::from_bits(0x1000_0000), None);
    }

    #[test]
    fn every_state_has_a_number_and_no_other_number_is_a_state() {
        let known = (0..=u8::MAX).filter_map(SessionState::from_number);
        assert!(known.eq(STATES));
        for number in [0, 10, 11, 12, 13, 14, 15] {
            assert_eq!(Standing(number).decode(GenerationBase(0)), Err(Reject::RecordField));
        }
    }
}
