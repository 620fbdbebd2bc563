//! The dictionary as a reader keeps it: what the records of one datagram refer to by number.

use super::entry::{Entry, Groups};
use super::family::{WireAddress, some_port};
use crate::flow::{Address, Endpoint, Protocol};
use crate::sync::Reject;

/// Entries of one kind that a datagram may have.
pub(super) const ENTRIES_MAX: usize = 256;

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) vip: Endpoint,
    pub(super) protocol: Protocol,
}

/// A real server of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) vip: Endpoint,
    pub(super) server: Endpoint,
    pub(super) protocol: Protocol,
}

/// The entries of one kind. An entry that means nothing keeps its number, so that the others keep theirs.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    entries: [Option<T>; ENTRIES_MAX],
    count: usize,
    previous: Entry,
}

impl<T: Copy> Numbered<T> {
    fn new() -> Numbered<T> {
        Numbered { entries: [None; ENTRIES_MAX], count: 0, previous: [0; 3] }
    }

    fn clear(&mut self) {
        self.count = 0;
        self.previous = [0; 3];
    }

    /// The entry with this number.
    #[inline]
    pub(super) fn at(&self, number: u8) -> Result<&T, Reject> {
        let number = usize::from(number);
        match &self.entries[number] {
            Some(entry) if number < self.count => Ok(entry),
            _ => Err(Reject::Reference),
        }
    }

    /// Takes the next entry out of `encoded`. What it means is up to `meaning`.
    fn read(
        &mut self,
        groups: Groups,
        encoded: &mut &[u8],
        meaning: impl FnOnce(&Entry) -> Option<T>,
    ) -> Result<(), Reject> {
        let Some((entry, rest)) = groups.decode(&self.previous, encoded) else {
            // Where the next one begins is not known.
            *encoded = &[];
            return Err(Reject::DictionaryEntry);
        };
        *encoded = rest;
        self.previous = entry;
        let slot = self.entries.get_mut(self.count).ok_or(Reject::DictionaryEntry)?;
        *slot = meaning(&entry);
        self.count += 1;
        if slot.is_some() { Ok(()) } else { Err(Reject::DictionaryEntry) }
    }
}

/// The dictionary of one family.
#[derive(Debug)]
pub(super) struct Dictionary<const N: usize> {
    pub(super) services: Numbered<Service>,
    pub(super) routes: Numbered<Route>,
    pub(super) locals: Numbered<Address>,
}

impl<const N: usize> Dictionary<N>
where
    [u8; N]: WireAddress,
{
    /// An empty dictionary.
    pub(super) fn new() -> Dictionary<N> {
        Dictionary { services: Numbered::new(), routes: Numbered::new(), locals: Numbered::new() }
    }

    /// Forgets all entries.
    pub(super) fn clear(&mut self) {
        self.services.clear();
        self.routes.clear();
        self.locals.clear();
    }

    /// Takes the next service out of `encoded`.
    ///
    /// # Errors
    /// This and the following: `DictionaryEntry`. If the entry was cut, `encoded` is empty then.
    pub(super) fn read_service(&mut self, encoded: &mut &[u8]) -> Result<(), Reject> {
        self.services.read(<[u8; N]>::ENDPOINT, encoded, |entry| {
            let (address, port, protocol) = <[u8; N]>::of_entry(entry);
            Some(Service { vip: some_port(address, port).ok()?, protocol: Protocol::from_number(protocol)? })
        })
    }

    /// Takes the next real server out of `encoded`.
    pub(super) fn read_server(&mut self, encoded: &mut &[u8]) -> Result<(), Reject> {
        let services = &self.services;
        self.routes.read(<[u8; N]>::ENDPOINT, encoded, |entry| {
            let (address, port, service) = <[u8; N]>::of_entry(entry);
            let Service { vip, protocol } = *services.at(service).ok()?;
            Some(Route { vip, server: some_port(address, port).ok()?, protocol })
        })
    }

    /// Takes the next local address out of `encoded`.
    pub(super) fn read_local(&mut self, encoded: &mut &[u8]) -> Result<(), Reject> {
        self.locals.read(<[u8; N]>::ADDRESS, encoded, |entry| {
            let (address, _, _) = <[u8; N]>::of_entry(entry);
            address.to_unicast()
        })
    }
}
