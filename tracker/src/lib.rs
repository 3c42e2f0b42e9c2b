//! `tracker`: probes websites on a fixed schedule and writes every result to Apache Kafka.
//!
//! ```text
//! targets ─▶ ticker ─▶ workers ─▶ fan-out ─▶ saver ─▶ producer ─▶ Kafka
//!            (when      (probe,              (spool)
//!             due)       retry)         └──▶ output ─▶ standard output
//! ```
//!
//! 1. `settings` parses flags and variables; `targets` reads the list of targets.
//! 2. The `ticker` thread enqueues each target when it is due (`schedule`). SIGHUP replaces its list
//!    of targets (`reload`).
//! 3. A worker thread (`workers`) probes the target (`probe`), retries a failure, and publishes the
//!    result to the fan-out, which builds the record. The channel behind it is bounded by
//!    `RECORDS_MAX`.
//! 4. The `saver` thread (`delivery`) numbers the record and stores it in the spool, in memory and
//!    on disk.
//! 5. The `producer` thread sends the spool to Kafka. It is a thread of its own because an exchange
//!    with Kafka can take half a minute, and a record has to be stored within milliseconds.
//!
//! Without a Kafka server, the `output` thread replaces saver and producer, and prints the records.
//!
//! This file owns all channels and joins all threads.

mod check;
mod delivery;
mod output;
pub mod probe;
mod reload;
mod schedule;
pub mod settings;
pub mod targets;
mod ticker;
mod workers;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use common::counted::counted;
use common::identity::Run;
use common::settings::{Environment, UsageError};
use common::stop::{self, Cutoff, SignalThread, Stop};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never};

use check::CheckReport;
use delivery::RunTotals;
use delivery::producer::ResultProducer;
use delivery::saver::Saver;
use delivery::shared_spool::SharedSpool;
use output::OutputFormat;
use probe::Prober;
use probe::net::resolver::ResolverConfig;
use reload::ReloadThread;
use settings::{Destination, OutputStyle, RunTimings, TrackerSettings};
use targets::{Target, TargetSource};
use ticker::{Mode, Reloaded};
use workers::cgroup::memory_bytes_max;
use workers::network::NetworkCheck;
use workers::sizing::{SPOOL_MEMORY_BYTES_MAX, WORKERS_MAX, WorstCase};
use workers::{Pool, ResultFanOut, TargetRecord};

/// Most records between workers and saver. The saver empties the channel at once unless the disk
/// hangs. While the channel is full, workers wait, and the ticker counts the slots that are missed
/// meanwhile.
const RECORDS_MAX: usize = 65_536;

/// Runs until a signal, or with `--once` until every target is probed.
///
/// The exit code is 1 if the tracker can't start or, with `--once`, if a target is not healthy or a
/// result is lost.
pub fn run(settings: TrackerSettings) -> ExitCode {
    if settings.check {
        return common::logger::print(&CheckReport::new(&settings).to_string());
    }
    let once = settings.once;
    match run_pipeline(settings) {
        Ok(totals) if !once || totals == RunTotals::default() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts all threads, waits for the end and joins them, each group after the threads that feed it.
fn run_pipeline(settings: TrackerSettings) -> io::Result<RunTotals> {
    log_start(&settings);
    let TrackerSettings { location, targets, once, timings, .. } = settings;
    let workers_max = choose_workers_max(&targets, settings.workers, &timings, once);
    let (signals, stop) = SignalThread::start()?;
    let resolver_config = ResolverConfig {
        servers: settings.resolver,
        cache: settings.dns_cache,
        ..ResolverConfig::default()
    };
    let prober = Prober::new(resolver_config, &settings.roots).map_err(io::Error::other)?;
    let mode = match settings.destination {
        _ if once => Mode::Once,
        Destination::StandardOutput { .. } => Mode::Periodic { first_round_at_once: true },
        Destination::Kafka { .. } => Mode::Periodic { first_round_at_once: false },
    };

    let cutoff = Cutoff::new(stop.clone(), timings.stop_grace);
    let (records_in, records_out) = bounded(RECORDS_MAX);
    let fan_out = ResultFanOut::new(&location, records_in);
    let label_chars = targets.iter().map(|target| target.label().chars().count()).max();
    let delivery = Delivery::start(
        settings.destination,
        &timings,
        &cutoff,
        records_out,
        label_chars.unwrap_or(0),
    )?;
    let network = NetworkCheck::new(settings.sentinels);
    let mut pool =
        Pool::new(workers_max, prober, network, timings.retry_pause, fan_out, stop.clone());
    // With --once there is no second list.
    let (reload, reloads) = match once {
        true => (None, never()),
        false => {
            let (reload, reloads) = start_reload(settings.source, settings.workers, &timings)?;
            (Some(reload), reloads)
        }
    };
    let ticker = {
        let stop = stop.clone();
        Builder::new().name("ticker".to_owned()).spawn(move || {
            ticker::run(&targets, &location, mode, &mut pool, &reloads, &stop);
            pool
        })?
    };

    join_ticker_and_workers(ticker, &stop, &timings);
    let deadline = cutoff.at().unwrap_or_else(|| Instant::now() + timings.stop_grace);
    let totals = delivery.join(deadline, timings.join_grace);
    if let Some(reload) = reload {
        reload.join(deadline + timings.join_grace);
    }
    signals.join();
    totals
}

fn log_start(settings: &TrackerSettings) {
    let TrackerSettings { location, targets, .. } = settings;
    if settings.location_cut {
        log::warn!(
            "location {location:?} is the host name cut to 32 characters: set --location to choose another"
        );
    }
    if let Destination::Kafka { settings, .. } = &settings.destination
        && let Some(warning) = kafka_client::flags::plain_text_warning(settings)
    {
        log::warn!("{warning}");
    }
    if !settings.once {
        let targets = check::describe_targets(targets, settings.targets_total);
        log::info!("probing from {location:?}: {targets}");
    }
    log_unverified_targets(targets);
}

/// Logs one line for each target whose certificate is not verified.
fn log_unverified_targets(targets: &[Arc<Target>]) {
    for target in targets.iter().filter(|target| target.is_insecure()) {
        log::warn!("{}: the certificate is not verified (option insecure)", target.label());
    }
}

/// Returns the limit on workers. For a schedule it also logs the worst case.
fn choose_workers_max(
    targets: &[Arc<Target>],
    workers: Option<usize>,
    timings: &RunTimings,
    once: bool,
) -> usize {
    match (once, workers) {
        // All targets at the same time, because a user waits for the results.
        (true, None) => targets.len().min(WORKERS_MAX),
        (true, Some(workers)) => workers.min(targets.len()),
        (false, workers) => {
            let worst_case = WorstCase::calculate(targets, workers, timings.retry_pause);
            worst_case.log(memory_bytes_max());
            worst_case.workers
        }
    }
}

fn start_reload(
    source: TargetSource,
    workers: Option<usize>,
    timings: &RunTimings,
) -> io::Result<(ReloadThread, Receiver<Reloaded>)> {
    let read = move || {
        let selection = source.read(&Environment::from_process())?;
        log_unverified_targets(&selection.targets);
        Ok::<_, UsageError>(selection.targets)
    };
    ReloadThread::start(read, workers, timings.retry_pause)
}

/// Waits for the ticker's end, then for the probes that still run.
fn join_ticker_and_workers(ticker: JoinHandle<Pool>, stop: &Stop, timings: &RunTimings) {
    match ticker.join() {
        Ok(pool) => match pool.finish(stop, timings.probe_stop_grace) {
            0 => {}
            running => log::warn!(
                "{} did not end before the stop: no record is written",
                counted(running, "running probe")
            ),
        },
        Err(_) => log::error!("the ticker panicked"),
    }
}

/// The threads that deliver records: saver and producer, or output.
struct Delivery {
    threads: Vec<JoinHandle<()>>,
    /// Sends the threads their deadline once no more records come. The end of the channel of
    /// records is not enough, because an abandoned probe still holds a sender.
    no_more: Sender<Instant>,
    /// The last thread sends the totals of the run before it ends.
    totals: Receiver<io::Result<RunTotals>>,
}

impl Delivery {
    /// Starts the threads. `label_chars` is the width of the longest label of a target.
    fn start(
        destination: Destination,
        timings: &RunTimings,
        cutoff: &Cutoff,
        records: Receiver<TargetRecord>,
        label_chars: usize,
    ) -> io::Result<Self> {
        let (no_more, no_more_receiver) = bounded(1);
        let (totals_sender, totals) = bounded(1);
        let threads = match destination {
            Destination::Kafka { mut settings, topics, topic_prefix, spool } => {
                settings.cutoff = Some(cutoff.clone());
                settings.connect_timeout_ms =
                    u64::try_from(timings.kafka_connect_timeout.as_millis()).unwrap_or(u64::MAX);
                let run = Run::new().map_err(io::Error::other)?;
                let shared_spool = Arc::new(SharedSpool::new(SPOOL_MEMORY_BYTES_MAX));
                let mut saver = Saver::new(Arc::clone(&shared_spool), run.clone());
                if let Some((folder, bytes_max)) = spool {
                    saver.use_folder(folder, bytes_max);
                }
                let producer = ResultProducer::new(
                    Arc::new(*settings),
                    topics,
                    topic_prefix,
                    shared_spool,
                    run,
                );
                vec![
                    start_thread("saver", move || saver.run(&records, &no_more_receiver))?,
                    // The channel has space for the totals. Its receiver may be closed.
                    start_thread("producer", move || {
                        drop(totals_sender.try_send(Ok(producer.run())));
                    })?,
                ]
            }
            Destination::StandardOutput { style } => {
                let format = match style {
                    OutputStyle::Json => OutputFormat::Json,
                    OutputStyle::Lines => OutputFormat::Lines { url_chars: label_chars },
                    OutputStyle::Bars { in_colour } => {
                        OutputFormat::Bars { url_chars: label_chars, in_colour }
                    }
                };
                vec![start_thread("output", move || {
                    let totals = print_records(&records, &no_more_receiver, format);
                    drop(totals_sender.try_send(totals));
                })?]
            }
        };
        Ok(Self { threads, no_more, totals })
    }

    /// Asks the threads to end by `deadline`, waits `grace` longer, and joins them.
    fn join(self, deadline: Instant, grace: Duration) -> io::Result<RunTotals> {
        let _ = self.no_more.send(deadline);
        match self.totals.recv_deadline(deadline + grace) {
            Ok(totals) => {
                // The thread that sends the totals is the last one to end.
                self.threads.into_iter().for_each(|thread| drop(thread.join()));
                totals
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(io::Error::other("the last thread of the delivery panicked"))
            }
            // Only the look-up of a broker's name, a disk that hangs, or a reader of standard
            // output that does not read can take that long.
            Err(RecvTimeoutError::Timeout) => {
                let waiting = self.threads.iter().find(|thread| !thread.is_finished());
                let name = waiting.and_then(|thread| thread.thread().name()).unwrap_or_default();
                Err(io::Error::other(format!(
                    "thread {name} did not end in time: its results are lost"
                )))
            }
        }
    }
}

fn start_thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(run)
}

/// Prints records until they end. A reader that closed standard output ends the tracker.
fn print_records(
    records: &Receiver<TargetRecord>,
    no_more: &Receiver<Instant>,
    format: OutputFormat,
) -> io::Result<RunTotals> {
    match output::run(records, no_more, format, &mut io::stdout().lock()) {
        Ok(unhealthy) => Ok(RunTotals { unhealthy, lost: 0 }),
        Err(cause) => {
            stop::request();
            match cause.kind() {
                io::ErrorKind::BrokenPipe => Ok(RunTotals { unhealthy: 0, lost: 1 }),
                _ => Err(cause),
            }
        }
    }
}
