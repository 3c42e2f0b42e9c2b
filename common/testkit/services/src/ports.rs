//! Free ports, reserved for a set until it is removed.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};

use crate::command_error::CommandError;

const LOWEST: u16 = 10_000;
/// How many ports are tried.
const CANDIDATES: usize = 500;

/// The folder with a file for each reserved port. The file has the path of the
/// set's folder.
pub(crate) struct PortReservations {
    folder: PathBuf,
}

impl PortReservations {
    pub(crate) fn new(root: &Path) -> Self {
        Self { folder: root.join("ports") }
    }

    /// Reserves `count` ports without a listener. They are below the range from
    /// which the kernel assigns ports to outgoing connections, so that no
    /// client gets the port of a stopped broker.
    pub(crate) fn reserve(&self, count: usize, set: &Path) -> Result<Vec<u16>, CommandError> {
        fs::create_dir_all(&self.folder).map_err(CommandError::at(&self.folder))?;
        let end = first_outgoing_port();
        // A hard link makes a port's file with its content in one step.
        let name = format!(".{}-{:x}", std::process::id(), fastrand::u64(..));
        let reservation = self.folder.join(name);
        let line = format!("{}\n", set.display());
        fs::write(&reservation, line).map_err(CommandError::at(&reservation))?;
        let mut ports: Vec<u16> = Vec::new();
        let mut tried = 0;
        while ports.len() < count && tried < CANDIDATES {
            tried += 1;
            let port = fastrand::u16(LOWEST..end);
            if self.reserve_port(port, &reservation) {
                ports.push(port);
            }
        }
        let _ = fs::remove_file(&reservation);
        if ports.len() < count {
            self.release(set);
            return Err(CommandError::Refused(format!(
                "found no {count} free ports from {LOWEST} to {}",
                end - 1
            )));
        }
        Ok(ports)
    }

    fn reserve_port(&self, port: u16, reservation: &Path) -> bool {
        let file = self.folder.join(port.to_string());
        // The folder of a set may have been removed by hand.
        if owner(&file).is_some_and(|set| !set.is_dir()) {
            let _ = fs::remove_file(&file);
        }
        if fs::hard_link(reservation, &file).is_err() {
            return false;
        }
        let is_free = is_free(port);
        if !is_free {
            let _ = fs::remove_file(&file);
        }
        is_free
    }

    /// Releases every port of a set.
    pub(crate) fn release(&self, set: &Path) {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for file in files.map(|entry| entry.path()) {
            if owner(&file).is_some_and(|owner| owner == set) {
                let _ = fs::remove_file(file);
            }
        }
    }
}

/// The set that reserved a port.
fn owner(file: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(file).ok()?;
    Some(PathBuf::from(text.trim_end_matches('\n')))
}

fn is_free(port: u16) -> bool {
    let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).err();
    refused.is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

/// The end of the range to choose from.
fn first_outgoing_port() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let low = text.split_whitespace().next().and_then(|low| low.parse().ok());
    low.filter(|low| *low > 12_000).unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn sets_that_start_side_by_side_get_different_ports() {
        let root = std::env::temp_dir().join(format!("services-ports-{:x}", fastrand::u64(..)));
        let sets: Vec<PathBuf> = (0..8).map(|n| root.join(format!("set-{n}"))).collect();
        for set in &sets {
            fs::create_dir_all(set).unwrap();
        }
        let reserved: Vec<u16> = std::thread::scope(|scope| {
            let reserve = |set: &PathBuf| {
                let (root, set) = (root.clone(), set.clone());
                scope.spawn(move || PortReservations::new(&root).reserve(16, &set).unwrap())
            };
            let threads: Vec<_> = sets.iter().map(reserve).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(reserved.len(), 128);
        assert_eq!(reserved.iter().collect::<HashSet<_>>().len(), 128);
        let files = || fs::read_dir(root.join("ports")).unwrap().count();
        assert_eq!(files(), 128);
        for set in &sets {
            PortReservations::new(&root).release(set);
        }
        assert_eq!(files(), 0);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_reservation_of_a_removed_set_does_not_count() {
        let root = std::env::temp_dir().join(format!("services-ports-{:x}", fastrand::u64(..)));
        let (gone, set) = (root.join("gone"), root.join("set"));
        fs::create_dir_all(&set).unwrap();
        let ports = PortReservations::new(&root);
        let port = ports.reserve(1, &gone).unwrap()[0];
        let reservation = root.join("reservation");
        fs::write(&reservation, format!("{}\n", set.display())).unwrap();
        assert!(ports.reserve_port(port, &reservation));
        assert_eq!(owner(&root.join("ports").join(port.to_string())), Some(set));
        assert!(!ports.reserve_port(port, &reservation));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_port_with_a_listener_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
    }
}
