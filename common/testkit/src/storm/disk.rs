//! A small disk that can be filled: a tmpfs, mounted by root, or by anybody in
//! a user and mount namespace that a process of its own keeps.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Above the least bound of a spool, which is 16 MiB.
const DISK_MIB: u32 = 24;
/// The file that fills it.
const FILLER: &str = "filler";

/// The disk, until it is dropped.
#[derive(Debug)]
pub(super) struct SmallDisk {
    folder: PathBuf,
    keeper: Option<Child>,
}

impl SmallDisk {
    /// Mounts it on a folder, which is made.
    ///
    /// # Errors
    /// When neither way works: a storm without it would be another storm.
    pub(super) fn mount(folder: &Path) -> Result<Self, Box<dyn Error>> {
        std::fs::create_dir_all(folder)?;
        let folder = folder.to_path_buf();
        let size = format!("size={DISK_MIB}m");
        if std::fs::metadata("/proc/self")?.uid() == 0 {
            let status = Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "storm"])
                .arg(&folder)
                .status()?;
            if status.success() {
                return Ok(Self { folder, keeper: None });
            }
        }
        // It ends with us, as its standard input does.
        let script = format!("mount -t tmpfs -o {size} storm \"$0\" && echo mounted && exec cat");
        let mut keeper = Command::new("unshare")
            .args(["-Urm", "sh", "-c", &script])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|cause| format!("unshare: {cause}"))?;
        let mut said = String::new();
        if let Some(stdout) = keeper.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        let disk = Self { folder, keeper: Some(keeper) };
        match said.trim() {
            "mounted" => Ok(disk),
            _ => Err("no disk to fill: neither mount nor 'unshare -Urm' works here".into()),
        }
    }

    /// What a command has in front of it to see the disk.
    pub(super) fn entrance(&self) -> Vec<String> {
        let Some(keeper) = &self.keeper else { return Vec::new() };
        let target = keeper.id().to_string();
        ["nsenter", "-U", "-m", "--preserve-credentials", "-t", &target].map(str::to_owned).into()
    }

    /// Takes all the room that there is, beside what it took before.
    ///
    /// # Errors
    /// When the disk can't be filled.
    pub(super) fn fill(&self) -> std::io::Result<()> {
        let path = self.seen_from_here().join(FILLER);
        let mut file = File::options().create(true).append(true).open(path)?;
        for size in [64 * 1024, 4 * 1024] {
            let bytes = vec![b'x'; size];
            loop {
                match file.write_all(&bytes) {
                    Ok(()) => {}
                    Err(cause) if cause.kind() == std::io::ErrorKind::StorageFull => break,
                    Err(cause) => return Err(cause),
                }
            }
        }
        Ok(())
    }

    /// Gives the room back.
    pub(super) fn empty(&self) {
        let _ = std::fs::remove_file(self.seen_from_here().join(FILLER));
    }

    /// Its folder, for who is not within.
    pub(super) fn seen_from_here(&self) -> PathBuf {
        match &self.keeper {
            None => self.folder.clone(),
            Some(keeper) => {
                let below_root = self.folder.strip_prefix("/").unwrap_or(&self.folder);
                PathBuf::from(format!("/proc/{}/root", keeper.id())).join(below_root)
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        match &mut self.keeper {
            Some(keeper) => {
                let _ = keeper.kill();
                let _ = keeper.wait();
            }
            None => {
                let _ = Command::new("umount").arg(&self.folder).status();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::fresh_name;

    /// As root and, run as another user, in a namespace of its own.
    #[test]
    fn a_disk_is_full_and_has_room_again() {
        let folder = std::env::temp_dir().join(fresh_name("disk"));
        let disk = SmallDisk::mount(&folder).unwrap();
        let writes = |file: &str| {
            let mut command = disk.entrance();
            command.extend(["sh", "-c", "echo some > \"$0\""].map(str::to_owned));
            let (program, arguments) = command.split_first().unwrap();
            let mut command = Command::new(program);
            command.args(arguments).arg(folder.join(file)).stderr(Stdio::null());
            command.status().unwrap().success()
        };
        assert!(writes("one"));
        disk.fill().unwrap();
        assert!(!writes("two"));
        disk.empty();
        assert!(writes("two"));
        assert!(std::fs::read(disk.seen_from_here().join("two")).unwrap() == b"some\n");
        drop(disk);
        // What is left is the folder that it was mounted on.
        std::fs::remove_dir(&folder).unwrap();
    }
}
