//! The memory limit of the process's control group.

use std::path::Path;

/// Returns the lowest memory limit of this process's control group and its ancestors, in bytes.
/// `None`: there is no limit.
pub(crate) fn memory_bytes_max() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    lowest_limit(&groups, Path::new("/sys/fs/cgroup"))
}

/// Reads both versions of control groups, see cgroups(7). In a container, `groups` may have the
/// path on the host, while the group itself is at `root`.
fn lowest_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let (top, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let ancestors = Path::new(group.trim_start_matches('/')).ancestors();
        ancestors
            .filter_map(|group| std::fs::read_to_string(top.join(group).join(file)).ok())
            .collect()
    });
    // Without a limit, version 2 has "max" and version 1 the largest number of pages.
    limits.filter_map(|text| text.trim().parse::<u64>().ok()).filter(|limit| *limit < 1 << 60).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn the_lowest_limit_of_the_ancestors_is_returned() {
        let root = std::env::temp_dir().join(format!("groups-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let limit = |groups| lowest_limit(groups, &root);
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/b/memory.max", "max\n");
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/memory.max", "67108864\n");
        assert_eq!(limit("0::/a/b\n"), Some(64 * MIB));
        write("memory.max", "33554432\n");
        assert_eq!(limit("0::/a/b\n"), Some(32 * MIB));
        assert_eq!(limit("1:cpu,memory:/of/the/host\n"), None);
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit("1:cpu,memory:/of/the/host\n"), None);
        write("memory/memory.limit_in_bytes", "1048576\n");
        assert_eq!(limit("2:cpu:/x\n1:cpu,memory:/of/the/host\n"), Some(MIB));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
