//! A small file system that a test can fill: a tmpfs in its own mount namespace. Without root a
//! user namespace is created too. It disappears with the process that created it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The file that uses up the free space.
const FILLER: &str = "filler";

/// A mounted tmpfs. Dropping it unmounts.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
    holder: Child,
    user: bool,
}

impl SmallDisk {
    /// Creates `folder` and mounts a tmpfs of `mib` MiB on it. Only programs started with
    /// [`SmallDisk::command_prefix`] see the mount. This process reaches the files by
    /// [`SmallDisk::path_from_host`].
    ///
    /// # Errors
    /// Fails if the namespace or the tmpfs can't be created.
    pub fn mount(folder: &Path, mib: u32) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let user = std::fs::metadata("/proc/self")?.uid() != 0;
        // `cat` ends when its standard input closes, which happens when this process ends.
        let script =
            format!("mount -t tmpfs -o size={mib}m small \"$0\" && echo mounted && exec cat");
        let mut holder = Command::new("unshare")
            .args([if user { "-Urm" } else { "-m" }, "sh", "-c", &script])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|cause| io::Error::other(format!("unshare: {cause}")))?;
        let mut printed = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut printed)?;
        }
        let disk = Self { folder: folder.to_owned(), holder, user };
        match printed.trim() {
            "mounted" => Ok(disk),
            _ => Err(io::Error::other("no tmpfs could be mounted in a new mount namespace")),
        }
    }

    /// The words to put in front of a command so that it sees the mount.
    pub fn command_prefix(&self) -> Vec<String> {
        let holder = self.holder.id().to_string();
        let mut words = vec!["nsenter", "-m", "-t", &holder];
        if self.user {
            words.extend(["-U", "--preserve-credentials"]);
        }
        words.into_iter().map(str::to_owned).collect()
    }

    /// The folder of the mount, as this process can reach it.
    pub fn path_from_host(&self) -> PathBuf {
        let below_root = self.folder.strip_prefix("/").unwrap_or(&self.folder);
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(below_root)
    }

    /// Writes until the file system is full. Can be called again after space was freed.
    ///
    /// # Errors
    /// Fails on any error other than "no space left".
    pub fn fill(&self) -> io::Result<()> {
        let path = self.path_from_host().join(FILLER);
        let mut file = File::options().create(true).append(true).open(path)?;
        for size in [64 * 1024, 4 * 1024] {
            let bytes = vec![b'x'; size];
            loop {
                match file.write_all(&bytes) {
                    Ok(()) => {}
                    Err(cause) if cause.kind() == io::ErrorKind::StorageFull => break,
                    Err(cause) => return Err(cause),
                }
            }
        }
        Ok(())
    }

    /// Removes the file that fills the disk.
    ///
    /// # Errors
    /// Fails if the file can't be removed.
    pub fn free(&self) -> io::Result<()> {
        std::fs::remove_file(self.path_from_host().join(FILLER))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = std::fs::remove_dir(&self.folder);
    }
}
