//! Tests in which Kafka or PostgreSQL is down, loses data, or refuses requests that it accepted
//! before.

use testkit::acls::{self, TopicOperation};
use testkit::services::shared;

use crate::support::{Recorder, World, ok};

/// Tests that break services, and therefore use their own services.
mod broken_on_purpose {
    use std::time::{Duration, Instant};

    use testkit::services::connect;

    use crate::own_services::with_own_services;
    use crate::support::{Recorder, World, eventually, ok, outage_warnings};

    /// A recorder is killed after the commit in PostgreSQL, and before the commit of the group
    /// offset in Kafka.
    ///
    /// A trigger delays the commit in PostgreSQL. Meanwhile the broker is killed. Then the commit
    /// continues: the rows are stored, but the group offset can't be committed.
    #[test]
    fn rows_are_written_once_when_the_recorder_is_killed_between_the_two_commits() {
        with_own_services(1, |services| {
            let mut world = World::new(services);
            world.produce([ok(0), ok(1)]);
            let recorder = world.recorder();
            world.expect_position(2);
            let group = |world: &World| {
                // A new cluster has no coordinator yet.
                world
                    .client()
                    .committed_offset("websites-availability", &world.topic, 0)
                    .ok()
                    .flatten()
            };
            eventually("first group offset", || (group(&world) == Some(2)).then_some(()));
            world
                .database
                .batch_execute(
                    "create function wait() returns trigger language plpgsql as \
                 'begin perform pg_advisory_xact_lock_shared(4711); return null; end';
                 create constraint trigger wait after update on availability_offset \
                 deferrable initially deferred for each row execute function wait();",
                )
                .unwrap();
            let mut gate = connect(services, &world.uri).unwrap();
            gate.execute("select pg_advisory_lock(4711)", &[]).unwrap();
            world.produce([ok(2), ok(3), ok(4)]);
            let waiting =
                "select count(*) from pg_locks where locktype = 'advisory' and not granted";
            world.expect(waiting, 1);
            services.kill_broker(1).unwrap();
            gate.execute("select pg_advisory_unlock(4711)", &[]).unwrap();
            world.expect_position(5);
            recorder.kill();
            services.start_broker(1).unwrap();
            assert_eq!(
                eventually("group offset", || group(&world)),
                2,
                "the group was not committed"
            );
            let recorder = world.recorder();
            world.produce([ok(5)]);
            world.expect_position(6);
            assert_eq!(world.offsets(), [0, 1, 2, 3, 4, 5]);
            eventually("group offset", || (group(&world) == Some(6)).then_some(()));
            recorder.stop();
        });
    }

    /// Kafka and PostgreSQL are down at the start and come up one after the other. Then each
    /// service goes down once more.
    #[test]
    fn kafka_and_postgresql_may_be_down_at_the_start_and_later() {
        with_own_services(1, |services| {
            let mut world = World::new(services);
            world.produce([ok(0)]);
            services.stop_postgres().unwrap();
            services.kill_broker(1).unwrap();
            let recorder = world.recorder();
            let started = Instant::now();
            recorder.expect_log("WARN  recorder::report::outage_log] postgresql: localhost:");
            let other = world.recorder();
            other.expect_log("recording 1 domain to ");
            let (status, took, log) = other.stop();
            assert!(status.success() && took.as_secs() < 8, "{status} {took:?} {log}");
            services.start_postgres().unwrap();
            recorder.expect_log("postgresql: recovered after");
            recorder.expect_log("WARN  recorder::report::outage_log] kafka: ");
            services.start_broker(1).unwrap();
            world.database = connect(services, &world.uri).unwrap();
            world.expect_position(1);
            recorder.expect_log("kafka: recovered after");

            // Records that are written during a later outage wait in Kafka.
            let before = recorder.log();
            services.kill_postgres().unwrap();
            world.produce([ok(1), ok(2)]);
            expect_new_warning(&recorder, &before, "postgresql");
            services.start_postgres().unwrap();
            world.database = connect(services, &world.uri).unwrap();
            world.expect_position(3);
            let before = recorder.log();
            services.kill_broker(1).unwrap();
            expect_new_warning(&recorder, &before, "kafka");
            services.start_broker(1).unwrap();
            world.produce([ok(3)]);
            world.expect_position(4);
            assert_eq!(world.offsets(), [0, 1, 2, 3]);
            eventually("the end of the second outage", || {
                (recorder.log().matches("kafka: recovered after").count() == 2).then_some(())
            });
            let (_, took, log) = recorder.stop();
            assert!(took.as_secs() < 8, "{took:?}");
            // An outage is logged at its beginning, once a minute, and at its end.
            let warnings_max = 3 + outage_warnings(started.elapsed());
            assert!((4..=warnings_max).contains(&log.matches("WARN").count()), "{log}");
            assert_eq!(log.matches("recovered").count(), 4, "{log}");
        });
    }

    /// The broker accepts connections, but answers no request.
    #[test]
    fn a_broker_that_hangs_does_not_delay_a_stop() {
        with_own_services(1, |services| {
            let mut world = World::new(services);
            world.produce([ok(0)]);
            let recorder = world.recorder();
            world.expect_position(1);
            services.pause_broker(1).unwrap();
            recorder.expect_log("starting at offset");
            let (status, took, _) = recorder.stop();
            services.resume_broker(1).unwrap();
            assert!(status.success() && took.as_secs() < 8, "{status} {took:?}");
        });
    }

    /// If no broker accepts the certificate any more, this is an outage of Kafka. It is logged once
    /// for all domains.
    #[test]
    fn a_refused_certificate_is_logged_once_for_all_domains() {
        with_own_services(1, |services| {
            let mut worlds: Vec<_> = (0..8).map(|_| World::new(services)).collect();
            for world in &mut worlds {
                world.produce([ok(0)]);
            }
            let names: Vec<_> = worlds.iter().map(|world| world.domain.to_string()).collect();
            let path = |path: &std::path::Path| path.display().to_string();
            let ca = std::env::temp_dir().join(testkit::services::fresh_name("ca"));
            std::fs::copy(&services.kafka_ca, &ca).unwrap();
            let recorder = worlds[0].recorder_with(&[
                ("DOMAIN", &names.join(",")),
                ("KAFKA", &services.kafka_tls),
                ("CA", &path(&ca)),
                ("CERT", &path(&services.kafka_cert)),
                ("KEY", &path(&services.kafka_key)),
            ]);
            let recorded = "select sum(next_offset)::bigint from availability_offset";
            worlds[0].expect(recorded, 8);
            let started = Instant::now();
            services.kill_broker(1).unwrap();
            std::fs::copy(services.cert("foreign-ca.crt"), &ca).unwrap();
            services.start_broker(1).unwrap();
            recorder.expect_log("WARN  recorder::report::outage_log] kafka: ");
            // In this time each domain fails at least once.
            std::thread::park_timeout(Duration::from_secs(15));
            std::fs::copy(&services.kafka_ca, &ca).unwrap();
            for world in &mut worlds {
                world.produce([ok(1)]);
            }
            worlds[0].expect(recorded, 16);
            recorder.expect_log("kafka: recovered after");
            let (_, _, log) = recorder.stop();
            let warnings = log.matches("WARN").count();
            assert!((1..=outage_warnings(started.elapsed())).contains(&warnings), "{log}");
            std::fs::remove_file(&ca).unwrap();
        });
    }

    /// Waits for a new warning about an outage. `before` is the log up to now.
    fn expect_new_warning(recorder: &Recorder, before: &str, service: &str) {
        let warning = format!("WARN  recorder::report::outage_log] {service}: ");
        let count = before.matches(&warning).count();
        eventually("a new warning", || {
            (recorder.log().matches(&warning).count() > count).then_some(())
        });
    }
}

#[test]
fn records_deleted_by_retention_are_a_gap() {
    let mut world = World::new(&shared().unwrap());
    world.produce([ok(0), ok(1)]);
    let recorder = world.recorder();
    world.expect_position(2);
    recorder.stop();
    world.produce((2..7).map(ok));
    // Has the same effect as retention.
    world.delete_records(7);
    world.produce([ok(7)]);
    let recorder = world.recorder();
    world.expect_position(8);
    assert_eq!(world.offsets(), [0, 1, 7]);
    let sql = "select from_offset, to_offset, reason from availability_gap";
    let gap = world.database.query_one(sql, &[]).unwrap();
    assert_eq!((gap.get::<_, i64>(0), gap.get::<_, Option<i64>>(1)), (2, Some(7)));
    assert!(gap.get::<_, &str>(2).starts_with("retention passed"));
    recorder.stop();
}

/// A wrong password is logged and retried. An operator may correct it in the file with the URI, or
/// in the role.
#[test]
fn a_wrong_password_is_logged_and_may_be_corrected() {
    let services = shared().unwrap();
    let mut world = World::new(&services);
    let role = testkit::services::fresh_name("role").replace('-', "_");
    let name = world.uri.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned();
    let make = format!(
        "create role {role} login password 'another'; alter database {name} owner to {role}"
    );
    world.database.batch_execute(&make).unwrap();
    world.produce([ok(0)]);
    let (host, port) = (&services.postgres_host, services.postgres_port);
    let uri = |password: &str| {
        format!("postgres://{role}:{password}@{host}:{port}/{name}?sslmode=verify-full\n")
    };
    let file = std::env::temp_dir().join(testkit::services::fresh_name("uri"));
    std::fs::write(&file, uri("hunter2")).unwrap();
    let path = file.display().to_string();
    let recorder = world.recorder_with(&[("POSTGRES", ""), ("POSTGRES_FILE", &path)]);
    recorder.expect_log("password authentication failed");
    std::fs::write(&file, uri("another")).unwrap();
    world.expect_position(1);
    recorder.stop();
    std::fs::write(&file, uri("hunter3")).unwrap();
    let recorder = world.recorder_with(&[("POSTGRES", ""), ("POSTGRES_FILE", &path)]);
    recorder.expect_log("password authentication failed");
    world.database.batch_execute(&format!("alter role {role} password 'hunter3'")).unwrap();
    world.produce([ok(1)]);
    world.expect_position(2);
    let (_, _, log) = recorder.stop();
    assert!(!log.contains("hunter"), "{log}");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn domains_share_a_limited_number_of_connections() {
    let services = shared().unwrap();
    let mut worlds: Vec<_> = (0..6).map(|_| World::new(&services)).collect();
    for world in &mut worlds {
        world.produce([ok(0)]);
    }
    let names: Vec<_> = worlds.iter().map(|world| world.domain.to_string()).collect();
    let ca = services.postgres_ca.display().to_string();
    let uri = worlds[0].uri.clone();
    let recorder = Recorder::start(&[
        ("DOMAIN", &names.join(",")),
        ("KAFKA", &services.kafka_plain),
        ("POSTGRES", &uri),
        ("PGCA", &ca),
        ("POSTGRES_CONNECTIONS", "2"),
    ]);
    let recorded = "select count(*) from availability_offset where next_offset = 1";
    worlds[0].expect(recorded, 6);
    let sessions = "select count(*) from pg_stat_activity \
                    where datname = current_database() and application_name like 'recorder-%'";
    // Two connections for rows, and one connection for leases.
    assert_eq!(worlds[0].number(sessions), Some(3));
    let (status, took, log) = recorder.stop();
    assert!(status.success() && took.as_secs() < 8, "{status} {took:?}");
    assert!(log.contains("inserted rows: 6,"), "{log}");
}

#[test]
fn all_partitions_are_recorded() {
    let mut world = World::new(&shared().unwrap());
    world.client().create_topic_with(&world.topic, 3, 1, &[]).unwrap();
    for (partition, seconds) in [(0, 0..5), (1, 100..103), (2, 200..207)] {
        world.produce_to(partition, seconds.map(ok));
    }
    let recorder = world.recorder();
    let topic = world.topic.clone();
    let positions =
        format!("select sum(next_offset)::bigint from availability_offset where topic = '{topic}'");
    world.expect(&positions, 15);
    world.produce_to(1, [ok(103)]);
    world.expect(&positions, 16);
    let table = world.table();
    let distinct = format!("select count(distinct event_time) from {table}");
    assert_eq!(world.number(&distinct), Some(16));
    assert_eq!(world.offsets().len(), 16);
    recorder.stop();
}

/// Kafka refuses to let the recorder read three topics. This is logged in one line, and retried.
#[test]
fn a_missing_right_in_kafka_is_logged_once_for_all_domains() {
    let services = shared().unwrap();
    let worlds: Vec<_> = (0..3).map(|_| World::new(&services)).collect();
    for world in &worlds {
        world.client().create_topic_with(&world.topic, 1, 1, &[]).unwrap();
        world.produce_to(0, [ok(0)]);
        acls::deny(&services, &world.topic, TopicOperation::Read).unwrap();
    }
    let names: Vec<_> = worlds.iter().map(|world| world.domain.to_string()).collect();
    let recorder = worlds[0].recorder_with(&[
        ("DOMAIN", &names.join(",")),
        ("KAFKA", &services.kafka_sasl_plaintext),
        ("SASL_MECHANISM", "PLAIN"),
        ("SASL_USERNAME", &services.sasl_username),
        ("SASL_PASSWORD", &services.sasl_password),
    ]);
    recorder.expect_log("TopicAuthorizationFailed");
    recorder.expect_log("more)");
    for world in &worlds {
        acls::remove_all(&services, &world.topic).unwrap();
    }
    recorder.expect_log("kafka: recovered after");
    let mut worlds = worlds;
    worlds[0].expect("select sum(next_offset)::bigint from availability_offset", 3);
    let (_, _, log) = recorder.stop();
    assert_eq!(log.matches("AuthorizationFailed").count(), 1, "{log}");
    assert!(log.contains("the rights to describe and to read"), "{log}");
}
