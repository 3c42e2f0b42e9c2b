//! A small disk that can be filled: a tmpfs in a mount namespace of its own, by
//! root, or by anybody in a user namespace too. It goes with whoever made it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The file that fills it.
const FILLER: &str = "filler";

/// The disk, until it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
    keeper: Child,
    user: bool,
}

impl SmallDisk {
    /// Mounts one of so many MiB on a folder, which is made. Programs see it when
    /// [`SmallDisk::entrance`] is before them, this one at [`SmallDisk::from_here`].
    ///
    /// # Errors
    /// When no namespace, or no tmpfs in it, is to be had.
    pub fn mount(folder: &Path, mib: u32) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let user = std::fs::metadata("/proc/self")?.uid() != 0;
        // It ends with us, as its standard input does.
        let script =
            format!("mount -t tmpfs -o size={mib}m small \"$0\" && echo mounted && exec cat");
        let mut keeper = Command::new("unshare")
            .args([if user { "-Urm" } else { "-m" }, "sh", "-c", &script])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|cause| io::Error::other(format!("unshare: {cause}")))?;
        let mut said = String::new();
        if let Some(stdout) = keeper.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        let disk = Self { folder: folder.to_owned(), keeper, user };
        match said.trim() {
            "mounted" => Ok(disk),
            _ => Err(io::Error::other("no disk to fill: no mount in a namespace of its own here")),
        }
    }

    /// What a command has in front of it to see the disk.
    pub fn entrance(&self) -> Vec<String> {
        let keeper = self.keeper.id().to_string();
        let mut words = vec!["nsenter", "-m", "-t", &keeper];
        if self.user {
            words.extend(["-U", "--preserve-credentials"]);
        }
        words.into_iter().map(str::to_owned).collect()
    }

    /// Its folder, as this program can reach it.
    pub fn from_here(&self) -> PathBuf {
        let below_root = self.folder.strip_prefix("/").unwrap_or(&self.folder);
        PathBuf::from(format!("/proc/{}/root", self.keeper.id())).join(below_root)
    }

    /// Takes all the room that there is, beside what it took before.
    ///
    /// # Errors
    /// When it can't be filled.
    pub fn fill(&self) -> io::Result<()> {
        let path = self.from_here().join(FILLER);
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

    /// Gives the room back.
    ///
    /// # Errors
    /// What the system says.
    pub fn empty(&self) -> io::Result<()> {
        std::fs::remove_file(self.from_here().join(FILLER))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        let _ = std::fs::remove_dir(&self.folder);
    }
}
