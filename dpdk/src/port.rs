//! Ports: network devices that DPDK drives.
//!
//! A [`Device`] is a port that is not running; [`Device::start`] makes it a [`Port`], which deals out its queues. A
//! secondary comes to the port of its primary by [`Port::attach`].
//!
//! # Which process has which queue
//! Inside a process a queue is dealt out once. Between processes the configuration says whose it is: the primary
//! starts the port with the workers' queues first and one more per secondary, and takes only the workers'. Two
//! processes on one queue corrupt it. Only the primary starts, stops, or changes a port.

use std::ffi::{CStr, CString, c_uint};
use std::mem::MaybeUninit;
use std::ptr;

use dpdk_sys::{rte_eth_conf, rte_eth_dev_info};

use crate::claim::Claim;
use crate::eal::{Eal, ProcessType};
use crate::error::RteError;
use crate::mempool::Mempool;
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
    #[error("{device}: {step} failed: {source}")]
    Driver {
        /// The device.
        device: String,
        /// What was tried.
        step: &'static str,
        /// What the driver said.
        source: RteError,
    },
}

/// What a device is and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The driver's name: `net_tap`, `net_ice`.
    pub driver: String,
    /// Most receive queues.
    pub rx_queues_max: u16,
    /// Most transmit queues.
    pub tx_queues_max: u16,
    /// Least MTU, bytes.
    pub mtu_min: u16,
    /// Greatest MTU, bytes.
    pub mtu_max: u16,
    /// The NUMA node, -1 if unknown.
    pub socket: i32,
    /// The kernel's name of the interface behind it in this network namespace, if there is one (taps, af_packet).
    pub interface: Option<String>,
    /// Receive offloads, `RTE_ETH_RX_OFFLOAD_*`.
    pub rx_offloads: u64,
    /// Transmit offloads, `RTE_ETH_TX_OFFLOAD_*`.
    pub tx_offloads: u64,
    /// Packet fields that the device can spread packets by, `RTE_ETH_RSS_*`; 0 if it cannot.
    pub rss_fields: u64,
}

/// A receive queue to be.
#[derive(Clone, Debug)]
pub struct RxQueueConfig {
    /// Where its buffers come from.
    pub pool: Mempool,
}

/// What a port is started with.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// The receive queues, in order.
    pub rx_queues: Vec<RxQueueConfig>,
    /// Transmit queues.
    pub tx_queues: u16,
    /// Receive descriptors a queue; the driver may round.
    pub rx_descriptors: u16,
    /// Transmit descriptors a queue; the driver may round.
    pub tx_descriptors: u16,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Receive what is for other MAC addresses too. Needed where Baton's MAC is not the device's own: on a tap, whose
    /// kernel side must have another one.
    pub promiscuous: bool,
    /// Let the device spread packets over all its receive queues by a hash of their addresses and ports, if it can.
    pub spread: bool,
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

/// A device that is not running. Only the primary has one.
#[derive(Debug)]
pub struct Device {
    id: u16,
    name: String,
}

impl Device {
    /// Finds a device by DPDK's name for it: `net_tap0`, `0000:3b:00.0`.
    ///
    /// # Errors
    /// [`PortError::NotPrimary`], [`PortError::NotFound`].
    pub fn find(eal: &Eal, name: &str) -> Result<Self, PortError> {
        if eal.process_type() != ProcessType::Primary {
            return Err(PortError::NotPrimary);
        }
        Ok(Self { id: find_port(name)?, name: name.to_owned() })
    }

    /// What it is and can do.
    ///
    /// # Errors
    /// [`PortError::Driver`].
    pub fn capabilities(&self) -> Result<Capabilities, PortError> {
        capabilities(self.id, &self.name)
    }

    /// Configures the device, sets its queues up in order and starts it.
    ///
    /// net_tap gives its kernel-side interface a random MAC address (unless the vdev says `mac=`), and the MTU.
    ///
    /// # Errors
    /// [`PortError`]; the device may be left half configured, and may be found and started again.
    pub fn start(self, config: &PortConfig) -> Result<Port, PortError> {
        if Claim::any(self.id) {
            return Err(PortError::InUse(self.name));
        }
        self.configure(config)?;
        Ok(Port { id: self.id, name: self.name })
    }

    /// All the steps of a start.
    fn configure(&self, config: &PortConfig) -> Result<(), PortError> {
        let limits = device_limits(self.id, &self.name)?;
        let (rx, tx) = (config.rx_queues.len().min(usize::from(u16::MAX)) as u16, config.tx_queues);
        if rx > limits.max_rx_queues || tx > limits.max_tx_queues {
            let (rx_max, tx_max) = (limits.max_rx_queues, limits.max_tx_queues);
            return Err(PortError::TooManyQueues { device: self.name.clone(), rx, tx, rx_max, tx_max });
        }
        let mut conf = rte_eth_conf::default();
        conf.rxmode.mtu = u32::from(config.mtu);
        if config.spread && rx > 1 && limits.flow_type_rss_offloads != 0 {
            conf.rxmode.mq_mode = dpdk_sys::RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = limits.flow_type_rss_offloads;
        }
        // SAFETY: the port exists and does not run (`Device`); `conf` is a valid configuration that is copied.
        let code = unsafe { dpdk_sys::rte_eth_dev_configure(self.id, rx, tx, &conf) };
        self.step("configuring", code)?;

        self.set_mtu(config.mtu)?;
        self.set_up_queues(config, rx, tx)?;
        // SAFETY: the port exists, is configured and has all its queues.
        let code = unsafe { dpdk_sys::rte_eth_dev_start(self.id) };
        self.step("starting", code)?;
        if config.promiscuous {
            // SAFETY: the port exists.
            let code = unsafe { dpdk_sys::rte_eth_promiscuous_enable(self.id) };
            self.step("promiscuous mode", code)?;
        }
        Ok(())
    }

    /// Sets the MTU, as `rte_eth_dev_configure` only notes it down in some drivers. Some virtual ones have none.
    fn set_mtu(&self, mtu: u16) -> Result<(), PortError> {
        // SAFETY: the port exists.
        let code = unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.id, mtu) };
        if code < 0 && RteError(-code).is_unsupported() {
            return Ok(());
        }
        self.step("setting the MTU", code)
    }

    /// Sets all queues up. In order, receive first: the kernel numbers a tap's queues in the order they are opened.
    fn set_up_queues(&self, config: &PortConfig, rx: u16, tx: u16) -> Result<(), PortError> {
        let (mut rx_descriptors, mut tx_descriptors) = (config.rx_descriptors, config.tx_descriptors);
        // SAFETY: the port exists and is configured; both pointers are to integers of ours.
        let code = unsafe {
            dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &mut rx_descriptors, &mut tx_descriptors)
        };
        self.step("adjusting descriptors", code)?;
        let socket = self.socket() as c_uint;
        for queue in 0..rx {
            let pool = config.rx_queues[usize::from(queue)].pool.as_ptr();
            // SAFETY: the port is configured with more than `queue` receive queues and does not run; a null
            // configuration means the default; the pool lives as long as the process.
            let code = unsafe {
                dpdk_sys::rte_eth_rx_queue_setup(self.id, queue, rx_descriptors, socket, ptr::null(), pool)
            };
            self.step("setting up a receive queue", code)?;
        }
        for queue in 0..tx {
            // SAFETY: the port is configured with more than `queue` transmit queues and does not run; a null
            // configuration means the default.
            let code = unsafe {
                dpdk_sys::rte_eth_tx_queue_setup(self.id, queue, tx_descriptors, socket, ptr::null())
            };
            self.step("setting up a transmit queue", code)?;
        }
        Ok(())
    }

    /// The device's NUMA node, -1 if unknown.
    fn socket(&self) -> i32 {
        // SAFETY: the port exists.
        unsafe { dpdk_sys::rte_eth_dev_socket_id(self.id) }
    }

    /// Names the step and the device in an error.
    fn step(&self, step: &'static str, code: i32) -> Result<(), PortError> {
        RteError::check(code).map_err(|source| PortError::Driver { device: self.name.clone(), step, source })
    }
}

/// A running port.
#[derive(Debug)]
pub struct Port {
    id: u16,
    name: String,
}

impl Port {
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

/// DPDK's number of a device.
fn find_port(name: &str) -> Result<u16, PortError> {
    let not_found = || PortError::NotFound(name.to_owned());
    let c_name = CString::new(name).map_err(|_| not_found())?;
    let mut id = 0;
    // SAFETY: the name is NUL-terminated; the pointer is to an integer of ours.
    let code = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &mut id) };
    if code == 0 { Ok(id) } else { Err(not_found()) }
}

/// The driver's record of a port that exists.
fn device_limits(id: u16, name: &str) -> Result<rte_eth_dev_info, PortError> {
    let mut record = MaybeUninit::<rte_eth_dev_info>::zeroed();
    // SAFETY: the call writes a whole record, and reports a port that does not exist.
    let code = unsafe { dpdk_sys::rte_eth_dev_info_get(id, record.as_mut_ptr()) };
    let step = "reading capabilities";
    RteError::check(code).map_err(|source| PortError::Driver { device: name.to_owned(), step, source })?;
    // SAFETY: zeroed bytes are a valid record of integers and pointers, and the call filled it in.
    Ok(unsafe { record.assume_init() })
}

/// Capabilities of a port that exists.
fn capabilities(id: u16, name: &str) -> Result<Capabilities, PortError> {
    let record = device_limits(id, name)?;
    let driver = if record.driver_name.is_null() {
        String::new()
    } else {
        // SAFETY: a driver's name is a NUL-terminated constant of the driver, which is never unloaded.
        unsafe { CStr::from_ptr(record.driver_name) }.to_string_lossy().into_owned()
    };
    let interface = match record.if_index {
        0 => None,
        index => nix::net::if_::if_indextoname(index).ok().and_then(|name| name.into_string().ok()),
    };
    Ok(Capabilities {
        driver,
        rx_queues_max: record.max_rx_queues,
        tx_queues_max: record.max_tx_queues,
        mtu_min: record.min_mtu,
        mtu_max: record.max_mtu,
        // SAFETY: the port exists.
        socket: unsafe { dpdk_sys::rte_eth_dev_socket_id(id) },
        interface,
        rx_offloads: record.rx_offload_capa,
        tx_offloads: record.tx_offload_capa,
        rss_fields: record.flow_type_rss_offloads,
    })
}
