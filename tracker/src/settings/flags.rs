//! The flags of the tracker.

use std::time::Duration;

use common::domain::{self, TOPIC_PREFIX};
use common::settings::flags::{CommandFlags, CommandSpec};
use common::settings::{SettingValue, UsageError, values};
use kafka_client::flags::KafkaFlags;

use crate::probe::Roots;
use crate::probe::net::resolver::NameServers;
use crate::targets::{PERIODS, RETRIES, TIMEOUTS};
use crate::workers::network::Sentinel;
use crate::workers::sizing::WORKERS_MAX;

common::flags! {
    /// The targets and how they are probed.
    pub(super) struct TargetFlags {
        /// location of this tracker, 1 to 32 characters
        option location('l') [LOCATION], unset "the host's name";
        /// URLs to probe, separated by commas. A URL may be followed by a space and a
        /// regexp that the page has to match, like
        /// 'https://aiven.io <svg\s+,https://www.google.com'; write a comma in a regexp
        /// as \,
        option websites('w') [WEBSITES];
        /// TOML file with targets and all their options, see
        /// scripts/targets.example.toml; together with --websites or instead of it
        option targets [TARGETS];
        /// share K of N of the targets, like 1/3, if N trackers of one location
        /// share a list; needs --location
        option share [SHARE], unset "all targets";
        /// longest duration of an attempt in seconds, 0.1 to 300
        option timeout('t') [TIMEOUT]: Duration =
            |setting| values::seconds(setting, TIMEOUTS), default "10";
        /// seconds from one probe of a target to the next, 1 to 86400
        option period('p') [PERIOD]: Duration =
            |setting| values::seconds(setting, PERIODS), default "300";
        /// further attempts before a failure is reported, 0 to 10, each with its own
        /// time-out. The first retry tries another address immediately if there is one;
        /// other retries wait for a second
        option retries [RETRIES]: u64 =
            |setting| values::whole_number(setting, "retries", RETRIES), default "1";
        /// servers that can be reached whenever this machine's network works, at most
        /// 8, host:port separated by commas. After a failed probe the tracker connects
        /// to them; if none can be reached, it marks the record no_network
        option sentinel [SENTINEL]: Vec<Sentinel> =
            |setting| setting.parse("1 to 8 of host:port,host:port,...", Sentinel::parse_list);
        /// limit on probes at the same time, 1 to 2048. Each needs a thread, which is
        /// started when it is first needed
        option workers [WORKERS]: u64 =
            |setting| values::whole_number(setting, "workers", 1..=WORKERS_MAX as u64),
            unset "enough if every site hangs: the sum of ((retries + 1) * timeout + pauses) / period of the targets, each at most 1; at least 64, and at most the number of targets";
        /// limit on the bytes of a decoded page that are read, in KiB, 1 to 65536
        option body_max [BODY_MAX]: u64 =
            |setting| values::whole_number(setting, "KiB", 1..=65_536), default "1024";
        /// CA certificates to trust for https URLs: system, mozilla (as of this
        /// version), or a path or PEM text
        option roots [ROOTS]: Roots =
            |setting| setting.parse("system, mozilla, or CA certificates in PEM", Roots::parse),
            unset "the system's, or mozilla if the system has none";
        /// name servers to query instead of the servers of resolv.conf, up to three, ip
        /// or ip:port separated by commas
        option resolver [RESOLVER]: NameServers =
            |setting| setting.parse("up to three of ip, ip:port or [ip]:port", NameServers::parse);
        /// cache the answers of name servers for their TTL, at most a day, instead of
        /// querying for each probe
        switch dns_cache [DNS_CACHE];
    }
}

common::flags! {
    /// The delivery of results.
    pub(super) struct DeliveryFlags {
        /// prefix of the names of topics; version 1.1.0 used webactiviity-
        option topic_prefix [TOPIC_PREFIX]: String = parse_topic_prefix, default TOPIC_PREFIX;
        /// replicas of a topic that this tracker creates, 1 to 100
        option topic_replication [TOPIC_REPLICATION]: u64 =
            |setting| values::whole_number(setting, "copies", 1..=100),
            unset "3, or the number of brokers if that is less";
        /// retention of a topic that this tracker creates, in hours, 1 to 876000
        option topic_retention [TOPIC_RETENTION]: u64 =
            |setting| values::whole_number(setting, "hours", 1..=876_000),
            unset "the broker's own value";
        /// folder in which results wait for Kafka, for this tracker alone
        option spool [SPOOL], unset "results wait in memory";
        /// limit on the size of the spool folder, in MiB, 16 to 1048576
        option spool_max [SPOOL_MAX]: u64 =
            |setting| values::whole_number(setting, "MiB", 16..=1_048_576), default "1024";
    }
}

common::flags! {
    /// The mode of the program.
    pub(super) struct ModeFlags {
        /// read all settings, files and certificates, print a report, and exit: with 0,
        /// or with 2 and the setting that is not valid
        switch check [];
        /// probe each target once and exit: with 0 if all are healthy, else with 1
        switch once [];
        /// write results to standard output, one JSON object per line
        switch json [];
    }
}

common::command! {
    /// Probes websites on a fixed schedule and writes every result to Apache Kafka, or to
    /// standard output if no Kafka server is set. Each flag can also be set by the
    /// environment variable in brackets; the variable wins over the flag.
    pub(super) struct TrackerCommand {
        targets: TargetFlags,
        kafka: KafkaFlags,
        delivery: DeliveryFlags,
        mode: ModeFlags,
    }
}

/// The tracker and its flags, for tests of the documentation.
pub const COMMAND: CommandSpec = TrackerCommand::SPEC;

fn parse_topic_prefix(setting: &SettingValue) -> Result<String, UsageError> {
    setting.parse("a prefix like webactivity-", domain::parse_topic_prefix)
}
