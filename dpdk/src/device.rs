//! Devices: ports that are not running yet, and what they are capable of.

use std::ffi::{CStr, CString, c_uint};
use std::mem::MaybeUninit;
use std::ptr;

use dpdk_sys::{rte_eth_conf, rte_eth_dev_info};

use crate::claim::Claim;
use crate::eal::{Eal, ProcessType};
use crate::error::RteError;
use crate::mempool::Mempool;
use crate::port::{Port, PortError};

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

/// A device that is not running. Only the primary has one.
#[derive(Debug)]
pub struct Device {
    pub(crate) id: u16,
    pub(crate) name: String,
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
        Ok(Port::started(self.id, self.name))
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

/// DPDK's number of a device.
pub(crate) fn find_port(name: &str) -> Result<u16, PortError> {
    let not_found = || PortError::NotFound(name.to_owned());
    let c_name = CString::new(name).map_err(|_| not_found())?;
    let mut id = 0;
    // SAFETY: the name is NUL-terminated; the pointer is to an integer of ours.
    let code = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &mut id) };
    if code == 0 { Ok(id) } else { Err(not_found()) }
}

/// The driver's record of a port that exists.
pub(crate) fn device_limits(id: u16, name: &str) -> Result<rte_eth_dev_info, PortError> {
    let mut record = MaybeUninit::<rte_eth_dev_info>::zeroed();
    // SAFETY: the call writes a whole record, and reports a port that does not exist.
    let code = unsafe { dpdk_sys::rte_eth_dev_info_get(id, record.as_mut_ptr()) };
    let step = "reading capabilities";
    RteError::check(code).map_err(|source| PortError::Driver { device: name.to_owned(), step, source })?;
    // SAFETY: zeroed bytes are a valid record of integers and pointers, and the call filled it in.
    Ok(unsafe { record.assume_init() })
}

/// Capabilities of a port that exists.
pub(crate) fn capabilities(id: u16, name: &str) -> Result<Capabilities, PortError> {
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
