//! Steering in a tap device: an eBPF program brings each frame to its queue, as a flow director would.
//!
//! The control thread of the primary owns it; it is the process that holds the tap's file descriptors. Rules are
//! changed while traffic runs. The program stays in a persistent tap after the process is gone, killed or not: its
//! successor installs its own over it, or takes it out with [`TapSteering::remove_from`].

use std::fs;
use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use crate::steering_program::{Instruction, steering_program};

/// Most destinations that can be steered at a time.
const DESTINATIONS_MAX: u32 = 4096;

/// Why a tap is not steered.
#[derive(Debug, thiserror::Error)]
pub enum TapSteeringError {
    /// This process holds no queue of such a tap.
    #[error("this process has no open queue of a tap named {0}: start the port first, in this process")]
    NoTap(String),
    /// The number of queues to spread over is 0.
    #[error("traffic without a rule needs at least one queue to go to, 0 were given")]
    NoQueue,
    /// The kernel refused a step.
    #[error("{interface}: {step} failed; it needs root (CAP_BPF and CAP_NET_ADMIN) and a kernel with eBPF")]
    Kernel {
        /// The tap.
        interface: String,
        /// What was tried.
        step: &'static str,
        /// What the kernel said, for a refused program with its verifier's last lines.
        source: io::Error,
    },
}

/// Where packets to a destination go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteeringTarget {
    /// The queue.
    pub queue: u16,
    /// Only UDP packets to this port; the rest of what goes to that address (ping, fragments) goes to queue 0. Not 0.
    pub udp_port: Option<u16>,
}

/// The steering program of a tap, and its rules.
#[derive(Debug)]
pub struct TapSteering {
    interface: String,
    map: OwnedFd,
}

impl TapSteering {
    /// Puts a program without rules into a tap: IP packets are spread over the first `spread` queues by source address
    /// and port, everything else goes to queue 0.
    ///
    /// `interface` is the kernel's name, as in [`crate::Capabilities::interface`]. The tap may be in any network
    /// namespace: it is found by this process's open files.
    ///
    /// # Errors
    /// [`TapSteeringError`].
    pub fn install(interface: &str, spread: u16) -> Result<Self, TapSteeringError> {
        if spread == 0 {
            return Err(TapSteeringError::NoQueue);
        }
        let tap = find_tap(interface)?;
        let failed =
            |step| move |source| TapSteeringError::Kernel { interface: interface.to_owned(), step, source };
        let map = create_map().map_err(failed("creating the map"))?;
        let program = steering_program(map.as_raw_fd(), spread);
        let program = load_program(&program).map_err(failed("loading the program"))?;
        set_program(tap, program.as_raw_fd()).map_err(failed("setting the program"))?;
        Ok(Self { interface: interface.to_owned(), map })
    }

    /// Takes whatever program is in a tap out of it. The kernel then chooses queues by itself.
    ///
    /// # Errors
    /// [`TapSteeringError`].
    pub fn remove_from(interface: &str) -> Result<(), TapSteeringError> {
        let tap = find_tap(interface)?;
        set_program(tap, -1).map_err(|source| TapSteeringError::Kernel {
            interface: interface.to_owned(),
            step: "removing the program",
            source,
        })
    }

    /// Adds a rule, or replaces the one for that destination. In force for the next frame.
    ///
    /// # Errors
    /// [`TapSteeringError::Kernel`], also when there are 4096 already.
    pub fn insert(&mut self, destination: IpAddr, target: SteeringTarget) -> Result<(), TapSteeringError> {
        let key = map_key(destination);
        let value = [u32::from(target.queue), u32::from(target.udp_port.unwrap_or(0))];
        update_map(&self.map, &key, &value).map_err(|source| self.error("adding a rule", source))
    }

    /// Removes the rule for a destination, and says whether there was one.
    ///
    /// # Errors
    /// [`TapSteeringError::Kernel`].
    pub fn remove(&mut self, destination: IpAddr) -> Result<bool, TapSteeringError> {
        match delete_from_map(&self.map, &map_key(destination)) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(self.error("removing a rule", error)),
        }
    }

    /// Names the step and the tap in an error.
    fn error(&self, step: &'static str, source: io::Error) -> TapSteeringError {
        TapSteeringError::Kernel { interface: self.interface.clone(), step, source }
    }
}

/// The map's key: the 16 bytes of the address, IPv4 as IPv4-mapped.
fn map_key(destination: IpAddr) -> [u8; 16] {
    match destination {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address),
    }
}

/// An open queue of the tap in this process. The descriptor belongs to the tap's driver.
fn find_tap(interface: &str) -> Result<RawFd, TapSteeringError> {
    let not_found = || TapSteeringError::NoTap(interface.to_owned());
    let entries = fs::read_dir("/proc/self/fd").map_err(|_| not_found())?;
    let is_tun = |path: &Path| fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/net/tun"));
    entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| is_tun(&entry.path()))
        .filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok())
        .find(|&fd| tap_name(fd).as_deref() == Some(interface.as_bytes()))
        .ok_or_else(not_found)
}

/// The name of the interface that a tap's descriptor belongs to; `None` for a detached queue.
fn tap_name(fd: RawFd) -> Option<Vec<u8>> {
    // SAFETY: zeroed bytes are a valid request of integers and arrays.
    let mut request: libc::ifreq = unsafe { zeroed() };
    // SAFETY: TUNGETIFF writes one ifreq, which `request` is; a descriptor that is none of a tap is refused.
    let code = unsafe { libc::ioctl(fd, libc::TUNGETIFF as libc::c_ulong, &mut request) };
    let name = || request.ifr_name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    (code == 0).then(name)
}

/// Sets the steering program of a tap; -1 takes it out. The kernel keeps its own reference.
fn set_program(tap: RawFd, program: RawFd) -> io::Result<()> {
    // SAFETY: TUNSETSTEERINGEBPF reads one int, which `program` is; a descriptor that is none of a tap is refused.
    let code = unsafe { libc::ioctl(tap, libc::TUNSETSTEERINGEBPF as libc::c_ulong, &program) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

// Commands and types of bpf(2), linux/bpf.h.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const MAP_TYPE_HASH: u32 = 1;
const PROG_TYPE_SOCKET_FILTER: u32 = 1;

/// `union bpf_attr` for MAP_CREATE.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    entries_max: u32,
}

/// `union bpf_attr` for the commands on an element of a map.
#[repr(C)]
struct MapElement {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` for PROG_LOAD.
#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// Calls bpf(2).
///
/// # Safety
/// `attributes` is the part of `union bpf_attr` that `command` reads, and its addresses point to memory of the sizes
/// that the command says.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the attributes are valid for the command, by the contract; the kernel reads `size_of::<T>()` bytes.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// Makes the map from destination to queue and UDP port.
fn create_map() -> io::Result<OwnedFd> {
    let attributes =
        MapCreate { map_type: MAP_TYPE_HASH, key_size: 16, value_size: 8, entries_max: DESTINATIONS_MAX };
    // SAFETY: the attributes are those of MAP_CREATE and hold no address.
    let fd = unsafe { bpf(MAP_CREATE, &attributes) }?;
    // SAFETY: the kernel just made the descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Writes an element of the map.
fn update_map(map: &OwnedFd, key: &[u8; 16], value: &[u32; 2]) -> io::Result<()> {
    let attributes = MapElement {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: key.as_ptr() as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the attributes are those of MAP_UPDATE_ELEM; key and value have the map's sizes, 16 and 8.
    unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }.map(drop)
}

/// Deletes an element of the map.
fn delete_from_map(map: &OwnedFd, key: &[u8; 16]) -> io::Result<()> {
    let attributes =
        MapElement { map: map.as_raw_fd() as u32, padding: 0, key: key.as_ptr() as u64, value: 0, flags: 0 };
    // SAFETY: the attributes are those of MAP_DELETE_ELEM; the key has the map's size, 16.
    unsafe { bpf(MAP_DELETE_ELEM, &attributes) }.map(drop)
}

/// Has the kernel check and load the program. If it refuses, the error carries the end of the verifier's log.
fn load_program(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut log = vec![0_u8; 64 * 1024];
    let mut attributes = ProgramLoad {
        program_type: PROG_TYPE_SOCKET_FILTER,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the attributes are those of PROG_LOAD; the instructions are as many as counted, and there is no log.
    let error = match unsafe { bpf(PROG_LOAD, &attributes) } {
        // SAFETY: the kernel just made the descriptor for us.
        Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Err(error) => error,
    };
    attributes.log_level = 1;
    attributes.log_size = log.len() as u32;
    attributes.log = log.as_mut_ptr() as u64;
    // SAFETY: as above, and the log has the size that is named.
    match unsafe { bpf(PROG_LOAD, &attributes) } {
        // SAFETY: the kernel just made the descriptor for us.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Err(_) => {
            let text = String::from_utf8_lossy(&log);
            let text = text.trim_end_matches('\0').trim_end();
            let tail: Vec<&str> = text.lines().rev().take(3).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            Err(io::Error::new(error.kind(), format!("{error}: {}", tail.join(" | "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_destination_is_keyed_as_ipv4_mapped() {
        let key = map_key("10.2.0.101".parse().unwrap());
        assert_eq!(key, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 2, 0, 101]);
    }

    #[test]
    fn a_tap_that_this_process_does_not_hold_is_not_found() {
        let error = TapSteering::install("no-such-tap", 1).unwrap_err();
        assert!(matches!(error, TapSteeringError::NoTap(name) if name == "no-such-tap"));
    }

    #[test]
    fn a_spread_over_no_queue_is_refused() {
        assert!(matches!(TapSteering::install("any", 0), Err(TapSteeringError::NoQueue)));
    }
}
