//! The key file on disk: read only if it is its owner's alone, written so that it never was anybody else's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::{KeyFile, KeyFileError};

/// Permissions that nobody but the owner may have.
const MODE_OF_OTHERS: u32 = 0o077;

/// Longest file that is read, bytes.
const BYTES_MAX: u64 = 64 * 1024;

impl KeyFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, is not its owner's alone, or does not hold keys: see [`KeyFileError`].
    pub fn load(path: &Path) -> Result<KeyFile, KeyFileError> {
        let wrong = |error| KeyFileError::Read { path: path.to_owned(), error };
        // What was opened is what is looked at: a file that takes its place meanwhile changes nothing. Without O_NONBLOCK,
        // opening a FIFO would wait.
        let options = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).clone();
        let mut file = options.open(path).map_err(wrong)?;
        let found = file.metadata().map_err(wrong)?;
        if !found.is_file() || found.len() > BYTES_MAX {
            return Err(KeyFileError::Kind { path: path.to_owned() });
        }
        if found.mode() & MODE_OF_OTHERS != 0 {
            return Err(KeyFileError::Mode { path: path.to_owned(), mode: found.mode() & 0o7777 });
        }
        let reader = nix::unistd::geteuid().as_raw();
        if found.uid() != 0 && found.uid() != reader {
            return Err(KeyFileError::Owner { path: path.to_owned(), owner: found.uid(), reader });
        }
        let mut text = Zeroizing::new(String::with_capacity(found.len() as usize + 1));
        (&mut file).take(BYTES_MAX).read_to_string(&mut text).map_err(wrong)?;
        KeyFile::parse(&text, &path.display().to_string())
    }

    /// Writes a file that does not exist yet.
    ///
    /// # Errors
    /// It exists or cannot be written.
    pub fn create(&self, path: &Path) -> Result<(), KeyFileError> {
        self.write(path).map_err(|error| KeyFileError::Write { path: path.to_owned(), error })
    }

    /// Writes the file in the place of the one that is there: a reader finds the old keys or the new ones.
    ///
    /// # Errors
    /// It cannot be written; the old one is still there then.
    pub fn replace(&self, path: &Path) -> Result<(), KeyFileError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = Path::new(&name);
        let written =
            self.write(new).and_then(|()| std::fs::rename(new, path)).and_then(|()| sync_directory(path));
        written.map_err(|error| KeyFileError::Write { path: path.to_owned(), error })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let written = file.write_all(self.text().as_bytes()).and_then(|()| file.sync_all());
        if written.is_err() {
            // Half a key file helps nobody. That it cannot be taken away again is less than what went wrong first.
            let _ = std::fs::remove_file(path);
        }
        written
    }
}

/// Makes a rename outlast a power failure.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_that_was_made_is_its_owners_alone_and_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sync.key");
        let mut keys = KeyFile::generate().unwrap();

        keys.create(&path).unwrap();

        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(KeyFile::load(&path).unwrap(), keys);
        assert!(
            keys.create(&path).unwrap_err().to_string().contains("File exists"),
            "keys are never overwritten"
        );
        keys.add().unwrap();
        keys.replace(&path).unwrap();
        assert_eq!(KeyFile::load(&path).unwrap(), keys);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_file_that_others_may_touch_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sync.key");
        KeyFile::generate().unwrap().create(&path).unwrap();

        for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o610, 0o601, 0o660, 0o777] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = KeyFile::load(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Mode { mode: found, .. } if found == mode), "{error}");
            assert!(
                error.to_string().contains(&format!("{mode:04o}")) && error.to_string().contains("chmod 600")
            );
        }
        for mode in [0o600, 0o400, 0o700] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            KeyFile::load(&path).unwrap();
        }
    }

    #[test]
    fn what_is_no_key_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        KeyFile::generate().unwrap().create(&path("good")).unwrap();
        symlink(path("good"), path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        std::fs::write(path("long"), vec![b'#'; 1 << 17]).unwrap();
        std::fs::write(path("binary"), [0xff; 16]).unwrap();
        std::fs::set_permissions(path("binary"), Permissions::from_mode(0o600)).unwrap();

        assert!(KeyFile::load(&path("link")).is_ok(), "where it lies is the administrator's business");
        for (name, part) in [
            ("missing", "make one with `batonctl key new"),
            ("fifo", "expected a key file"),
            ("long", "expected a key file"),
            ("binary", "cannot read"),
            (".", "expected a key file"),
        ] {
            let error = KeyFile::load(&path(name)).unwrap_err().to_string();
            assert!(error.contains(part), "{name}: {error}");
        }
    }

    #[test]
    fn root_a_file_of_another_user_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sync.key");
        KeyFile::generate().unwrap().create(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(4711), None).unwrap();

        let error = KeyFile::load(&path).unwrap_err();

        assert!(matches!(error, KeyFileError::Owner { owner: 4711, reader: 0, .. }), "{error}");
    }
}
