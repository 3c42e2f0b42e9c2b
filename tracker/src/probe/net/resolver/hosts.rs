//! Parses hosts(5).

use std::collections::HashMap;
use std::net::IpAddr;

/// The content of hosts(5): addresses by name. Names are in lower case, without a final dot.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    /// Ignores lines that are not valid.
    pub(super) fn parse(text: &str) -> Self {
        let mut hosts = HashMap::<String, Vec<IpAddr>>::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
                continue;
            };
            // A name can't end with two dots.
            for name in words.filter(|word| !word.ends_with("..")) {
                let addresses = hosts.entry(normalize(name)).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Self(hosts)
    }

    pub(super) fn get(&self, name: &str) -> Option<&[IpAddr]> {
        self.0.get(&normalize(name)).map(Vec::as_slice)
    }
}

fn normalize(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_by_name_and_alias() {
        let hosts = Hosts::parse(
            "127.0.0.1 localhost\n::1 localhost ip6-localhost # six\n192.0.2.7\tWWW.Example.org www\n\
             192.0.2.7 www\nnonsense www\n#192.0.2.9 off\n",
        );
        let get =
            |name| hosts.get(name).map(|all| all.iter().map(IpAddr::to_string).collect::<Vec<_>>());
        assert_eq!(get("LOCALHOST").unwrap(), ["127.0.0.1", "::1"]);
        assert_eq!(get("www.example.org.").unwrap(), ["192.0.2.7"]);
        assert_eq!(get("www").unwrap(), ["192.0.2.7"]);
        assert_eq!(get("off"), None);
    }

    #[test]
    fn fuzzed_files_have_normalized_names_with_addresses() {
        let samples = [b"127.0.0.1 localhost\n::1 localhost six # six\n".to_vec()];
        let inputs = testkit::fuzz::run(&samples, |bytes| {
            for (name, addresses) in Hosts::parse(&String::from_utf8_lossy(bytes)).0 {
                assert!(!addresses.is_empty() && name == normalize(&name), "{name}");
            }
        });
        println!("hosts file: {inputs} inputs");
    }
}
