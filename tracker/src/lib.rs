//! `tracker`: probes websites on a fixed schedule and writes every result to
//! Apache Kafka.
//!
//! ```text
//! ticker ──queue──▶ workers ──results──▶ producer ──▶ Kafka
//! (due)   bounded   (probe)   bounded    (spool)
//! ```
//!
//! This file owns every channel and every join; with no Kafka server given,
//! `output` stands in the producer's place.

pub mod output;
pub mod probe;
pub mod producer;
pub mod settings;
pub mod spool;
pub mod targets;
pub mod ticker;
pub mod workers;

use std::io;
use std::process::ExitCode;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use common::stop::{self, SignalThread};
use crossbeam_channel::{Receiver, bounded};

use output::Format;
use probe::{Limits, Prober};
use settings::{Settings, Sink};
use ticker::Rhythm;
use workers::{Pool, Probed};

/// Results on their way from the workers. The producer takes them within the
/// bound of one exchange with Kafka; should that many come in less, workers
/// wait, and the ticker counts the slots that are skipped for it.
const RESULTS_MAX: usize = 65_536;

/// How long probes that run may go on after a stop is asked for.
const STOP_PROBES: Duration = Duration::from_secs(3);
/// How long what they and others found may then take to be delivered: with
/// [`STOP_PROBES`] below the 8 s in which the program ends, as Docker kills
/// after 10.
const STOP_SINK: Duration = Duration::from_secs(4);

/// What became of all results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Results that were not healthy.
    pub unhealthy: usize,
    /// Results that reached nobody.
    pub lost: usize,
}

/// Runs until a signal, or, with `--once`, until every target was probed.
///
/// The exit code is 1 when the program could not start or, with `--once`, when
/// a target was not healthy or a result was lost.
pub fn run(settings: Settings) -> ExitCode {
    let once = settings.once;
    match pipeline(settings) {
        Ok(account) if !once || account == Account::default() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn pipeline(settings: Settings) -> io::Result<Account> {
    let Settings { location, location_cut, targets, timeout, period, body_bytes_max, sink, once } =
        settings;
    if location_cut {
        log::warn!("location {location:?}: the host's name, cut to 32 characters");
    }
    if !once {
        let count = targets.len();
        log::info!(
            "from {location:?}: {count} targets, each once in {period:?}, time-out {timeout:?}"
        );
    }
    let (signals, stop) = SignalThread::start()?;
    let prober = Prober::new(Limits { timeout, body_bytes_max, ..Limits::default() })
        .map_err(io::Error::other)?;
    let rhythm = match sink {
        _ if once => Rhythm::Once,
        Sink::Print { .. } => Rhythm::Period { period, look_at_once: true },
        Sink::Kafka { .. } => Rhythm::Period { period, look_at_once: false },
    };

    let (results_in, results_out) = bounded(RESULTS_MAX);
    // Closed when no more results will come, though a probe that was given up
    // still holds a sender.
    let (more, no_more) = bounded::<()>(0);
    let url_chars = targets.iter().map(|target| target.recorded_url.chars().count()).max();
    let sink = start_sink(sink, results_out, no_more, url_chars.unwrap_or(0))?;

    let mut pool = Pool::new(&targets, &location, prober, results_in, stop.clone());
    let ticker = {
        let stop = stop.clone();
        Builder::new().name("ticker".to_owned()).spawn(move || {
            ticker::run(&targets, &location, rhythm, &mut pool, &stop);
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
    drop(more);
    let account = sink.join().unwrap_or_else(|_| Err(io::Error::other("the sink panicked")));
    signals.join();
    account
}

/// Starts the thread that takes the results.
fn start_sink(
    sink: Sink,
    results: Receiver<Probed>,
    no_more: Receiver<()>,
    url_chars: usize,
) -> io::Result<JoinHandle<io::Result<Account>>> {
    match sink {
        Sink::Kafka { settings, topics, topic_prefix } => {
            let producer = producer::Producer::new(settings, topics, topic_prefix);
            Builder::new()
                .name("producer".to_owned())
                .spawn(move || Ok(producer.run(&results, &no_more, STOP_SINK)))
        }
        Sink::Print { json } => {
            let format = if json { Format::Json } else { Format::Lines { url_chars } };
            Builder::new().name("output".to_owned()).spawn(move || {
                let written = output::run(&results, &no_more, format, &mut io::stdout().lock());
                match written {
                    Ok(unhealthy) => Ok(Account { unhealthy, lost: 0 }),
                    Err(cause) => {
                        // Nobody reads any more, so that there is nothing left to do.
                        stop::request();
                        match cause.kind() {
                            io::ErrorKind::BrokenPipe => Ok(Account { unhealthy: 0, lost: 1 }),
                            _ => Err(cause),
                        }
                    }
                }
            })
        }
    }
}
