//! The vocabulary: what the records of one family refer to, as a writer gathers it.

use zerocopy::IntoBytes;

use super::RecordType;
use super::entry::Entry;
use super::family::WireAddress;
use super::interner::{Interner, Mark};
use super::record::{RECORD_HEADER_BYTES, RecordHeader};
use crate::flow::{Endpoint, Protocol};

/// What the records of one family refer to.
#[derive(Debug)]
pub(super) struct Vocabulary<const N: usize> {
    services: Interner,
    servers: Interner,
    locals: Interner,
}

/// How far a vocabulary was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks([Mark; 3]);

/// A service, to be referred to.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceName(Entry);

/// A real server of a service and a local address, to be referred to.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteName<const N: usize> {
    service: ServiceName,
    server: [u8; N],
    server_port: u16,
    local: Entry,
}

impl ServiceName {
    /// `None` if the service is not of family `N`. So with the other names.
    #[inline]
    pub(super) fn new<const N: usize>(vip: &Endpoint, protocol: Protocol) -> Option<ServiceName>
    where
        [u8; N]: WireAddress,
    {
        let address = <[u8; N]>::from_address(&vip.address)?;
        Some(ServiceName(address.entry(vip.port, protocol as u8)))
    }
}

impl<const N: usize> RouteName<N>
where
    [u8; N]: WireAddress,
{
    #[inline]
    pub(super) fn new(
        vip: &Endpoint,
        protocol: Protocol,
        server: &Endpoint,
        local: &Endpoint,
    ) -> Option<RouteName<N>> {
        Some(RouteName {
            service: ServiceName::new::<N>(vip, protocol)?,
            server: <[u8; N]>::from_address(&server.address)?,
            server_port: server.port,
            local: <[u8; N]>::from_address(&local.address)?.entry(0, 0),
        })
    }
}

/// What is referred to by numbers.
pub(super) trait Name<const N: usize>: Copy {
    /// The numbers.
    type Numbers;

    /// The numbers of its entries, which are added to the vocabulary if they are new. `None` if a number is lacking; entries may
    /// have been added then.
    fn numbers(self, vocabulary: &mut Vocabulary<N>) -> Option<Self::Numbers>;
}

impl<const N: usize> Name<N> for ServiceName {
    type Numbers = u8;

    #[inline]
    fn numbers(self, vocabulary: &mut Vocabulary<N>) -> Option<u8> {
        vocabulary.services.intern(&self.0)
    }
}

impl<const N: usize> Name<N> for RouteName<N>
where
    [u8; N]: WireAddress,
{
    /// The real server's and the local address's.
    type Numbers = (u8, u8);

    #[inline]
    fn numbers(self, vocabulary: &mut Vocabulary<N>) -> Option<(u8, u8)> {
        let service = vocabulary.services.intern(&self.service.0)?;
        let server = vocabulary.servers.intern(&self.server.entry(self.server_port, service))?;
        Some((server, vocabulary.locals.intern(&self.local)?))
    }
}

impl<const N: usize> Vocabulary<N>
where
    [u8; N]: WireAddress,
{
    /// The most that it takes in a datagram for one record.
    pub(super) const BYTES_OF_ONE_RECORD_MAX: usize =
        3 * RECORD_HEADER_BYTES + 2 * <[u8; N]>::ENDPOINT.encoded_max() + <[u8; N]>::ADDRESS.encoded_max();

    pub(super) fn new() -> Vocabulary<N> {
        let endpoints = || Interner::new(<[u8; N]>::ENDPOINT);
        let locals = Interner::new(<[u8; N]>::ADDRESS);
        Vocabulary { services: endpoints(), servers: endpoints(), locals }
    }

    /// Bytes that it takes in the datagram.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        let bytes = |interner: &Interner| match interner.encoded().len() {
            0 => 0,
            entries => RECORD_HEADER_BYTES + entries,
        };
        bytes(&self.services) + bytes(&self.servers) + bytes(&self.locals)
    }

    /// Appends it to a datagram.
    pub(super) fn write(&self, datagram: &mut Vec<u8>) {
        let [services, servers, locals] = <[u8; N]>::DICTIONARIES;
        let kinds = [(services, &self.services), (servers, &self.servers), (locals, &self.locals)];
        for (kind, interner) in kinds {
            write_entries(kind, interner.encoded(), datagram);
        }
    }

    #[inline]
    pub(super) fn marks(&self) -> Marks {
        Marks([self.services.mark(), self.servers.mark(), self.locals.mark()])
    }

    /// Takes back what was added since the marks.
    pub(super) fn roll_back(&mut self, Marks([services, servers, locals]): Marks) {
        self.services.roll_back(services);
        self.servers.roll_back(servers);
        self.locals.roll_back(locals);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.services.clear();
        self.servers.clear();
        self.locals.clear();
    }
}

fn write_entries(kind: RecordType, entries: &[u8], datagram: &mut Vec<u8>) {
    if !entries.is_empty() {
        datagram.extend_from_slice(RecordHeader::new(kind, 0, entries.len()).as_bytes());
        datagram.extend_from_slice(entries);
    }
}
