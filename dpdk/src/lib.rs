//! A safe wrapper over the parts of DPDK that Baton uses.
//!
//! # Who owns what
//! | Thing | Owner | Ends |
//! |---|---|---|
//! | [`Eal`] | the process; one for its life | with the process, see below |
//! | [`Mempool`] | made by the primary; whoever looks it up shares it, one thread only if [`PoolOps::SingleThread`] | with the primary |
//! | [`Mbuf`] | whoever holds it: not `Clone`, freed once by `Drop` | when dropped, or when a port took it |
//! | [`Burst`] | the thread that polls; no allocation | frees what is left in it |
//! | [`Port`] | the primary configures and starts it; a secondary attaches | with the primary |
//! | [`RxQueue`], [`TxQueue`] | one thread of one process each: `Send`, neither `Sync` nor `Clone` | when dropped it may be taken again |
//! | [`Producer`], [`Consumer`] | one thread each, both of one process | the last one frees what is in the ring |
//! | [`FlowRules`], [`TapSteering`] | the primary's control thread | rules stay until removed |
//!
//! Inside a process the types enforce this. Across processes they cannot: a port's queues are dealt out by agreement
//! (configuration), and the module docs say what each side must keep to.
//!
//! # Crash only
//! Nothing here has to run at exit. Baton's processes may be killed at any instruction, so leaving by a plain exit is
//! as good: the next primary with the same file prefix removes what the last one left. `rte_eal_cleanup` is not offered,
//! because it would pull memory from under the handles that are still alive.

mod burst;
mod claim;
mod device;
mod eal;
mod error;
mod flow;
mod heap;
mod leftovers;
mod mbuf;
mod mempool;
mod port;
mod queue;
mod ring;
mod shared_config;
mod steering_program;
mod takeover;
mod tap_queue;
mod tap_steering;

pub use burst::{Burst, Drain};
pub use device::{Capabilities, Device, PortConfig, RxQueueConfig};
pub use eal::{Eal, EalError, EalOptions, LaunchError, ProcessType, shared_files_dir};
pub use error::RteError;
pub use flow::{FlowAction, FlowError, FlowMatch, FlowRule, FlowRules};
pub use heap::{HeapError, HeapImage, HeapShare, HeapUse, SharedHeap};
pub use leftovers::remove_leftovers;
pub use mbuf::{Mbuf, NoRoom};
pub use mempool::{Mempool, MempoolError, PoolConfig, PoolOps};
pub use port::{Link, Port, PortError, PortStats};
pub use queue::{RxQueue, TxQueue};
pub use ring::{Consumer, Producer, RingError, mbuf_ring};
pub use shared_config::{HeldLock, SharedConfig, SharedConfigError};
pub use takeover::TakeOver;
pub use tap_queue::TapQueue;
pub use tap_steering::{SteeringTarget, TapSteering, TapSteeringError};
