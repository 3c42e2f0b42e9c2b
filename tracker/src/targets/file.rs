//! TARGETS: a TOML file with all options of each target.
//!
//! The parser walks the TOML tree instead of deserializing it, because the tree has the position
//! of each key and value, and every error names its line and column.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::pem::Pem;
use common::settings::Environment;
use common::settings::command_line::nearest;
use toml::de::DeTable;
use url::{Host, Url};

use super::builder::TargetBuilder;
use super::context::ValueContext;
use super::options::{OPTIONS, OptionPlace, TargetOption};
use super::url::{TargetUrl, redact, strip_credentials};
use super::values::{FileValueError, entries};
use super::{Target, TargetDefaults, TargetError, TargetList};
use crate::probe::net::tls::target::TargetTls;
use crate::probe::{Family, ProbeSpec};

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most targets in the file.
pub(super) const TARGETS_MAX: usize = 100_000;

/// An error in the file, in one line: path, line, column, target, option and cause.
#[derive(Debug, thiserror::Error)]
#[error("{}:{} {text}", path.display(), place.map(|(line, column)| format!("{line}:{column}:")).unwrap_or_default())]
pub(crate) struct TargetsFileError {
    path: PathBuf,
    /// Line and column, from 1. `None`: the file can't be read.
    place: Option<(usize, usize)>,
    text: String,
}

/// Adds the targets of a file to the list.
///
/// # Errors
/// [`TargetsFileError`] for the first invalid value. It repeats no secret.
pub(super) fn add_targets(
    list: &mut TargetList,
    path: &Path,
    topic_prefix: &str,
    defaults: &TargetDefaults,
    environment: &Environment<'_>,
) -> Result<(), TargetsFileError> {
    let unreadable = |text: String| TargetsFileError { path: path.to_owned(), place: None, text };
    let bytes = read_file(path).map_err(|cause| unreadable(cause.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|cause| {
        let place = line_and_column(cause.as_bytes(), cause.utf8_error().valid_up_to());
        TargetsFileError { place: Some(place), ..unreadable("not UTF-8".to_owned()) }
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let context = ValueContext::new(folder, environment);
    parse_document(list, &text, topic_prefix, defaults, &context).map_err(|error| {
        TargetsFileError {
            path: path.to_owned(),
            place: Some(line_and_column(text.as_bytes(), error.offset)),
            text: error.text,
        }
    })
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(std::io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes"))),
        false => Ok(bytes),
    }
}

/// Converts an offset in bytes to line and column. Both start at 1; columns are characters.
pub(super) fn line_and_column(bytes: &[u8], offset: usize) -> (usize, usize) {
    let before = &bytes[..offset.min(bytes.len())];
    let line = before.split(|byte| *byte == b'\n').count();
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}

/// Adds the targets of a document to the list.
pub(super) fn parse_document(
    list: &mut TargetList,
    text: &str,
    topic_prefix: &str,
    defaults: &TargetDefaults,
    context: &ValueContext<'_>,
) -> Result<(), FileValueError> {
    let document = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        FileValueError::new(offset, format!("not TOML: {}", error.message()))
    })?;
    let (mut defaults_value, mut targets_value) = (None, None);
    for (offset, value) in entries(document.get_ref()) {
        match value.key {
            "defaults" => defaults_value = Some(value),
            "target" => targets_value = Some(value),
            key => {
                let hint = match nearest(key, ["defaults", "target"]) {
                    Some(known) => format!("did you mean {known}?"),
                    None => "expected defaults or target".to_owned(),
                };
                return Err(FileValueError::new(offset, format!("unknown table {key}: {hint}")));
            }
        }
    }
    let mut builder = TargetBuilder::new(defaults);
    if let Some(value) = defaults_value {
        let table = value.as_table().ok_or_else(|| value.wrong_type("[defaults]"))?;
        set_options(&mut builder, table, context, &|option| option.place.is_in_defaults())
            .map_err(|error| error.in_table("defaults"))?;
    }
    let targets_value =
        targets_value.ok_or_else(|| FileValueError::new(0, "no [[target]] table"))?;
    let tables = targets_value.tables().ok_or_else(|| targets_value.wrong_type("[[target]]"))?;
    if tables.len() > TARGETS_MAX {
        let text = format!("{} targets: expected at most {TARGETS_MAX}", tables.len());
        return Err(FileValueError::new(tables[TARGETS_MAX].offset, text));
    }
    let mut specs = SpecCache::default();
    tables.into_iter().try_for_each(|value| {
        let table = value.as_table().ok_or_else(|| value.wrong_type("[[target]]"))?;
        parse_target(value.offset, table, &builder, topic_prefix, context, &mut specs)
            .and_then(|(url_offset, target)| {
                list.add(target).map_err(|error| FileValueError::new(url_offset, error))
            })
            .map_err(|error| error.in_table(&table_label(table)))
    })
}

/// Returns the target of a table and the offset of its URL.
fn parse_target(
    offset: usize,
    table: &DeTable<'_>,
    defaults: &TargetBuilder,
    topic_prefix: &str,
    context: &ValueContext<'_>,
    specs: &mut SpecCache,
) -> Result<(usize, Target), FileValueError> {
    let mut builder = defaults.clone();
    let has_own_spec = set_options(&mut builder, table, context, &|_| true)?;
    let url_offset = offset_of(table, "url", offset);
    let url_text = text_of(table, "url")
        .ok_or_else(|| FileValueError::new(offset, "expected url = \"http...\""))?;
    let url = TargetUrl::parse(url_text, topic_prefix)
        .map_err(|error| FileValueError::new(url_offset, format!("url: {error}")))?;
    check_combinations(offset, table, &builder, &url)?;
    let spec = specs.spec(&builder, has_own_spec)?;
    let TargetUrl { url, recorded_url, domain, topic } = url;
    let TargetBuilder { name, period, retries, limits, family, .. } = builder;
    let target =
        Target { url, recorded_url, name, domain, topic, period, retries, limits, family, spec };
    Ok((url_offset, target))
}

/// Rejects options that are valid alone and contradict each other.
fn check_combinations(
    offset: usize,
    table: &DeTable<'_>,
    builder: &TargetBuilder,
    url: &TargetUrl,
) -> Result<(), FileValueError> {
    if builder.request.method == "HEAD" && builder.checks.needs_body() {
        let text = "method: the response to HEAD has no body to check";
        return Err(FileValueError::new(offset_of(table, "method", offset), text));
    }
    let literal_family = match (url.url.host(), builder.family) {
        (Some(Host::Ipv4(_)), Family::V6 | Family::Both) => Some("IPv4"),
        (Some(Host::Ipv6(_)), Family::V4 | Family::Both) => Some("IPv6"),
        _ => None,
    };
    // With a proxy, the family applies to the connection to the proxy.
    if let Some(family) = literal_family.filter(|_| builder.proxy.is_none()) {
        let text = format!("ip: the address in the URL is {family}");
        return Err(FileValueError::new(offset_of(table, "ip", offset), text));
    }
    let has_header = builder.request.headers.iter().any(|(name, _)| name == "authorization");
    if has_header && builder.request.authorization.is_some() {
        let text = "headers: authorization is already set by basic or bearer";
        return Err(FileValueError::new(offset_of(table, "headers", offset), text));
    }
    Ok(())
}

fn text_of<'a>(table: &'a DeTable<'_>, key: &str) -> Option<&'a str> {
    table.get(key)?.get_ref().as_str().map(str::trim)
}

/// Returns the offset of the value of `key`, or `table_offset` if the key is not set.
fn offset_of(table: &DeTable<'_>, key: &str, table_offset: usize) -> usize {
    table.get(key).map_or(table_offset, |value| value.span().start)
}

/// Returns the name of a target in errors: `target "name"`, or `target URL` without a name.
fn table_label(table: &DeTable<'_>) -> String {
    match (text_of(table, "name"), text_of(table, "url")) {
        (Some(name), _) if !name.is_empty() => format!("target {name:?}"),
        (_, Some(url)) => match Url::parse(url) {
            Err(cause) => format!("target {}", redact(url, &TargetError::InvalidUrl(cause))),
            Ok(_) => format!("target {}", strip_credentials(url)),
        },
        _ => "target".to_owned(),
    }
}

/// Stores the options of a table in the builder. True if one of them is part of the spec, so that
/// the target can't share the spec of `[defaults]`.
fn set_options(
    builder: &mut TargetBuilder,
    table: &DeTable<'_>,
    context: &ValueContext<'_>,
    is_allowed: &dyn Fn(&TargetOption) -> bool,
) -> Result<bool, FileValueError> {
    if let (Some(basic), Some(_)) = (table.get("basic"), table.get("bearer")) {
        let text = "basic: bearer is set too: expected one of the two";
        return Err(FileValueError::new(basic.span().start, text));
    }
    let allowed = || OPTIONS.iter().filter(|option| is_allowed(option));
    // In the order of the file, so that the first of several errors is reported.
    let mut entries: Vec<_> = entries(table).collect();
    entries.sort_by_key(|(offset, _)| *offset);
    let mut has_own_spec = false;
    for (offset, value) in entries {
        let Some(option) = allowed().find(|option| option.name == value.key) else {
            let hint = match nearest(value.key, allowed().map(|option| option.name)) {
                Some(known) => format!("did you mean {known}?"),
                None => "see scripts/targets.example.toml".to_owned(),
            };
            return Err(FileValueError::new(
                offset,
                format!("unknown option {}: {hint}", value.key),
            ));
        };
        (option.set)(builder, value, context)?;
        has_own_spec |= option.place == OptionPlace::SharedSpec;
    }
    Ok(has_own_spec)
}

/// Specs and TLS settings that targets with the same options share.
#[derive(Default)]
struct SpecCache {
    /// The spec of `[defaults]`.
    default_spec: Option<Arc<ProbeSpec>>,
    tls: HashMap<String, Arc<TargetTls>>,
}

impl SpecCache {
    fn spec(
        &mut self,
        builder: &TargetBuilder,
        has_own_spec: bool,
    ) -> Result<Arc<ProbeSpec>, FileValueError> {
        if let Some(spec) = self.default_spec.as_ref().filter(|_| !has_own_spec) {
            return Ok(Arc::clone(spec));
        }
        let spec = Arc::new(ProbeSpec {
            follows_redirects: builder.follows_redirects,
            request: builder.request.clone(),
            checks: builder.checks.clone(),
            name_servers: builder.servers.clone(),
            tls: self.tls(builder)?,
            proxy: builder.proxy.clone(),
        });
        if !has_own_spec {
            self.default_spec = Some(Arc::clone(&spec));
        }
        Ok(spec)
    }

    /// Returns the target's own TLS settings. `None`: the target uses the tracker's TLS settings.
    fn tls(&mut self, builder: &TargetBuilder) -> Result<Option<Arc<TargetTls>>, FileValueError> {
        let TargetBuilder { ca, cert, key, insecure, .. } = builder;
        if ca.is_none() && cert.is_none() && key.is_none() && !insecure {
            return Ok(None);
        }
        let cert_and_key = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some((at, _)), None) => {
                return Err(FileValueError::new(*at, "cert: key is missing: expected both"));
            }
            (None, Some((at, _))) => {
                return Err(FileValueError::new(*at, "key: cert is missing: expected both"));
            }
        };
        let sources = [ca, cert, key].map(|pem| pem.as_ref().map(|(_, pem)| pem_fingerprint(pem)));
        let cache_key = format!("{sources:?} {insecure}");
        if let Some(tls) = self.tls.get(&cache_key) {
            return Ok(Some(Arc::clone(tls)));
        }
        let mut tls = TargetTls::new(*insecure);
        if let Some((at, pem)) = ca {
            tls.add_roots(pem).map_err(|error| FileValueError::new(*at, format!("ca: {error}")))?;
        }
        if let Some(((cert_at, cert), (key_at, key))) = cert_and_key {
            let chain = cert
                .certificates()
                .map_err(|error| FileValueError::new(*cert_at, format!("cert: {error}")))?;
            let key_error = |error: &dyn std::fmt::Display| {
                FileValueError::new(*key_at, format!("key: {error}"))
            };
            let key = key.private_key().map_err(|error| key_error(&error))?;
            tls.set_client_certificate(chain, key).map_err(|error| key_error(&error))?;
        }
        let tls = Arc::new(tls);
        self.tls.insert(cache_key, Arc::clone(&tls));
        Ok(Some(tls))
    }
}

/// Returns a text that is the same for the same certificate or key, and reveals nothing of it.
fn pem_fingerprint(pem: &Pem) -> String {
    match pem {
        Pem::File(path) => path.display().to_string(),
        Pem::Text(text) => format!("{:x}", common::domain::stable_hash(text.as_bytes())),
    }
}
