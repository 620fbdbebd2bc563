//! The files that a killed DPDK process leaves in the directory of its prefix: nobody else removes them while the primary
//! lives.

use std::fs;
use std::io;
use std::path::Path;

use crate::eal::shared_files_dir;

/// Removes the files of process `pid`, which is dead, and says how many there were: its socket, `mp_socket_<pid>_<time>`,
/// and its own copies of the lists of memory, `fbarray_…_<pid>`.
///
/// # Errors
/// The directory cannot be read, or a file not be removed.
pub fn remove_leftovers(runtime_dir: &Path, file_prefix: &str, pid: u32) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(shared_files_dir(runtime_dir, file_prefix))? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| is_of(name, pid)) {
            match fs::remove_file(entry.path()) {
                Ok(()) => removed += 1,
                // DPDK removes a socket that nobody listens on when it comes across it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(removed)
}

/// Whether a file of that name is process `pid`'s own.
fn is_of(name: &str, pid: u32) -> bool {
    let pid = pid.to_string();
    let of_socket = name.strip_prefix("mp_socket_").and_then(|rest| rest.split('_').next());
    let of_array = name.strip_prefix("fbarray_").and_then(|rest| rest.rsplit_once('_')).map(|(_, last)| last);
    of_socket.or(of_array) == Some(&pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_the_dead_process_go() {
        let dir = tempfile::tempdir().unwrap();
        let files = shared_files_dir(dir.path(), "p");
        fs::create_dir_all(&files).unwrap();
        let kept = [
            "mp_socket",
            "mp_socket_99_42",
            "fbarray_memseg-2048k-0-0",
            "fbarray_memseg-2048k-0-0_421",
            "config",
        ];
        let gone =
            ["mp_socket_42_420c13d012c2", "fbarray_memseg-2048k-0-0_42", "fbarray_memseg-2048k-0-1_42"];
        for name in kept.iter().chain(&gone) {
            fs::write(files.join(name), "").unwrap();
        }

        assert_eq!(remove_leftovers(dir.path(), "p", 42).unwrap(), gone.len());

        assert!(kept.iter().all(|name| files.join(name).exists()));
        assert!(!gone.iter().any(|name| files.join(name).exists()));
        assert_eq!(remove_leftovers(dir.path(), "p", 42).unwrap(), 0);
    }
}
