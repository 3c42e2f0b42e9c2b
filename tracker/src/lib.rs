//! `tracker`: probes websites on a fixed schedule and writes every result to
//! Apache Kafka.
//!
//! ```text
//! ticker ──queue──▶ workers ──results──▶ saver ──shared_spool──▶ producer ──▶ Kafka
//! (due)   bounded   (probe)   bounded    (spool: memory, disk)
//! ```
//!
//! The saver stands before the producer because an exchange with Kafka can take
//! half a minute, and a result is to have its number, and to be safe, within some
//! milliseconds.
//!
//! This file owns every channel and every join; with no Kafka server given,
//! `output` stands in the place of both.

pub mod check;
pub mod delivery;
pub mod output;
pub mod probe;
pub mod reload;
pub mod schedule;
pub mod settings;
pub mod targets;
pub mod ticker;
pub mod workers;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use common::identity::Run;
use common::settings::{Environment, UsageError};
use common::stop::{self, Cutoff, SignalThread};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never};

use check::Plan;
use delivery::RunTotals;
use delivery::producer::ResultProducer;
use delivery::saver::Saver;
use delivery::shared_spool::SharedSpool;
use output::OutputFormat;
use probe::Prober;
use probe::net::resolver::Sources;
use reload::Reload;
use settings::{Look, Settings, Sink};
use targets::Target;
use ticker::Rhythm;
use workers::cgroup::memory_bytes_max;
use workers::network::Network;
use workers::sizing::{WAITING_BYTES_MAX, WORKERS_MAX, WorstCase};
use workers::{Pool, Probed};

/// Results on their way from the workers. The saver takes them at once, unless the
/// disk hangs; should that many come in less time, workers wait, and the ticker
/// counts the slots that are skipped for it.
const RESULTS_MAX: usize = 65_536;

/// How long after a stop all must be over: the program ends within 8 s, as
/// Docker kills after 10.
const STOP_ALL: Duration = Duration::from_secs(7);
/// How much of that probes that still run may take.
const STOP_PROBES: Duration = Duration::from_secs(3);
/// What threads may take to notice that all is over.
const STOP_SLACK: Duration = Duration::from_millis(500);

/// The bound on a connection to a broker with TLS and SASL. It is below
/// [`STOP_ALL`], as a connect is the one wait that a stop can't cut short.
const CONNECT_TIMEOUT_MS: u64 = 5_000;

/// Runs until a signal, or, with `--once`, until every target was probed.
///
/// The exit code is 1 when the program could not start or, with `--once`, when
/// a target was not healthy or a result was lost.
pub fn run(settings: Settings) -> ExitCode {
    if settings.check {
        return common::logger::print(&Plan::of(&settings).to_string());
    }
    let once = settings.once;
    match pipeline(settings) {
        Ok(account) if !once || account == RunTotals::default() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn pipeline(settings: Settings) -> io::Result<RunTotals> {
    let Settings {
        location,
        location_cut,
        listing,
        targets,
        targets_of,
        roots,
        workers,
        sentinels,
        resolver,
        dns_cache,
        sink,
        once,
        ..
    } = settings;
    if location_cut {
        log::warn!("location {location:?}: the host's name, cut to 32 characters");
    }
    if !once {
        log::info!("from {location:?}: {}", check::summary(&targets, targets_of));
    }
    say_insecure(&targets);
    let workers_max = workers_max(&targets, workers, once);
    let (signals, stop) = SignalThread::start()?;
    let sources = Sources { servers: resolver, cache: dns_cache, ..Sources::default() };
    let prober = Prober::new(sources, &roots).map_err(io::Error::other)?;
    let rhythm = match sink {
        _ if once => Rhythm::Once,
        Sink::Print { .. } => Rhythm::Grid { look_at_once: true },
        Sink::Kafka { .. } => Rhythm::Grid { look_at_once: false },
    };

    let cutoff = Cutoff::new(stop.clone(), STOP_ALL);
    let (results_in, results_out) = bounded(RESULTS_MAX);
    // Says that no more results will come, though a probe that was given up
    // still holds a sender, and by when all must be over.
    let (say_no_more, no_more) = bounded(1);
    let url_chars = targets.iter().map(|target| target.called().chars().count()).max();
    let (account_in, account_out) = bounded(1);
    let sink = start_sink(sink, &cutoff, results_out, no_more, url_chars.unwrap_or(0), account_in)?;

    let mut pool = Pool::new(
        workers_max,
        &location,
        prober,
        Network::new(sentinels),
        results_in,
        stop.clone(),
    );
    // Somebody who looks once has nothing to read again.
    let (reload, lists) = match once {
        true => (None, never()),
        false => {
            let read = move || {
                let listed = listing.read(&Environment::from_process())?;
                say_insecure(&listed.targets);
                Ok::<_, UsageError>(listed.targets)
            };
            let (reload, lists) = Reload::start(read, workers)?;
            (Some(reload), lists)
        }
    };
    let ticker = {
        let stop = stop.clone();
        Builder::new().name("ticker".to_owned()).spawn(move || {
            ticker::run(&targets, &location, rhythm, &mut pool, &lists, &stop);
            pool
        })?
    };

    match ticker.join() {
        Ok(pool) => match pool.finish(&stop, STOP_PROBES) {
            0 => {}
            running => log::warn!("gave up {running} probes that were still running"),
        },
        Err(_) => log::error!("the ticker panicked"),
    }
    let deadline = cutoff.at().unwrap_or_else(|| Instant::now() + STOP_ALL);
    let _ = say_no_more.send(deadline);
    let account = account_of(sink, &account_out, deadline + STOP_SLACK);
    if let Some(reload) = reload {
        reload.join(deadline + STOP_SLACK);
    }
    signals.join();
    account
}

/// How many workers there may be; for a schedule also says what it needs at worst.
fn workers_max(targets: &[Arc<Target>], given: Option<usize>, once: bool) -> usize {
    match (once, given) {
        // All at once, as somebody waits for it.
        (true, None) => targets.len().min(WORKERS_MAX),
        (true, Some(workers)) => workers.min(targets.len()),
        (false, workers) => {
            let worst_case = WorstCase::of(targets, workers);
            worst_case.say(memory_bytes_max());
            worst_case.workers
        }
    }
}

/// Joins the threads that take the results, once the last of them has given its
/// account.
fn account_of(
    sink: Vec<JoinHandle<()>>,
    account: &Receiver<io::Result<RunTotals>>,
    until: Instant,
) -> io::Result<RunTotals> {
    match account.recv_deadline(until) {
        Ok(account) => {
            // Who gives the account is the last of them.
            sink.into_iter().for_each(|thread| drop(thread.join()));
            account
        }
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the sink panicked")),
        // Only a look-up of a broker's name can hold it that long, a disk that
        // hangs, or a reader of standard output that does not read.
        Err(RecvTimeoutError::Timeout) => {
            let waiting = sink.iter().find(|thread| !thread.is_finished());
            let name = waiting.and_then(|thread| thread.thread().name()).unwrap_or_default();
            Err(io::Error::other(format!("{name}: still waiting at the end: results are lost")))
        }
    }
}

/// One line for each target of which any certificate is taken.
fn say_insecure(targets: &[Arc<Target>]) {
    for target in targets.iter().filter(|target| target.is_insecure()) {
        log::warn!("{}: its certificate is not verified", target.called());
    }
}

/// Starts the threads that take the results; the last one in the end gives its
/// account.
fn start_sink(
    sink: Sink,
    cutoff: &Cutoff,
    results: Receiver<Probed>,
    no_more: Receiver<Instant>,
    url_chars: usize,
    account: Sender<io::Result<RunTotals>>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let start =
        |name: &str, run: Box<dyn FnOnce() + Send>| Builder::new().name(name.to_owned()).spawn(run);
    match sink {
        Sink::Kafka { mut settings, topics, topic_prefix, spool } => {
            settings.cutoff = Some(cutoff.clone());
            settings.connect_timeout_ms = CONNECT_TIMEOUT_MS;
            let run = Run::new().map_err(io::Error::other)?;
            let shared_spool = Arc::new(SharedSpool::new(WAITING_BYTES_MAX));
            let mut saver = Saver::new(Arc::clone(&shared_spool), run.clone());
            if let Some((folder, bytes_max)) = spool {
                saver.use_folder(folder, bytes_max);
            }
            let producer =
                ResultProducer::new(Arc::new(*settings), topics, topic_prefix, shared_spool, run);
            Ok(vec![
                start("saver", Box::new(move || saver.run(&results, &no_more)))?,
                // There is room for the account, and nobody may listen any more.
                start("producer", Box::new(move || drop(account.try_send(Ok(producer.run())))))?,
            ])
        }
        Sink::Print { look } => {
            let format = match look {
                Look::Json => OutputFormat::Json,
                Look::Lines => OutputFormat::Lines { url_chars },
                Look::Picture { in_colour } => OutputFormat::Bars { url_chars, in_colour },
            };
            let run = move || drop(account.try_send(print(&results, &no_more, format)));
            Ok(vec![start("output", Box::new(run))?])
        }
    }
}

fn print(
    results: &Receiver<Probed>,
    no_more: &Receiver<Instant>,
    format: OutputFormat,
) -> io::Result<RunTotals> {
    match output::run(results, no_more, format, &mut io::stdout().lock()) {
        Ok(unhealthy) => Ok(RunTotals { unhealthy, lost: 0 }),
        Err(cause) => {
            // Nobody reads any more, so that there is nothing left to do.
            stop::request();
            match cause.kind() {
                io::ErrorKind::BrokenPipe => Ok(RunTotals { unhealthy: 0, lost: 1 }),
                _ => Err(cause),
            }
        }
    }
}
