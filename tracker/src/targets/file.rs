//! TARGETS: a file in TOML that says all there is to say of each target.
//!
//! The document's own tree is walked rather than deserialized, so that each
//! key and value keeps its place, and an error names it.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::pem::Pem;
use common::settings::Environment;
use common::settings::command_line::nearest;
use toml::de::DeTable;
use url::{Host, Url};

use super::options::{Draft, KEYS, Sources};
use super::values::{Problem, entries};
use super::{Defaults, Fault, List, Located, Target, shown, without_secret};
use crate::probe::net::tls::target::Trust;
use crate::probe::{Family, Spec};

/// The longest file.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The most targets in it.
pub const TARGETS_MAX: usize = 100_000;

/// The keys that say nothing of what targets can share.
const OUTSIDE: [&str; 7] =
    ["url", "name", "period_s", "timeout_s", "retries", "body_bytes_max", "ip"];

/// What is wrong with the file: one line that names it, the place, the target.
#[derive(Debug)]
pub struct FileError {
    path: PathBuf,
    /// Line and column, from 1; none when the file can't be read.
    place: Option<(usize, usize)>,
    text: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.text)
    }
}

impl std::error::Error for FileError {}

/// Adds the targets of a file to those that there are.
///
/// # Errors
/// [`FileError`] for the first that can't be used. It repeats no secret.
pub fn add(
    targets: &mut List,
    path: &Path,
    topic_prefix: &str,
    defaults: &Defaults,
    environment: &Environment<'_>,
) -> Result<(), FileError> {
    let failed = |text: String| FileError { path: path.to_owned(), place: None, text };
    let bytes = read(path).map_err(|cause| failed(cause.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|cause| {
        let place = place(cause.as_bytes(), cause.utf8_error().valid_up_to());
        FileError { place: Some(place), ..failed("not utf-8".to_owned()) }
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let sources = Sources::new(folder, environment);
    parse(targets, &text, topic_prefix, defaults, &sources).map_err(
        |Problem { at, text: fault }| FileError {
            place: Some(place(text.as_bytes(), at)),
            ..failed(fault)
        },
    )
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(std::io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes"))),
        false => Ok(bytes),
    }
}

/// Line and column, in characters, from 1.
pub(super) fn place(bytes: &[u8], at: usize) -> (usize, usize) {
    let before = &bytes[..at.min(bytes.len())];
    let line = before.split(|byte| *byte == b'\n').count();
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}

/// Adds the targets of a document.
pub(super) fn parse(
    targets: &mut List,
    text: &str,
    topic_prefix: &str,
    defaults: &Defaults,
    sources: &Sources<'_>,
) -> Result<(), Problem> {
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        Problem::new(at, format!("not TOML: {}", error.message()))
    })?;
    let (mut first, mut listed) = (None, None);
    for (at, value) in entries(document.get_ref()) {
        match value.key {
            "defaults" => first = Some(value),
            "target" => listed = Some(value),
            key => {
                let known = nearest(key, ["defaults", "target"]).unwrap_or("defaults and target");
                return Err(Problem::new(at, format!("there is no table {key}: expected {known}")));
            }
        }
    }
    let mut draft = Draft::new(defaults);
    if let Some(value) = first {
        let table = value.as_table().ok_or_else(|| value.expected("[defaults]"))?;
        set(&mut draft, table, sources, &|key| !matches!(key, "url" | "name"))
            .map_err(|problem| of("defaults", problem))?;
    }
    let listed = listed.ok_or_else(|| Problem::new(0, "no [[target]] in it"))?;
    let tables = listed.tables().ok_or_else(|| listed.expected("[[target]]"))?;
    if tables.len() > TARGETS_MAX {
        let text = format!("{} targets: expected at most {TARGETS_MAX}", tables.len());
        return Err(Problem::new(tables[TARGETS_MAX].at, text));
    }
    let mut shared = Shared::default();
    tables.into_iter().try_for_each(|value| {
        let table = value.as_table().ok_or_else(|| value.expected("[[target]]"))?;
        target(value.at, table, &draft, topic_prefix, sources, &mut shared)
            .and_then(|(at, target)| targets.add(target).map_err(|fault| Problem::new(at, fault)))
            .map_err(|problem| of(&called(table), problem))
    })
}

fn target(
    at: usize,
    table: &DeTable<'_>,
    defaults: &Draft,
    topic_prefix: &str,
    sources: &Sources<'_>,
    shared: &mut Shared,
) -> Result<(usize, Target), Problem> {
    let mut draft = defaults.clone();
    let is_own = set(&mut draft, table, sources, &|_| true)?;
    let url_at = place_of(table, "url", at);
    let written =
        text(table, "url").ok_or_else(|| Problem::new(at, "expected url = \"http...\""))?;
    let located = Located::parse(written, topic_prefix)
        .map_err(|fault| Problem::new(url_at, format!("url: {fault}")))?;
    if draft.request.method == "HEAD" && draft.checks.wants_body() {
        let at = place_of(table, "method", at);
        return Err(Problem::new(at, "method: an answer to HEAD has no body to look at"));
    }
    let is_literal = match (located.url.host(), draft.family) {
        (Some(Host::Ipv4(_)), Family::V6 | Family::Both) => Some("IPv4"),
        (Some(Host::Ipv6(_)), Family::V4 | Family::Both) => Some("IPv6"),
        _ => None,
    };
    // Through a proxy the family is that of the way to the proxy.
    if let Some(family) = is_literal.filter(|_| draft.proxy.is_none()) {
        let at = place_of(table, "ip", at);
        return Err(Problem::new(at, format!("ip: the url's address is one of {family} alone")));
    }
    let has_header = draft.request.headers.iter().any(|(name, _)| name == "authorization");
    if has_header && draft.request.authorization.is_some() {
        let at = place_of(table, "headers", at);
        return Err(Problem::new(at, "headers: authorization is what basic and bearer set"));
    }
    let spec = shared.spec(&draft, is_own)?;
    let Located { url, recorded_url, domain, topic } = located;
    let Draft { name, period, retries, limits, family, .. } = draft;
    let target =
        Target { url, recorded_url, name, domain, topic, period, retries, limits, family, spec };
    Ok((url_at, target))
}

fn text<'a>(table: &'a DeTable<'_>, key: &str) -> Option<&'a str> {
    table.get(key)?.get_ref().as_str().map(str::trim)
}

fn place_of(table: &DeTable<'_>, key: &str, other: usize) -> usize {
    table.get(key).map_or(other, |value| value.span().start)
}

/// Says whose problem it is.
fn of(whose: &str, problem: Problem) -> Problem {
    Problem { text: format!("{whose}: {}", problem.text), ..problem }
}

/// How errors call a target: by its name, else by its URL.
fn called(table: &DeTable<'_>) -> String {
    match (text(table, "name"), text(table, "url")) {
        (Some(name), _) if !name.is_empty() => format!("target {name:?}"),
        (_, Some(url)) => match Url::parse(url) {
            Err(cause) => format!("target {}", shown(url, &Fault::NotAUrl(cause))),
            Ok(_) => format!("target {}", without_secret(url)),
        },
        _ => "target".to_owned(),
    }
}

/// Sets what a table says. True when that is more than what each target has of
/// its own.
fn set(
    draft: &mut Draft,
    table: &DeTable<'_>,
    sources: &Sources<'_>,
    is_known: &dyn Fn(&str) -> bool,
) -> Result<bool, Problem> {
    if let (Some(basic), Some(_)) = (table.get("basic"), table.get("bearer")) {
        return Err(Problem::new(basic.span().start, "basic: expected it or bearer, not both"));
    }
    let keys = || KEYS.iter().filter(|(name, _)| is_known(name));
    // In the order of the file, so that of several problems the first is told.
    let mut entries: Vec<_> = entries(table).collect();
    entries.sort_by_key(|(at, _)| *at);
    let mut is_own = false;
    for (at, value) in entries {
        let Some((name, set)) = keys().find(|(name, _)| *name == value.key) else {
            let expected = nearest(value.key, keys().map(|(name, _)| *name));
            return Err(Problem::new(
                at,
                match expected {
                    Some(expected) => {
                        format!("there is no key {}: expected {expected}?", value.key)
                    }
                    None => {
                        format!("there is no key {}: see scripts/targets.example.toml", value.key)
                    }
                },
            ));
        };
        set(draft, value, sources)?;
        is_own |= !OUTSIDE.contains(name);
    }
    Ok(is_own)
}

/// What targets that say the same share.
#[derive(Default)]
struct Shared {
    of_defaults: Option<Arc<Spec>>,
    trusts: HashMap<String, Arc<Trust>>,
}

impl Shared {
    fn spec(&mut self, draft: &Draft, is_own: bool) -> Result<Arc<Spec>, Problem> {
        if let Some(spec) = self.of_defaults.as_ref().filter(|_| !is_own) {
            return Ok(Arc::clone(spec));
        }
        let spec = Arc::new(Spec {
            follows_redirects: draft.follows_redirects,
            request: draft.request.clone(),
            checks: draft.checks.clone(),
            servers: draft.servers.clone(),
            trust: self.trust(draft)?,
            proxy: draft.proxy.clone(),
        });
        if !is_own {
            self.of_defaults = Some(Arc::clone(&spec));
        }
        Ok(spec)
    }

    fn trust(&mut self, draft: &Draft) -> Result<Option<Arc<Trust>>, Problem> {
        let Draft { ca, cert, key, insecure, .. } = draft;
        if ca.is_none() && cert.is_none() && key.is_none() && !insecure {
            return Ok(None);
        }
        let pair = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some((at, _)), None) => return Err(Problem::new(*at, "cert: expected key too")),
            (None, Some((at, _))) => return Err(Problem::new(*at, "key: expected cert too")),
        };
        let same = [ca, cert, key].map(|pem| pem.as_ref().map(|(_, pem)| source(pem)));
        let same = format!("{same:?} {insecure}");
        if let Some(made) = self.trusts.get(&same) {
            return Ok(Some(Arc::clone(made)));
        }
        let mut trust = Trust::new(*insecure);
        if let Some((at, pem)) = ca {
            trust.add_ca(pem).map_err(|fault| Problem::new(*at, format!("ca: {fault}")))?;
        }
        if let Some(((at, cert), (key_at, key))) = pair {
            let chain =
                cert.certificates().map_err(|fault| Problem::new(*at, format!("cert: {fault}")))?;
            let key = key
                .private_key()
                .map_err(|fault| Problem::new(*key_at, format!("key: {fault}")))?;
            trust
                .show(chain, key)
                .map_err(|fault| Problem::new(*key_at, format!("key: {fault}")))?;
        }
        let made = Arc::new(trust);
        self.trusts.insert(same, Arc::clone(&made));
        Ok(Some(made))
    }
}

/// What tells one certificate or key from another, and shows none of it.
fn source(pem: &Pem) -> String {
    match pem {
        Pem::File(path) => path.display().to_string(),
        Pem::Text(text) => format!("{:x}", common::domain::stable_hash(text.as_bytes())),
    }
}
