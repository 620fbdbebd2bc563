//! Ports: network devices that DPDK runs.
//!
//! [`Device::start`] makes a device a [`Port`], which deals out its queues. A secondary comes to the port of its primary
//! by [`Port::attach`].
//!
//! # Which process has which queue
//! Inside a process a queue is dealt out once. Between processes the configuration says whose it is: the primary
//! starts the port with the workers' queues first and one more per secondary, and takes only the workers'. Two
//! processes on one queue corrupt it. Only the primary starts, stops, or changes a port.

use std::ffi::c_uint;
use std::ptr;

use dpdk_sys::rte_eth_dev_info;

use crate::claim::Claim;
use crate::device::{Capabilities, Device, capabilities, device_limits, find_port};
use crate::eal::{Eal, ProcessType};
use crate::error::RteError;
use crate::queue::{RxQueue, TxQueue};

/// Why a port does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No device of that name.
    #[error("no device named {0}: give it to EAL as a vdev, or allow its PCI address")]
    NotFound(String),
    /// The device has fewer queues than asked for.
    #[error(
        "{device} has at most {rx_max} receive and {tx_max} transmit queues, {rx} and {tx} were asked for"
    )]
    TooManyQueues {
        /// The device.
        device: String,
        /// Receive queues asked for.
        rx: u16,
        /// Transmit queues asked for.
        tx: u16,
        /// Receive queues that it has.
        rx_max: u16,
        /// Transmit queues that it has.
        tx_max: u16,
    },
    /// Only the primary may do that.
    #[error("only the primary configures a port, this process is a secondary: use Port::attach")]
    NotPrimary,
    /// There is no such queue, or somebody has it.
    #[error("queue {queue} of {device} does not exist ({queues} are configured) or is taken in this process")]
    Queue {
        /// The device.
        device: String,
        /// The queue asked for.
        queue: u16,
        /// Queues of that direction.
        queues: u16,
    },
    /// A port cannot be stopped or configured while its queues or flow rules are in somebody's hands.
    #[error("queues or flow rules of {0} are still in use: drop them first")]
    InUse(String),
    /// The driver refused a step.
    #[error("{device}: {step} failed")]
    Driver {
        /// The device.
        device: String,
        /// What was tried.
        step: &'static str,
        /// What the driver said.
        source: RteError,
    },
}

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether it carries.
    pub up: bool,
    /// Megabits a second; 0 if there is none, `u32::MAX` if unknown.
    pub speed_mbps: u32,
}

/// What a port counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets that the device dropped because a queue was full.
    pub rx_missed: u64,
    /// Packets received with an error.
    pub rx_errors: u64,
    /// Packets not received for want of a buffer.
    pub rx_no_buffer: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
}

/// A running port.
#[derive(Debug)]
pub struct Port {
    id: u16,
    name: String,
}

impl Port {
    /// The port that a device became by its start.
    pub(crate) fn started(id: u16, name: String) -> Self {
        Self { id, name }
    }

    /// Finds the running port of this secondary's primary, by DPDK's name for it.
    ///
    /// The caller takes the queues that the configuration deals to this process, and no others.
    ///
    /// # Errors
    /// [`PortError::NotFound`].
    pub fn attach(_eal: &Eal, name: &str) -> Result<Self, PortError> {
        Ok(Self { id: find_port(name)?, name: name.to_owned() })
    }

    /// Takes the receive side of a queue.
    ///
    /// # Errors
    /// [`PortError::Queue`] if there is none of that number, or somebody in this process holds it.
    pub fn take_rx_queue(&self, queue: u16) -> Result<RxQueue, PortError> {
        let queues = self.limits()?.nb_rx_queues;
        let error = || PortError::Queue { device: self.name.clone(), queue, queues };
        if queue >= queues {
            return Err(error());
        }
        RxQueue::take(self.id, queue).ok_or_else(error)
    }

    /// Takes the transmit side of a queue.
    ///
    /// # Errors
    /// [`PortError::Queue`] if there is none of that number, or somebody in this process holds it.
    pub fn take_tx_queue(&self, queue: u16) -> Result<TxQueue, PortError> {
        let queues = self.limits()?.nb_tx_queues;
        let error = || PortError::Queue { device: self.name.clone(), queue, queues };
        if queue >= queues {
            return Err(error());
        }
        TxQueue::take(self.id, queue).ok_or_else(error)
    }

    /// DPDK's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is and can do.
    ///
    /// # Errors
    /// [`PortError::Driver`].
    pub fn capabilities(&self) -> Result<Capabilities, PortError> {
        capabilities(self.id, &self.name)
    }

    /// Its own MAC address: of a tap, the kernel side's.
    ///
    /// # Errors
    /// [`PortError::Driver`].
    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        let mut address = dpdk_sys::rte_ether_addr::default();
        // SAFETY: the port exists; the pointer is to an address of ours.
        let code = unsafe { dpdk_sys::rte_eth_macaddr_get(self.id, &mut address) };
        self.step("reading the MAC address", code)?;
        Ok(address.addr_bytes)
    }

    /// Its MTU, bytes.
    ///
    /// # Errors
    /// [`PortError::Driver`].
    pub fn mtu(&self) -> Result<u16, PortError> {
        let mut mtu = 0;
        // SAFETY: the port exists; the pointer is to an integer of ours.
        let code = unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.id, &mut mtu) };
        self.step("reading the MTU", code)?;
        Ok(mtu)
    }

    /// The state of its link, now.
    ///
    /// # Errors
    /// [`PortError::Driver`].
    pub fn link(&self) -> Result<Link, PortError> {
        let mut link = dpdk_sys::rte_eth_link::default();
        // SAFETY: the port exists; the pointer is to a link of ours.
        let code = unsafe { dpdk_sys::rte_eth_link_get_nowait(self.id, &mut link) };
        self.step("reading the link", code)?;
        Ok(Link { up: link.link_status() != 0, speed_mbps: link.link_speed })
    }

    /// What it counted.
    ///
    /// # Errors
    /// [`PortError::Driver`].
    pub fn stats(&self) -> Result<PortStats, PortError> {
        let mut stats = dpdk_sys::rte_eth_stats::default();
        // SAFETY: the port exists; the pointer is to statistics of ours.
        let code = unsafe { dpdk_sys::rte_eth_stats_get(self.id, &mut stats) };
        self.step("reading statistics", code)?;
        Ok(PortStats {
            rx_packets: stats.ipackets,
            rx_bytes: stats.ibytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            rx_no_buffer: stats.rx_nombuf,
            tx_packets: stats.opackets,
            tx_bytes: stats.obytes,
            tx_errors: stats.oerrors,
        })
    }

    /// The driver's own counters, by name.
    ///
    /// # Errors
    /// [`PortError::Driver`].
    pub fn extended_stats(&self) -> Result<Vec<(String, u64)>, PortError> {
        // SAFETY: the port exists; a null array of size 0 asks for the number of counters.
        let count = unsafe { dpdk_sys::rte_eth_xstats_get(self.id, ptr::null_mut(), 0) };
        self.step("counting extended statistics", count)?;
        let mut values = vec![dpdk_sys::rte_eth_xstat::default(); count as usize];
        let mut names: Vec<dpdk_sys::rte_eth_xstat_name> = vec![Default::default(); count as usize];
        // SAFETY: the port exists; the array has room for `count` values.
        let read = unsafe { dpdk_sys::rte_eth_xstats_get(self.id, values.as_mut_ptr(), count as c_uint) };
        self.step("reading extended statistics", read)?;
        // SAFETY: the port exists; the array has room for `count` names.
        let named =
            unsafe { dpdk_sys::rte_eth_xstats_get_names(self.id, names.as_mut_ptr(), count as c_uint) };
        self.step("naming extended statistics", named)?;
        values.truncate(read as usize);
        let name = |id: u64| {
            let name = names.get(usize::try_from(id).ok()?)?;
            Some(name.name.iter().take_while(|&&c| c != 0).map(|&c| char::from(c as u8)).collect())
        };
        Ok(values.iter().filter_map(|value| Some((name(value.id)?, value.value))).collect())
    }

    /// Stops the port, for a start with another configuration. Only the primary may, and only while no secondary uses it.
    ///
    /// # Errors
    /// [`PortError::InUse`] while this process holds queues or flow rules of it, [`PortError::NotPrimary`],
    /// [`PortError::Driver`].
    pub fn stop(self, eal: &Eal) -> Result<Device, PortError> {
        if eal.process_type() != ProcessType::Primary {
            return Err(PortError::NotPrimary);
        }
        if Claim::any(self.id) {
            return Err(PortError::InUse(self.name));
        }
        // SAFETY: the port exists, and nobody polls it: no queue of it is taken.
        let code = unsafe { dpdk_sys::rte_eth_dev_stop(self.id) };
        self.step("stopping", code)?;
        Ok(Device { id: self.id, name: self.name })
    }

    /// DPDK's number of the port, the same in all processes of a prefix.
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// The driver's record of the port.
    fn limits(&self) -> Result<rte_eth_dev_info, PortError> {
        device_limits(self.id, &self.name)
    }

    /// Names the step and the device in an error.
    fn step(&self, step: &'static str, code: i32) -> Result<(), PortError> {
        RteError::check(code).map_err(|source| PortError::Driver { device: self.name.clone(), step, source })
    }
}
