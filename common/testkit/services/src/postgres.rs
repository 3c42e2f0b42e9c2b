//! PostgreSQL with TLS. It refuses to run as root, so root starts it as `nobody`. If
//! that user can't reach the set's folder (a checkout below /root, for example), the
//! data and a copy of the programs are in a folder below /tmp, and the set's folder
//! holds a link to it.
//!
//! It listens on 127.0.0.1, and on 127.0.0.2, which is not in its certificate.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use openssl::ssl::{SslConnector, SslMethod};
use postgres::config::SslMode;
use postgres::{Client, Config, NoTls};
use postgres_openssl::MakeTlsConnector;
use rustix::process::Signal;

use crate::certificates::write;
use crate::command_error::CommandError;
use crate::daily::DailyCache;
use crate::interrupt::Interrupt;
use crate::log_excerpt::log_excerpt;
use crate::process::{POLL_INTERVAL, PidFile, UnixUser, command_as, detached};
use crate::report;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Prefix of the folder for data that is not in the set's folder.
const ELSEWHERE: &str = "/tmp/availability-postgres.";

/// The role with a password that must use TLS.
pub(crate) const TLS_ONLY: &str = "tls_only";
/// The role with a password that must not use TLS.
pub(crate) const PLAIN_ONLY: &str = "plain_only";
/// The role without a password: the name in `client.crt`.
pub(crate) const CERTIFICATE: &str = "client";

/// The PostgreSQL of a set.
pub(crate) struct Postgres<'a> {
    set: &'a Path,
    /// The folder with `bin/`, `lib/` and `share/`.
    distribution: PathBuf,
    pub(crate) port: u16,
    passwords: &'a Passwords,
    /// The user that runs PostgreSQL. `None`: the current user.
    user: Option<UnixUser>,
}

/// The passwords of a set's users.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Passwords {
    pub(crate) sasl: String,
    pub(crate) superuser: String,
    pub(crate) tls_only: String,
    pub(crate) plain_only: String,
}

impl<'a> Postgres<'a> {
    pub(crate) fn new(set: &'a Path, jars: &Path, port: u16, passwords: &'a Passwords) -> Self {
        let user = rustix::process::geteuid().is_root().then(nobody);
        Self { set, distribution: jars.join("postgres"), port, passwords, user }
    }

    /// The folder with the data, the log and the pid file.
    pub(crate) fn home(&self) -> PathBuf {
        home(self.set)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.home().join("log")
    }

    pub(crate) fn pid_file(&self) -> PidFile {
        pid_file(self.set)
    }

    fn program(&self, name: &str) -> PathBuf {
        let copy = self.home().join("programs");
        let folder = if copy.is_dir() { copy } else { self.distribution.clone() };
        folder.join("bin").join(name)
    }

    /// Creates the data folder, starts the server and creates its roles.
    pub(crate) fn set_up(
        &self,
        daily: &DailyCache,
        interrupt: &Interrupt,
    ) -> Result<(), CommandError> {
        self.make_home()?;
        let data = self.data();
        daily.copy_or_make("postgres", &data, |data| self.init(data))?;
        let settings = data.join("postgresql.conf");
        let defaults = fs::read_to_string(&settings).map_err(CommandError::at(&settings))?;
        let text = format!("{defaults}\n{}", server_settings(self.port));
        fs::write(&settings, text).map_err(CommandError::at(&settings))?;
        let rules = data.join("pg_hba.conf");
        fs::write(&rules, ACCESS_RULES).map_err(CommandError::at(&rules))?;
        for (certificate, file, mode) in [
            ("postgres.key", "server.key", 0o600),
            ("postgres.crt", "server.crt", 0o644),
            ("ca.crt", "root.crt", 0o644),
        ] {
            let source = self.set.join("certs").join(certificate);
            let text = fs::read_to_string(&source).map_err(CommandError::at(&source))?;
            let file = data.join(file);
            write(&file, &text, mode)?;
            self.give_to_user(&file)?;
        }
        self.launch()?;
        self.wait_for_answer(interrupt)?;
        self.create_roles()
    }

    /// Creates the folder in the set, or where the user can reach it.
    fn make_home(&self) -> Result<(), CommandError> {
        let folder = self.set.join("postgres");
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o755);
        let program = self.distribution.join("bin/postgres");
        if self.user_reaches(self.set) && self.user_reaches(&program) {
            return builder.create(&folder).map_err(CommandError::at(&folder));
        }
        let elsewhere = PathBuf::from(format!("{ELSEWHERE}{:016x}", fastrand::u64(..)));
        builder.create(&elsewhere).map_err(CommandError::at(&elsewhere))?;
        symlink(&elsewhere, &folder).map_err(CommandError::at(&folder))?;
        report(&format!(
            "user nobody can't reach {}, so PostgreSQL's data is in {}",
            self.set.display(),
            elsewhere.display()
        ));
        let mut copy = Command::new("cp");
        copy.args(["-r", "--no-preserve=ownership"]).arg(&self.distribution);
        let output = copy.arg(elsewhere.join("programs")).output();
        let output = output.map_err(CommandError::at(Path::new("cp")))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(CommandError::Refused(format!("copying PostgreSQL's programs: {}", text.trim_end())))
    }

    fn user_reaches(&self, path: &Path) -> bool {
        let mut test = command_as(self.user, "test");
        test.arg("-x").arg(path).stderr(Stdio::null());
        test.status().is_ok_and(|status| status.success())
    }

    fn give_to_user(&self, path: &Path) -> Result<(), CommandError> {
        match self.user {
            Some(UnixUser { uid, gid }) => {
                chown(path, Some(uid), Some(gid)).map_err(CommandError::at(path))
            }
            None => Ok(()),
        }
    }

    /// Creates a data folder that has only the superuser.
    fn init(&self, data: &Path) -> Result<(), CommandError> {
        fs::DirBuilder::new().mode(0o700).create(data).map_err(CommandError::at(data))?;
        let password = self.home().join("password");
        write(&password, &format!("{}\n", self.passwords.superuser), 0o600)?;
        self.give_to_user(data)?;
        self.give_to_user(&password)?;
        let mut command = command_as(self.user, self.program("initdb"));
        command.arg("-D").arg(data).arg("-U").arg("postgres");
        command.arg(format!("--pwfile={}", password.display()));
        command.args(["-A", "scram-sha-256", "--locale=C", "--encoding=UTF8"]);
        let output = command.args(["--no-sync", "--no-instructions"]).output();
        let output = output.map_err(|cause| CommandError::io("initdb", cause))?;
        let _ = fs::remove_file(&password);
        if output.status.success() {
            return Ok(());
        }
        let log = self.log();
        fs::write(&log, [output.stdout, output.stderr].concat()).map_err(CommandError::at(&log))?;
        Err(self.not_started())
    }

    /// Starts the server without waiting for it.
    pub(crate) fn launch(&self) -> Result<(), CommandError> {
        let log = self.log();
        fs::write(&log, "").map_err(CommandError::at(&log))?;
        let mut command = detached(self.user, &self.program("postgres"));
        command.arg("-D").arg(self.data());
        if self.pid_file().launch(command, &log)? { Ok(()) } else { Err(self.not_started()) }
    }

    pub(crate) fn wait_for_answer(&self, interrupt: &Interrupt) -> Result<(), CommandError> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.answers() {
            interrupt.check()?;
            // PostgreSQL continues if only one of its two addresses is in use.
            let text = fs::read(self.log()).unwrap_or_default();
            let has_all_addresses = !String::from_utf8_lossy(&text).contains("could not bind");
            let runs = self.pid_file().running().is_some();
            if !has_all_addresses || !runs || Instant::now() >= deadline {
                return Err(self.not_started());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn not_started(&self) -> CommandError {
        CommandError::NotStarted(format!("PostgreSQL did not start:{}", log_excerpt(&self.log())))
    }

    /// Whether PostgreSQL opens a session. While it starts, recovers or stops, it
    /// responds with an error.
    pub(crate) fn answers(&self) -> bool {
        self.superuser().ssl_mode(SslMode::Disable).connect(NoTls).is_ok()
    }

    fn superuser(&self) -> Config {
        let mut config = Config::new();
        config.host("localhost").hostaddr(std::net::Ipv4Addr::LOCALHOST.into()).port(self.port);
        config.user("postgres").password(&self.passwords.superuser).dbname("postgres");
        config.connect_timeout(ANSWER_TIMEOUT);
        config
    }

    /// Connects over TLS, which verifies the server's certificate and its name.
    fn connect_with_tls(&self) -> Result<Client, CommandError> {
        let connector = || {
            let mut builder = SslConnector::builder(SslMethod::tls_client())?;
            builder.set_ca_file(self.set.join("certs/ca.crt"))?;
            Ok(MakeTlsConnector::new(builder.build()))
        };
        let connector =
            connector().map_err(CommandError::certificate::<openssl::error::ErrorStack>("ca"))?;
        Ok(self.superuser().ssl_mode(SslMode::Require).connect(connector)?)
    }

    /// Creates the roles that [`ACCESS_RULES`] name, each with its database.
    fn create_roles(&self) -> Result<(), CommandError> {
        let mut client = self.connect_with_tls()?;
        let Passwords { tls_only, plain_only, .. } = self.passwords;
        for (role, password) in
            [(TLS_ONLY, tls_only.as_str()), (PLAIN_ONLY, plain_only), (CERTIFICATE, "")]
        {
            let login = match password {
                "" => "login".to_owned(),
                password => format!("login password '{password}'"),
            };
            client.batch_execute(&format!("create role {role} {login}"))?;
            // A database can't be created in a transaction, so each statement is alone.
            client.batch_execute(&format!("create database {role} owner {role}"))?;
        }
        Ok(())
    }

    /// Ends sessions and writes a checkpoint.
    pub(crate) fn stop(&self) -> Result<(), CommandError> {
        self.pid_file().stop(&[Signal::INT, Signal::QUIT], STOP_TIMEOUT)
    }
}

/// The user `nobody` of this machine.
fn nobody() -> UnixUser {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = users.lines().find_map(|line| line.strip_prefix("nobody:"));
    let mut numbers = line.unwrap_or_default().split(':').skip(1).map(|text| text.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(uid), Some(gid)) => UnixUser { uid, gid },
        _ => UnixUser { uid: 65_534, gid: 65_534 },
    }
}

fn home(set: &Path) -> PathBuf {
    let folder = set.join("postgres");
    folder.canonicalize().unwrap_or(folder)
}

pub(crate) fn pid_file(set: &Path) -> PidFile {
    PidFile::new(home(set).join("pid"))
}

/// Ends PostgreSQL at once; the next start recovers as after a crash.
pub(crate) fn kill(set: &Path) -> Result<(), CommandError> {
    pid_file(set).stop(&[Signal::QUIT], STOP_TIMEOUT)
}

/// Removes the data if it is not in the set's folder.
pub(crate) fn remove_elsewhere(set: &Path) -> Result<(), CommandError> {
    let home = home(set);
    let is_ours = || {
        let owner = fs::metadata(&home).map(|metadata| metadata.uid());
        owner.is_ok_and(|uid| uid == rustix::process::geteuid().as_raw())
    };
    if home.to_string_lossy().starts_with(ELSEWHERE) && is_ours() {
        fs::remove_dir_all(&home).map_err(CommandError::at(&home))?;
    }
    Ok(())
}

fn server_settings(port: u16) -> String {
    format!(
        "\
listen_addresses = '127.0.0.1,127.0.0.2'
port = {port}
unix_socket_directories = ''
max_connections = 200
shared_buffers = 32MB
ssl = on
ssl_ca_file = 'root.crt'
log_line_prefix = '%m [%p] %u@%d '
"
    )
}

/// Three roles with one way to log in each: with TLS, without TLS, and by the
/// certificate `client.crt`.
const ACCESS_RULES: &str = "\
# TYPE     DATABASE  USER        ADDRESS      METHOD
hostssl    all       tls_only    127.0.0.0/8  scram-sha-256
host       all       tls_only    127.0.0.0/8  reject
hostnossl  all       plain_only  127.0.0.0/8  scram-sha-256
host       all       plain_only  127.0.0.0/8  reject
hostssl    all       client      127.0.0.0/8  cert
host       all       client      127.0.0.0/8  reject
host       all       all         127.0.0.0/8  scram-sha-256
";
