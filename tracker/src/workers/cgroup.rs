//! The memory limit of the control group.

use std::path::Path;

/// The memory limit of this process's control group, the lowest on its way up;
/// none when there is none.
pub fn memory_bytes_max() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    lowest_limit(&groups, Path::new("/sys/fs/cgroup"))
}

/// Both versions of control groups, as Linux's cgroups(7) has them. In a
/// container the path may be that of the host, and the group itself at the top.
fn lowest_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let (top, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let ways = Path::new(group.trim_start_matches('/')).ancestors();
        ways.filter_map(|way| std::fs::read_to_string(top.join(way).join(file)).ok()).collect()
    });
    // Version 2 says "max" where there is none, version 1 the largest number of pages.
    limits.filter_map(|text| text.trim().parse::<u64>().ok()).filter(|limit| *limit < 1 << 60).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn the_lowest_limit_on_the_way_up_counts() {
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
