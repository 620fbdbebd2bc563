//! The tally of one worker: sessions created towards each real server.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::Service;
use crate::id::ServiceId;

/// Sessions created towards each real server of each service. Added to by its worker only, read by anyone.
#[derive(Debug)]
pub struct Tally {
    created: Vec<Vec<AtomicU64>>,
}

impl Tally {
    /// All zeros.
    pub fn new(services: &[Service]) -> Tally {
        let zeros = |service: &Service| service.real_servers.iter().map(|_| AtomicU64::new(0)).collect();
        Tally { created: services.iter().map(zeros).collect() }
    }

    /// Counts a session towards the real server at `position` of a service.
    #[inline]
    pub fn add(&self, service: ServiceId, position: usize) {
        if let Some(created) = self.at(service, position) {
            created.store(created.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Sessions so far towards the real server at `position` of a service.
    pub fn created(&self, service: ServiceId, position: usize) -> u64 {
        self.at(service, position).map_or(0, |created| created.load(Ordering::Relaxed))
    }

    #[inline]
    fn at(&self, service: ServiceId, position: usize) -> Option<&AtomicU64> {
        self.created.get(usize::from(service.0))?.get(position)
    }
}
