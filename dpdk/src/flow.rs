//! rte_flow rules: the device itself brings packets to queues.
//!
//! Only the primary may touch them (in a secondary the drivers crash), and they survive a secondary's death.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};
use std::ptr::{self, NonNull};

use dpdk_sys::{
    rte_flow, rte_flow_action, rte_flow_action_queue, rte_flow_action_rss, rte_flow_attr, rte_flow_error,
    rte_flow_item, rte_flow_item_ipv4, rte_flow_item_ipv6, rte_flow_item_type, rte_flow_item_udp,
};

use crate::claim::{Claim, Part};
use crate::eal::{Eal, ProcessType};
use crate::error::RteError;
use crate::port::Port;

/// Why a rule is not there.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// The port has no rte_flow, or cannot do this rule.
    #[error("{device} does not create flow rules ({message}): use another way of steering")]
    Unsupported {
        /// The device.
        device: String,
        /// What the driver said.
        message: String,
    },
    /// The driver refused.
    #[error("{device}: {step} failed ({message})")]
    Driver {
        /// The device.
        device: String,
        /// What was tried.
        step: &'static str,
        /// What libdpdk said.
        source: RteError,
        /// What the driver said.
        message: String,
    },
    /// Only the primary may.
    #[error("only the primary changes flow rules, this process is a secondary")]
    NotPrimary,
    /// Somebody else in this process has them.
    #[error("the flow rules of {0} already have an owner in this process")]
    InUse(String),
    /// The rule was removed before, or is another port's.
    #[error("{0} has no such flow rule")]
    NoSuchRule(String),
}

/// Which packets a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowMatch {
    /// Packets to an address; with a port, only UDP to that port.
    Destination {
        /// The destination address.
        address: IpAddr,
        /// The UDP destination port, if only UDP.
        udp_port: Option<u16>,
    },
    /// Every packet: the catch-all. Without one, drivers spread what no rule takes over all queues, a secondary's too.
    Any,
}

/// Where a rule brings packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowAction {
    /// To one queue.
    Queue(u16),
    /// Spread over queues by a hash. Few virtual devices can (net_tap not).
    Spread(Vec<u16>),
}

/// The number of a rule in its [`FlowRules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowRule(u32);

/// The flow rules of a port. The control thread of the primary owns it. Dropping it leaves the rules in force.
#[derive(Debug)]
pub struct FlowRules {
    claim: Claim,
    device: String,
    /// The driver's handles of the rules that are in force.
    rules: BTreeMap<FlowRule, NonNull<rte_flow>>,
    next: u32,
}

// SAFETY: the handles are only passed back to the driver, by whoever owns this; drivers tie them to no thread.
unsafe impl Send for FlowRules {}

impl FlowRules {
    /// The rules of a running port, none yet. The port cannot be stopped while this exists.
    ///
    /// # Errors
    /// [`FlowError::NotPrimary`], [`FlowError::InUse`].
    pub fn new(eal: &Eal, port: &Port) -> Result<Self, FlowError> {
        if eal.process_type() != ProcessType::Primary {
            return Err(FlowError::NotPrimary);
        }
        let device = port.name().to_owned();
        match Claim::new(port.id(), Part::Flow) {
            Some(claim) => Ok(Self { claim, device, rules: BTreeMap::new(), next: 0 }),
            None => Err(FlowError::InUse(device)),
        }
    }

    /// Finds out whether the port creates rules like Baton's, by creating and removing one. (`rte_flow_validate` says
    /// yes on net_tap where the kernel then refuses.) The rule is for 192.0.2.1, an address of documentation.
    ///
    /// # Errors
    /// [`FlowError::Unsupported`] if not.
    pub fn probe(&mut self) -> Result<(), FlowError> {
        let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let matched = FlowMatch::Destination { address, udp_port: None };
        match self.insert(matched, 0, &FlowAction::Queue(0)) {
            Ok(rule) => self.remove(rule),
            Err(FlowError::Driver { device, message, source, .. }) => {
                Err(FlowError::Unsupported { device, message: format!("{message}, {source}") })
            }
            Err(error) => Err(error),
        }
    }

    /// Creates a rule. Priority 0 is the highest; the catch-all gets a lower one (a greater number).
    ///
    /// # Errors
    /// [`FlowError::Unsupported`], [`FlowError::Driver`].
    pub fn insert(
        &mut self,
        matched: FlowMatch,
        priority: u32,
        action: &FlowAction,
    ) -> Result<FlowRule, FlowError> {
        let mut attributes = rte_flow_attr { priority, ..Default::default() };
        attributes.set_ingress(1);
        let pattern = Pattern::new(matched);
        let items = pattern.items();
        let actions = Actions::new(action);
        let list = actions.list(action);
        let mut error = MaybeUninit::<rte_flow_error>::zeroed();
        // SAFETY: the port exists and runs. `items` and `list` end with END and point into `pattern`, `actions` and
        // `action`, which live until the call returns; the driver copies what it keeps.
        let rule = unsafe {
            dpdk_sys::rte_flow_create(
                self.claim.port,
                &attributes,
                items.as_ptr(),
                list.as_ptr(),
                error.as_mut_ptr(),
            )
        };
        let Some(rule) = NonNull::new(rule) else {
            return Err(self.error("creating a flow rule", RteError::last(), &error));
        };
        let number = FlowRule(self.next);
        self.next += 1;
        self.rules.insert(number, rule);
        Ok(number)
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// [`FlowError::NoSuchRule`], [`FlowError::Driver`].
    pub fn remove(&mut self, rule: FlowRule) -> Result<(), FlowError> {
        let Some(handle) = self.rules.remove(&rule) else {
            return Err(FlowError::NoSuchRule(self.device.clone()));
        };
        let mut error = MaybeUninit::<rte_flow_error>::zeroed();
        // SAFETY: the port exists, and the handle is of a rule in force: it was in the map, and no longer is.
        let code =
            unsafe { dpdk_sys::rte_flow_destroy(self.claim.port, handle.as_ptr(), error.as_mut_ptr()) };
        RteError::check(code).map_err(|code| self.error("removing a flow rule", code, &error))
    }

    /// Removes all rules of the port.
    ///
    /// # Errors
    /// [`FlowError::Unsupported`], [`FlowError::Driver`].
    pub fn flush(&mut self) -> Result<(), FlowError> {
        self.rules.clear();
        let mut error = MaybeUninit::<rte_flow_error>::zeroed();
        // SAFETY: the port exists, and no handle of its rules is left.
        let code = unsafe { dpdk_sys::rte_flow_flush(self.claim.port, error.as_mut_ptr()) };
        RteError::check(code).map_err(|code| self.error("removing all flow rules", code, &error))
    }

    /// An error with the driver's words.
    fn error(&self, step: &'static str, source: RteError, error: &MaybeUninit<rte_flow_error>) -> FlowError {
        // SAFETY: zeroed bytes are a valid error, and a driver only writes valid values into it.
        let text = unsafe { error.assume_init_ref() }.message;
        let message = if text.is_null() {
            "the driver says no more".to_owned()
        } else {
            // SAFETY: a driver's message is a NUL-terminated constant.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        let device = self.device.clone();
        if source.is_unsupported() {
            FlowError::Unsupported { device, message }
        } else {
            FlowError::Driver { device, step, source, message }
        }
    }
}

/// The values and masks that a pattern's items point to.
#[derive(Default)]
struct Pattern {
    ipv4: Option<(rte_flow_item_ipv4, rte_flow_item_ipv4)>,
    ipv6: Option<(rte_flow_item_ipv6, rte_flow_item_ipv6)>,
    udp: Option<(rte_flow_item_udp, rte_flow_item_udp)>,
}

impl Pattern {
    /// The values and masks for a match.
    fn new(matched: FlowMatch) -> Self {
        let mut pattern = Self::default();
        let FlowMatch::Destination { address, udp_port } = matched else { return pattern };
        match address {
            IpAddr::V4(address) => {
                let (mut value, mut mask) = (rte_flow_item_ipv4::default(), rte_flow_item_ipv4::default());
                value.hdr.dst_addr = u32::from_ne_bytes(address.octets());
                mask.hdr.dst_addr = u32::MAX;
                pattern.ipv4 = Some((value, mask));
            }
            IpAddr::V6(address) => {
                let (mut value, mut mask) = (rte_flow_item_ipv6::default(), rte_flow_item_ipv6::default());
                value.hdr.dst_addr = address.octets();
                mask.hdr.dst_addr = [0xff; 16];
                pattern.ipv6 = Some((value, mask));
            }
        }
        if let Some(port) = udp_port {
            let (mut value, mut mask) = (rte_flow_item_udp::default(), rte_flow_item_udp::default());
            value.hdr.dst_port = port.to_be();
            mask.hdr.dst_port = u16::MAX;
            pattern.udp = Some((value, mask));
        }
        pattern
    }

    /// The items, END last. They point into `self`.
    fn items(&self) -> Vec<rte_flow_item> {
        let mut items = vec![item(dpdk_sys::RTE_FLOW_ITEM_TYPE_ETH, None::<&((), ())>)];
        if self.ipv4.is_some() {
            items.push(item(dpdk_sys::RTE_FLOW_ITEM_TYPE_IPV4, self.ipv4.as_ref()));
        }
        if self.ipv6.is_some() {
            items.push(item(dpdk_sys::RTE_FLOW_ITEM_TYPE_IPV6, self.ipv6.as_ref()));
        }
        if self.udp.is_some() {
            items.push(item(dpdk_sys::RTE_FLOW_ITEM_TYPE_UDP, self.udp.as_ref()));
        }
        items.push(item(dpdk_sys::RTE_FLOW_ITEM_TYPE_END, None::<&((), ())>));
        items
    }
}

/// An item that points to a value and its mask, or matches any header of its type.
fn item<T>(type_: rte_flow_item_type, content: Option<&(T, T)>) -> rte_flow_item {
    let (spec, mask) = match content {
        Some((value, mask)) => (ptr::from_ref(value).cast::<c_void>(), ptr::from_ref(mask).cast::<c_void>()),
        None => (ptr::null(), ptr::null()),
    };
    rte_flow_item { type_, spec, last: ptr::null(), mask }
}

/// What an action list points to.
struct Actions {
    queue: rte_flow_action_queue,
    spread: rte_flow_action_rss,
}

impl Actions {
    /// The content for an action. It points into `action`.
    fn new(action: &FlowAction) -> Self {
        let mut actions = Self { queue: Default::default(), spread: Default::default() };
        match action {
            FlowAction::Queue(queue) => actions.queue.index = *queue,
            FlowAction::Spread(queues) => {
                actions.spread.queue_num = queues.len() as u32;
                actions.spread.queue = queues.as_ptr();
            }
        }
        actions
    }

    /// The list, END last. It points into `self`.
    fn list(&self, action: &FlowAction) -> [rte_flow_action; 2] {
        let first = match action {
            FlowAction::Queue(_) => rte_flow_action {
                type_: dpdk_sys::RTE_FLOW_ACTION_TYPE_QUEUE,
                conf: ptr::from_ref(&self.queue).cast(),
            },
            FlowAction::Spread(_) => rte_flow_action {
                type_: dpdk_sys::RTE_FLOW_ACTION_TYPE_RSS,
                conf: ptr::from_ref(&self.spread).cast(),
            },
        };
        [first, rte_flow_action { type_: dpdk_sys::RTE_FLOW_ACTION_TYPE_END, conf: ptr::null() }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(matched: FlowMatch) -> Vec<rte_flow_item_type> {
        Pattern::new(matched).items().iter().map(|item| item.type_).collect()
    }

    #[test]
    fn a_destination_with_a_port_matches_eth_ip_and_udp() {
        let matched = FlowMatch::Destination { address: "fd00::1".parse().unwrap(), udp_port: Some(4784) };
        assert_eq!(
            types(matched),
            [
                dpdk_sys::RTE_FLOW_ITEM_TYPE_ETH,
                dpdk_sys::RTE_FLOW_ITEM_TYPE_IPV6,
                dpdk_sys::RTE_FLOW_ITEM_TYPE_UDP,
                dpdk_sys::RTE_FLOW_ITEM_TYPE_END
            ]
        );
    }

    #[test]
    fn the_catch_all_matches_every_frame() {
        assert_eq!(
            types(FlowMatch::Any),
            [dpdk_sys::RTE_FLOW_ITEM_TYPE_ETH, dpdk_sys::RTE_FLOW_ITEM_TYPE_END]
        );
    }

    #[test]
    fn addresses_and_ports_stand_in_network_order() {
        let matched = FlowMatch::Destination { address: "10.4.1.2".parse().unwrap(), udp_port: Some(0x1234) };
        let pattern = Pattern::new(matched);
        let (address, port) = (pattern.ipv4.unwrap().0.hdr.dst_addr, pattern.udp.unwrap().0.hdr.dst_port);
        assert_eq!(address.to_ne_bytes(), [10, 4, 1, 2]);
        assert_eq!(port.to_ne_bytes(), [0x12, 0x34]);
    }
}
