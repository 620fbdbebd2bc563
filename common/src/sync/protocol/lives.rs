//! Lives: a node that has lost its state begins a new one, whose number must be higher than any before it.
//!
//! The number is the wall clock's. A clock that was set back makes a lower one, and the peers refuse it: what comes under a lower number
//! may have been recorded long ago. But they tell the node which they have heard of it, and the node goes on in a life after that,
//! unless they had listened to its present one. An answer that was recorded and is played again puts it further ahead, or does nothing: a node
//! never goes back to a number that it had.

use super::inbox::Origin;
use super::mutation::Mutation;
use super::{CONTROL, Protocol, Tables, Turn, sealer_of};
use crate::counter::Counter;
use crate::sync::Reject;
use crate::sync::transmit::Transmit;
use crate::sync::wire::{Body, EpochHeard, Header};

/// What no clock shows for the next centuries: a number beyond it is nonsense, and would leave none to come after it.
const EPOCH_MAX: u64 = u64::MAX / 2;

impl Protocol<'_> {
    /// A datagram of an earlier life of its sender was refused. Nobody has opened it: it is only a reason to say once more with the
    /// next hello what is true anyway.
    pub(super) fn note_outdated(&mut self, datagram: &[u8]) {
        let Ok((header, _)) = Header::decode(datagram) else { return };
        let sender = (header.node, header.numa);
        if let Some(peer) = self.peers.iter_mut().find(|peer| (peer.node, peer.numa) == sender) {
            peer.is_outdated = true;
        }
    }

    /// Tells a peer which life of its was heard, if it seems to be in an earlier one.
    pub(super) fn tell_outdated<T: Tables, X: Transmit>(&mut self, at: usize, turn: &mut Turn<'_, T, X>) {
        let peer = &mut self.peers[at];
        let boot_epoch = peer.state.boot_epoch();
        if std::mem::take(&mut peer.is_outdated) && boot_epoch != 0 {
            let heard = Body::EpochHeard(EpochHeard { boot_epoch });
            self.courier.write(peer.addressee(), CONTROL, &heard, turn.out);
        }
    }

    /// A peer refuses this node for being in an earlier life than one that it has heard.
    pub(super) fn on_epoch_heard(&mut self, origin: &Origin, heard: &EpochHeard) -> Result<(), Reject> {
        if heard.boot_epoch >= EPOCH_MAX {
            return Err(Reject::RecordField);
        }
        // A peer that has given back what it held has listened to this life: then the later one is another machine's.
        let has_listened = self.peers[origin.peer].state.gave_back();
        if heard.boot_epoch > self.state.boot_epoch()
            && !has_listened
            && !self.breaks(Mutation::OutdatedStaySo)
        {
            let boot_epoch = self.state.begin_after(heard.boot_epoch);
            self.courier.begin_life(boot_epoch, sealer_of(&self.config, boot_epoch));
            self.count(Counter::LivesPutAhead);
        }
        Ok(())
    }
}
