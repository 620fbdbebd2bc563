//! The environment abstraction layer: DPDK's start in this process.

use std::any::Any;
use std::ffi::{CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::RteError;

/// Why DPDK did not start.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// `rte_eal_init` works once in a process, and was called before.
    #[error(
        "DPDK was already started in this process: start it once, and only in a fresh process after an error"
    )]
    AlreadyStarted,
    /// An argument holds a NUL byte.
    #[error("the EAL argument {0:?} holds a NUL byte")]
    Argument(String),
    /// No lcore was named.
    #[error("no lcore given: name at least the main lcore and its CPU")]
    NoLcore,
    /// DPDK would cut the names of its sockets off.
    #[error(
        "runtime directory {path} and file prefix {prefix} are too long: together at most {RUNTIME_PATH_MAX} bytes"
    )]
    RuntimePath {
        /// The runtime directory.
        path: PathBuf,
        /// The file prefix.
        prefix: String,
    },
    /// libdpdk refused; its own lines on stderr say more.
    #[error("rte_eal_init({arguments}) failed; DPDK's lines above say what it missed")]
    Init {
        /// The arguments, as on a command line.
        arguments: String,
        /// What `rte_errno` said.
        source: RteError,
    },
}

/// Why an lcore did not run a closure to its end.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The lcore is not one of this process.
    #[error("lcore {0} is not a worker lcore of this process: add it to the lcores that EAL is started with")]
    NotAWorker(u16),
    /// The lcore runs another closure.
    #[error("lcore {0} is busy: wait for it first")]
    Busy(u16),
    /// The closure panicked.
    #[error("the worker on lcore {0} panicked")]
    Panicked(u16),
}

/// Longest runtime directory and file prefix together: a socket's path has 108 bytes with its NUL, and DPDK adds
/// `/dpdk/`, `/mp_socket_`, a process number, `_` and 16 digits.
const RUNTIME_PATH_MAX: usize = 107 - 6 - 11 - 7 - 1 - 16;

const _: () = assert!(RUNTIME_PATH_MAX == 66);

/// What this process is to the others with the same file prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessType {
    /// Owns memory and devices.
    Primary,
    /// Attaches to a living primary.
    Secondary,
}

/// What DPDK is started with: a builder that ends in [`EalOptions::start`].
#[derive(Clone, Debug)]
pub struct EalOptions {
    process_type: ProcessType,
    file_prefix: String,
    lcores: Vec<(u16, Vec<u16>)>,
    memory_mib: Option<u32>,
    hugepage_dir: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
    vdevs: Vec<String>,
    pci_allowed: Vec<String>,
    hugepages: bool,
    shared_config: bool,
    extra: Vec<String>,
}

impl EalOptions {
    /// Options of a process of that type; processes with the same `file_prefix` belong together.
    pub fn new(process_type: ProcessType, file_prefix: impl Into<String>) -> Self {
        Self {
            process_type,
            file_prefix: file_prefix.into(),
            lcores: Vec::new(),
            memory_mib: None,
            hugepage_dir: None,
            runtime_dir: None,
            vdevs: Vec::new(),
            pci_allowed: Vec::new(),
            hugepages: true,
            shared_config: true,
            extra: Vec::new(),
        }
    }

    /// Adds an lcore that runs on those CPUs. The lowest lcore is the main one. lcore ids must differ between the
    /// processes of a prefix (caches of mempools are indexed by them); CPUs may be shared.
    pub fn lcore(mut self, lcore: u16, cpus: &[u16]) -> Self {
        self.lcores.push((lcore, cpus.to_vec()));
        self
    }

    /// Memory to take at start (`-m`), MiB. It never grows after: size it for everything.
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = Some(mib);
        self
    }

    /// The hugetlbfs mount to take pages from (`--huge-dir`).
    pub fn hugepage_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.hugepage_dir = Some(path.into());
        self
    }

    /// Where DPDK keeps sockets and shared files: `<path>/dpdk/<file prefix>/`. Primary and secondaries need the same.
    /// `path` exists; path and prefix are together at most 66 bytes long.
    pub fn runtime_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.runtime_dir = Some(path.into());
        self
    }

    /// Adds a virtual device (`--vdev`), for example `net_tap0,iface=lb0`. Only for a primary.
    pub fn vdev(mut self, device: impl Into<String>) -> Self {
        self.vdevs.push(device.into());
        self
    }

    /// Allows a PCI device (`-a`). Without any, DPDK does not look at the PCI bus at all (`--no-pci`).
    pub fn allow_pci(mut self, address: impl Into<String>) -> Self {
        self.pci_allowed.push(address.into());
        self
    }

    /// Uses ordinary pages and no shared files, so that neither root nor hugepages are needed; no secondary can attach.
    pub fn no_huge(mut self) -> Self {
        self.hugepages = false;
        self.shared_config = false;
        self
    }

    /// Adds an argument as it stands, for what has no method here.
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.extra.push(argument.into());
        self
    }

    /// The arguments that `rte_eal_init` gets, program name first.
    pub fn arguments(&self) -> Vec<String> {
        let process_type = match self.process_type {
            ProcessType::Primary => "primary",
            ProcessType::Secondary => "secondary",
        };
        let mut arguments = vec![
            "baton".to_owned(),
            format!("--proc-type={process_type}"),
            format!("--file-prefix={}", self.file_prefix),
            "--no-telemetry".to_owned(),
            format!("--lcores={}", self.lcore_map()),
        ];
        if let Some(mib) = self.memory_mib {
            arguments.extend(["-m".to_owned(), mib.to_string()]);
        }
        if let Some(path) = &self.hugepage_dir {
            arguments.push(format!("--huge-dir={}", path.display()));
        }
        if !self.hugepages {
            arguments.push("--no-huge".to_owned());
        }
        if !self.shared_config {
            arguments.push("--no-shconf".to_owned());
        }
        if self.pci_allowed.is_empty() {
            arguments.push("--no-pci".to_owned());
        }
        for address in &self.pci_allowed {
            arguments.extend(["-a".to_owned(), address.clone()]);
        }
        arguments.extend(self.vdevs.iter().map(|device| format!("--vdev={device}")));
        arguments.extend(self.extra.iter().cloned());
        arguments
    }

    /// The lcore map in EAL's notation: `0@0,1@(0,1)`.
    fn lcore_map(&self) -> String {
        let lcore = |(lcore, cpus): &(u16, Vec<u16>)| {
            let cpus: Vec<String> = cpus.iter().map(u16::to_string).collect();
            format!("{lcore}@({})", cpus.join(","))
        };
        self.lcores.iter().map(lcore).collect::<Vec<_>>().join(",")
    }

    /// Starts DPDK. The calling thread becomes the main lcore and is pinned to its CPUs; threads that it spawns
    /// afterwards inherit that.
    ///
    /// Call it early in `main`, before any thread runs C code that reads the environment: with a runtime directory it
    /// sets `RUNTIME_DIRECTORY`, the only way to tell DPDK. (Rust's own readers are serialised by the standard library.)
    /// It also ignores the real-time signals but the first and the last, as net_tap raises one a packet otherwise.
    ///
    /// Programs that this process runs do not get its open files, DPDK's queues and shared files among them.
    ///
    /// A secondary gives its unused service cores' memory back at once: it would be lost to the primary's heap at
    /// each restart of the secondary, until no further one could attach.
    ///
    /// # Errors
    /// [`EalError`]. After [`EalError::Init`] this process cannot try again.
    pub fn start(self) -> Result<Eal, EalError> {
        static STARTED: AtomicBool = AtomicBool::new(false);

        if self.lcores.is_empty() {
            return Err(EalError::NoLcore);
        }
        let arguments = self.arguments();
        let strings = arguments
            .iter()
            .map(|argument| CString::new(argument.as_str()).map_err(|_| EalError::Argument(argument.clone())))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(path) = &self.runtime_dir
            && path.as_os_str().len() + self.file_prefix.len() > RUNTIME_PATH_MAX
        {
            return Err(EalError::RuntimePath { path: path.clone(), prefix: self.file_prefix.clone() });
        }
        if STARTED.swap(true, Ordering::Relaxed) {
            return Err(EalError::AlreadyStarted);
        }
        if let Some(path) = &self.runtime_dir {
            // SAFETY: the doc comment asks for no foreign reader of the environment; Rust's readers share std's lock.
            unsafe { std::env::set_var("RUNTIME_DIRECTORY", path) };
        }
        ignore_realtime_signals();

        // EAL keeps pointers into its arguments, so they are given away for the life of the process.
        let strings: &'static mut [CString] = strings.leak();
        let mut pointers: Vec<*mut c_char> =
            strings.iter().map(|string| string.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect();
        let count = strings.len() as c_int;
        // SAFETY: `pointers` holds `count` NUL-terminated strings that live for ever and a null, as argv does; EAL only
        // permutes the pointers. This is the process's first call, by STARTED.
        let parsed = unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) };
        pointers.leak();
        if parsed < 0 {
            return Err(EalError::Init { arguments: arguments[1..].join(" "), source: RteError::last() });
        }
        if self.process_type == ProcessType::Secondary {
            // SAFETY: EAL is initialised and no service runs in this process.
            unsafe { dpdk_sys::rte_service_finalize() };
        }
        keep_files_from_children();
        Ok(Eal { process_type: self.process_type })
    }
}

/// Sets SIGRTMIN+1..=SIGRTMAX-1 to be ignored: net_tap asks for one of them per packet and polls when it is ignored.
fn ignore_realtime_signals() {
    for signal in libc::SIGRTMIN() + 1..libc::SIGRTMAX() {
        // SAFETY: the number is a real-time signal, and SIG_IGN runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Has every file that is open now, but the standard ones, closed in programs that this process runs: DPDK does not ask for that.
fn keep_files_from_children() {
    // SAFETY: the call changes flags of this process's descriptors and touches no memory. A kernel before 5.11 refuses it;
    // then children inherit what they have no use for.
    unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
}

/// The proof that DPDK runs in this process. There is one; whatever needs DPDK asks for a reference to it.
#[derive(Debug)]
pub struct Eal {
    process_type: ProcessType,
}

impl Eal {
    /// What this process was started as.
    pub fn process_type(&self) -> ProcessType {
        self.process_type
    }

    /// The lcore of the thread that started DPDK.
    pub fn main_lcore(&self) -> u16 {
        // SAFETY: EAL is initialised, by `self`.
        (unsafe { dpdk_sys::rte_get_main_lcore() }) as u16
    }

    /// The lcores that [`Eal::launch`] takes: all of this process but the main one.
    pub fn worker_lcores(&self) -> Vec<u16> {
        (0..dpdk_sys::RTE_MAX_LCORE as u16).filter(|&lcore| self.is_worker(lcore)).collect()
    }

    /// The NUMA node of an lcore of this process, `None` if it has none.
    pub fn socket_of(&self, lcore: u16) -> Option<i32> {
        if lcore != self.main_lcore() && !self.is_worker(lcore) {
            return None;
        }
        // SAFETY: EAL is initialised, by `self`, and the lcore is one of its own.
        let socket = unsafe { dpdk_sys::rte_lcore_to_socket_id(u32::from(lcore)) };
        i32::try_from(socket).ok()
    }

    /// Runs a closure on a worker lcore: on a thread of EAL's, pinned to the lcore's CPUs.
    ///
    /// # Errors
    /// [`LaunchError::NotAWorker`], or [`LaunchError::Busy`] while it runs another closure.
    pub fn launch<F>(&self, lcore: u16, worker: F) -> Result<(), LaunchError>
    where
        F: FnOnce() + Send + 'static,
    {
        if !self.is_worker(lcore) {
            return Err(LaunchError::NotAWorker(lcore));
        }
        let argument = Box::into_raw(Box::new(Box::new(worker) as Worker));
        // SAFETY: EAL is initialised and the lcore is a worker, both checked; `run_worker` takes over the box exactly
        // if the call succeeds.
        let code =
            unsafe { dpdk_sys::rte_eal_remote_launch(Some(run_worker), argument.cast(), u32::from(lcore)) };
        if code < 0 {
            // SAFETY: the launch failed, so the box from above is still ours alone.
            drop(unsafe { Box::from_raw(argument) });
            return Err(LaunchError::Busy(lcore));
        }
        Ok(())
    }

    /// Whether a closure runs on that lcore, or has ended and was not waited for.
    pub fn is_running(&self, lcore: u16) -> bool {
        // SAFETY: EAL is initialised, by `self`; the lcore is one of its own, checked first.
        self.is_worker(lcore)
            && unsafe { dpdk_sys::rte_eal_get_lcore_state(u32::from(lcore)) } == dpdk_sys::RUNNING
    }

    /// Waits until the closure on that lcore has returned. At once if none runs.
    ///
    /// # Errors
    /// [`LaunchError::NotAWorker`], or [`LaunchError::Panicked`].
    pub fn wait_lcore(&self, lcore: u16) -> Result<(), LaunchError> {
        if !self.is_worker(lcore) {
            return Err(LaunchError::NotAWorker(lcore));
        }
        // SAFETY: EAL is initialised, by `self`, and the lcore is a worker, checked.
        let code = unsafe { dpdk_sys::rte_eal_wait_lcore(u32::from(lcore)) };
        if code == PANICKED { Err(LaunchError::Panicked(lcore)) } else { Ok(()) }
    }

    /// Whether the lcore is one of this process and not the main one.
    fn is_worker(&self, lcore: u16) -> bool {
        // SAFETY: EAL is initialised, by `self`; any number is allowed.
        let enabled = unsafe { dpdk_sys::rte_lcore_is_enabled(u32::from(lcore)) } != 0;
        enabled && lcore != self.main_lcore()
    }
}

/// DPDK's directory for the shared files of a prefix under a runtime directory.
pub fn shared_files_dir(runtime_dir: &Path, file_prefix: &str) -> PathBuf {
    runtime_dir.join("dpdk").join(file_prefix)
}

/// What a worker lcore runs.
type Worker = Box<dyn FnOnce() + Send>;

/// The return value of a worker whose closure panicked.
const PANICKED: c_int = -1;

/// Runs the boxed closure; a panic must not unwind into C.
extern "C" fn run_worker(argument: *mut c_void) -> c_int {
    // SAFETY: `launch` made the pointer by `Box::into_raw` of this type and gave it away to this one call.
    let worker = unsafe { Box::from_raw(argument.cast::<Worker>()) };
    match catch_unwind(AssertUnwindSafe(*worker)) {
        Ok(()) => 0,
        Err(payload) => {
            discard(payload);
            PANICKED
        }
    }
}

/// Drops a panic's payload, whose own drop may panic again.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_a_primary_name_everything_it_was_given() {
        let options = EalOptions::new(ProcessType::Primary, "one")
            .lcore(0, &[0])
            .lcore(3, &[1, 2])
            .memory_mib(128)
            .hugepage_dir("/mnt/baton")
            .vdev("net_tap0,iface=lb0");
        assert_eq!(
            options.arguments(),
            [
                "baton",
                "--proc-type=primary",
                "--file-prefix=one",
                "--no-telemetry",
                "--lcores=0@(0),3@(1,2)",
                "-m",
                "128",
                "--huge-dir=/mnt/baton",
                "--no-pci",
                "--vdev=net_tap0,iface=lb0",
            ]
        );
    }

    #[test]
    fn an_allowed_pci_device_replaces_no_pci() {
        let arguments =
            EalOptions::new(ProcessType::Primary, "p").lcore(0, &[0]).allow_pci("0000:3b:00.0").arguments();
        assert!(!arguments.contains(&"--no-pci".to_owned()));
        assert!(arguments.windows(2).any(|pair| pair == ["-a", "0000:3b:00.0"]));
    }

    #[test]
    fn a_start_without_an_lcore_is_refused() {
        let error = EalOptions::new(ProcessType::Primary, "p").start().unwrap_err();
        assert!(matches!(error, EalError::NoLcore));
    }

    #[test]
    fn a_runtime_directory_that_sockets_do_not_fit_in_is_refused() {
        let path = format!("/run/{}", "x".repeat(61));
        let error =
            EalOptions::new(ProcessType::Primary, "p").lcore(0, &[0]).runtime_dir(path).start().unwrap_err();
        assert!(error.to_string().contains("at most 66 bytes"), "{error}");
    }

    #[test]
    fn a_nul_byte_in_an_argument_is_refused() {
        let error = EalOptions::new(ProcessType::Primary, "p\0q").lcore(0, &[0]).start().unwrap_err();
        assert!(matches!(error, EalError::Argument(argument) if argument == "--file-prefix=p\0q"));
    }
}
