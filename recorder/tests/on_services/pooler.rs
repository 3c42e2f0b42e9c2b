//! Tests of recorders behind PgBouncer, in the two pool modes that support transactions.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::fuzz;
use testkit::services::{Services, connect, fresh_name, shared};

use crate::support::{Recorder, World, eventually, result};

/// The uid and gid of `nobody`: PgBouncer refuses to run as root.
const NOBODY: u32 = 65_534;
/// The time in which recorders are killed and restarted.
const RESTARTS: Duration = Duration::from_secs(12);
/// A variable that all recorders share.
const LEVEL: (&str, &str) = ("RUST_LOG", "warn,recorder=info,common=info");

/// A PgBouncer in front of the PostgreSQL of the services.
struct PgBouncer {
    child: Child,
    folder: PathBuf,
}

impl PgBouncer {
    fn start(services: &Services, mode: &str) -> Self {
        let folder = std::env::temp_dir().join(fresh_name("pgbouncer"));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let file = folder.join("pgbouncer.ini");
        // The pool has fewer sessions than the recorders have connections, so sessions are shared.
        let text = format!(
            "[databases]\n\
             * = host=127.0.0.1 port={} user=postgres password={}\n\
             [pgbouncer]\n\
             listen_port = 6432\n\
             unix_socket_dir = {}\n\
             auth_type = any\n\
             pool_mode = {mode}\n\
             default_pool_size = {}\n\
             max_client_conn = 100\n",
            services.postgres_port,
            services.postgres_password,
            folder.display(),
            if mode == "transaction" { 3 } else { 20 }
        );
        fs::write(&file, text).unwrap();
        let installed = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
        let program = installed.into_iter().find(|path| fs::metadata(path).is_ok());
        let mut command = Command::new(program.unwrap_or("pgbouncer"));
        command.arg("-q").arg(&file).stdout(Stdio::null());
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
            chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
            command.uid(NOBODY).gid(NOBODY);
        }
        let child = command.spawn().expect("PgBouncer, which scripts/test installs");
        let socket = folder.join(".s.PGSQL.6432");
        eventually("PgBouncer", || socket.exists().then_some(()));
        Self { child, folder }
    }

    /// The URI of the database of a world, through PgBouncer.
    fn uri(&self, world: &World) -> String {
        let name = world.uri.split('?').next().unwrap().rsplit('/').next().unwrap();
        format!("host={} port=6432 user=postgres dbname={name}", self.folder.display())
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Two domains, each with its own recorder, in the same database.
fn two_domains(services: &Services) -> [World; 2] {
    let first = World::new(services);
    let mut second = World::new(services);
    second.uri.clone_from(&first.uri);
    second.database = connect(services, &first.uri).unwrap();
    [first, second]
}

fn start(world: &World, uri: &str) -> Recorder {
    world.recorder_with(&[("POSTGRES", uri), LEVEL])
}

/// The settings that recorders have changed in a session of the pool.
fn changed_settings(uri: &str) -> Vec<String> {
    let mut client = postgres::Client::connect(uri, postgres::NoTls).unwrap();
    let sql = "select name || '=' || setting from pg_settings where source = 'session' and name in \
        ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', \
        'client_min_messages', 'search_path')";
    let rows = client.simple_query(sql).unwrap();
    let text = |message: &postgres::SimpleQueryMessage| match message {
        postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    rows.iter().filter_map(text).collect()
}

/// Every row is in the table of its own domain, exactly once. It does not matter which session runs
/// a transaction, or how often recorders are killed.
fn rows_stay_in_their_tables(mode: &str) {
    let services = shared().unwrap();
    let mut worlds = two_domains(&services);
    let pooler = PgBouncer::start(&services, mode);
    let uri = pooler.uri(&worlds[0]);
    let mut recorders: Vec<_> = worlds.iter().map(|world| start(world, &uri)).collect();
    let mut written = 0;
    let mut write = |worlds: &mut [World; 2]| {
        for world in worlds {
            let url = format!("https://{}/", world.domain);
            world.produce((written..written + 3).map(|n| result(n, "sydney", &url, "ok")));
        }
        written += 3;
        written
    };
    let started = Instant::now();
    let (mut restarts, mut slowest) = (0, Duration::ZERO);
    while started.elapsed() < fuzz::budget(RESTARTS) || restarts < 4 {
        let count = write(&mut worlds);
        let index = restarts % 2;
        let killed = std::mem::replace(&mut recorders[index], start(&worlds[index], &uri));
        killed.kill();
        let waited = Instant::now();
        for world in &mut worlds {
            world.expect_position(count);
        }
        slowest = slowest.max(waited.elapsed());
        restarts += 1;
    }
    println!("{mode}: {restarts} restarts, {written} results, slowest {slowest:?}");
    for world in &mut worlds {
        let wrong = format!(
            "select count(*) from {} where url <> 'https://{}/'",
            world.table(),
            world.domain
        );
        assert_eq!(world.number(&wrong), Some(0), "rows of another domain");
        assert_eq!(world.offsets(), (0..written).collect::<Vec<_>>());
    }
    for recorder in &recorders {
        let log = recorder.log();
        for code in ["42P05", "08P01", "26000"] {
            assert!(!log.contains(code), "{log}");
        }
    }
    // The lease of a killed recorder is valid for 5 s.
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
    // No setting of a recorder stays in a session that other programs use.
    assert_eq!(changed_settings(&uri), Vec::<String>::new());
    for recorder in recorders {
        let (status, _, log) = recorder.stop();
        assert!(status.success(), "{log}");
    }
}

#[test]
fn rows_stay_in_their_tables_behind_a_pooler_in_transaction_mode() {
    rows_stay_in_their_tables("transaction");
}

#[test]
fn rows_stay_in_their_tables_behind_a_pooler_in_session_mode() {
    rows_stay_in_their_tables("session");
}
