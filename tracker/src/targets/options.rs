//! The keys of a target, each with what it sets: the one list of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use common::pem::Pem;
use common::secret::Secret;
use common::settings::{self, Environment};
use regex::Regex;

use super::values::{Problem, Value};
use super::{Defaults, Fault};
use crate::probe::http::checks::Checks;
use crate::probe::http::request::{self, Request};
use crate::probe::net::proxy::Proxy;
use crate::probe::net::resolver::Servers;
use crate::probe::reason::Severity;
use crate::probe::{Family, Limits};

/// The longest name, in characters.
const NAME_CHARS_MAX: usize = 128;
/// The most regexps, headers, pointers, statuses or name servers of a target.
const ITEMS_MAX: usize = 32;

type Set = fn(&mut Draft, Value<'_>, &Sources<'_>) -> Result<(), Problem>;

/// Every key that there is, in the order in which people think of them.
pub(super) const KEYS: &[(&str, Set)] = &[
    ("url", Draft::url),
    ("name", Draft::name),
    ("period_s", Draft::period),
    ("timeout_s", Draft::timeout),
    ("retries", Draft::retries),
    ("method", Draft::method),
    ("headers", Draft::headers),
    ("body", Draft::body),
    ("basic", Draft::basic),
    ("bearer", Draft::bearer),
    ("status", Draft::status),
    ("match", Draft::body_match),
    ("not_match", Draft::body_not_match),
    ("header_match", Draft::header_match),
    ("header_not_match", Draft::header_not_match),
    ("json", Draft::json),
    ("latency_ms_max", Draft::latency),
    ("too_slow", Draft::too_slow),
    ("certificate_days_min", Draft::certificate_days),
    ("certificate_expires_soon", Draft::certificate_expires_soon),
    ("redirects", Draft::redirects),
    ("body_bytes_max", Draft::body_bytes_max),
    ("ip", Draft::ip),
    ("resolver", Draft::resolver),
    ("proxy", Draft::proxy),
    ("ca", Draft::ca),
    ("cert", Draft::cert),
    ("key", Draft::key),
    ("insecure", Draft::insecure),
];

/// Where values that do not stand in the file itself come from.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    /// That of the file, which paths in it begin at.
    folder: &'a Path,
    environment: &'a Environment<'a>,
    /// Those that were read: many targets have the same.
    regexps: RefCell<HashMap<String, Regex>>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(folder: &'a Path, environment: &'a Environment<'a>) -> Self {
        Self { folder, environment, regexps: RefCell::default() }
    }

    fn regexp(&self, value: Value<'_>) -> Result<Regex, Problem> {
        let text = value.text("a regexp")?;
        if let Some(regexp) = self.regexps.borrow().get(text) {
            return Ok(regexp.clone());
        }
        let regexp = Regex::new(text).map_err(|cause| value.wrong(Fault::Regexp(cause)))?;
        self.regexps.borrow_mut().insert(text.to_owned(), regexp.clone());
        Ok(regexp)
    }

    /// A text, or a table that says from which file or variable it comes. It
    /// is not repeated in an error.
    fn secret(&self, value: Value<'_>, bytes_max: usize) -> Result<Secret, Problem> {
        const EXPECTED: &str = "a text, { file = \"...\" } or { variable = \"...\" }";
        let text = match value.as_text() {
            Some(text) => text.to_owned(),
            None => {
                let entries = value.table(EXPECTED, 2)?;
                let [(at, from)] = entries[..] else { return Err(value.expected(EXPECTED)) };
                let name = from.text("a text")?;
                match from.key {
                    "file" => settings::read_secret(&self.folder.join(name))
                        .map_err(|cause| value.wrong(format!("{name}: {cause}")))?,
                    "variable" => self
                        .environment
                        .variable(name)
                        .map_err(|cause| value.wrong(cause))?
                        .ok_or_else(|| value.wrong(format!("the variable {name} is not set")))?,
                    _ => return Err(Problem { at, ..value.wrong(format!("expected {EXPECTED}")) }),
                }
            }
        };
        match text.len() <= bytes_max {
            true => Ok(Secret::new(text)),
            false => {
                let found = text.len();
                Err(value.wrong(format!("{found} bytes: expected at most {bytes_max}")))
            }
        }
    }

    fn pem(&self, value: Value<'_>) -> Result<(usize, Pem), Problem> {
        Ok((
            value.at,
            match Pem::from_setting(value.text("a path or PEM text")?) {
                Pem::File(path) => Pem::File(self.folder.join(path)),
                text @ Pem::Text(_) => text,
            },
        ))
    }
}

/// A target of which not all is known, or the defaults.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) name: Option<String>,
    pub(super) period: Duration,
    pub(super) retries: u32,
    pub(super) limits: Limits,
    pub(super) follows_redirects: bool,
    pub(super) family: Family,
    pub(super) request: Request,
    pub(super) checks: Checks,
    pub(super) servers: Option<Servers>,
    pub(super) proxy: Option<Proxy>,
    pub(super) ca: Option<(usize, Pem)>,
    pub(super) cert: Option<(usize, Pem)>,
    pub(super) key: Option<(usize, Pem)>,
    pub(super) insecure: bool,
}

impl Draft {
    pub(super) fn new(defaults: &Defaults) -> Self {
        Self {
            name: None,
            period: defaults.period,
            retries: defaults.retries,
            limits: Limits {
                timeout: defaults.timeout,
                body_bytes_max: defaults.body_bytes_max,
                ..Limits::default()
            },
            follows_redirects: true,
            family: Family::default(),
            request: Request::default(),
            checks: Checks::default(),
            servers: None,
            proxy: None,
            ca: None,
            cert: None,
            key: None,
            insecure: false,
        }
    }

    /// Read by itself, as the whole target hangs on it.
    #[expect(clippy::unused_self, reason = "one of many alike")]
    fn url(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        value.text("a URL").map(drop)
    }

    fn name(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        let name = value.text("a text")?.trim();
        let is_good = (1..=NAME_CHARS_MAX).contains(&name.chars().count())
            && !name.chars().any(char::is_control);
        if !is_good {
            return Err(
                value.wrong(format!("expected 1 to {NAME_CHARS_MAX} characters, in one line"))
            );
        }
        self.name = Some(name.to_owned());
        Ok(())
    }

    fn period(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        self.period = value.seconds(super::PERIODS)?;
        Ok(())
    }

    fn timeout(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        self.limits.timeout = value.seconds(super::TIMEOUTS)?;
        Ok(())
    }

    fn retries(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        self.retries = whole(value.number("", super::RETRIES)?);
        Ok(())
    }

    fn method(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        let expected = format!("one of {}", request::METHODS.join(", "));
        let method = value.text(&expected)?.to_ascii_uppercase();
        if !request::METHODS.contains(&method.as_str()) {
            return Err(value.wrong(format!("{method:?}: expected {expected}")));
        }
        self.request.method = method.into();
        Ok(())
    }

    fn headers(&mut self, value: Value<'_>, sources: &Sources<'_>) -> Result<(), Problem> {
        self.request.headers.clear();
        for (at, header) in value.table("names and values", ITEMS_MAX)? {
            let name = request::own_header_name(header.key)
                .map_err(|fault| Problem::new(at, format!("headers: {fault}")))?;
            if self.request.headers.iter().any(|(other, _)| *other == name) {
                return Err(Problem::new(at, format!("headers: {name} stands there twice")));
            }
            let text = sources.secret(header, request::VALUE_BYTES_MAX)?;
            request::header_value(text.expose()).map_err(|fault| header.wrong(fault))?;
            if name == "accept-encoding" {
                request::accept_encoding(text.expose()).map_err(|fault| header.wrong(fault))?;
            }
            self.request.headers.push((name, text));
        }
        Ok(())
    }

    fn body(&mut self, value: Value<'_>, sources: &Sources<'_>) -> Result<(), Problem> {
        let body = sources.secret(value, request::BODY_BYTES_MAX)?;
        self.request.body = Some(body).filter(|body| !body.expose().is_empty());
        Ok(())
    }

    fn basic(&mut self, value: Value<'_>, sources: &Sources<'_>) -> Result<(), Problem> {
        const EXPECTED: &str = "{ user = ..., password = ... }";
        let (mut user, mut password) = (None, None);
        for (at, part) in value.table(EXPECTED, 2)? {
            let place = match part.key {
                "user" => &mut user,
                "password" => &mut password,
                _ => return Err(Problem::new(at, format!("basic: expected {EXPECTED}"))),
            };
            *place = Some(sources.secret(part, request::VALUE_BYTES_MAX)?);
        }
        let (Some(user), Some(password)) = (user, password) else {
            return Err(value.wrong(format!("expected {EXPECTED}")));
        };
        if user.expose().contains(':') {
            return Err(value.wrong("a user with a colon, which would begin the password"));
        }
        self.request.authorization = Some(request::basic(user.expose(), password.expose()));
        Ok(())
    }

    fn bearer(&mut self, value: Value<'_>, sources: &Sources<'_>) -> Result<(), Problem> {
        let token = sources.secret(value, request::VALUE_BYTES_MAX)?;
        if token.expose().is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(value.wrong("expected letters, digits and signs, without spaces"));
        }
        self.request.authorization = Some(Secret::new(format!("Bearer {}", token.expose())));
        Ok(())
    }

    fn status(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        let statuses = value.list(ITEMS_MAX)?.into_iter().map(status);
        self.checks.status = statuses.collect::<Result<_, _>>()?;
        Ok(())
    }

    fn body_match(&mut self, value: Value<'_>, sources: &Sources<'_>) -> Result<(), Problem> {
        let regexps = value.list(ITEMS_MAX)?.into_iter().map(|item| sources.regexp(item));
        self.checks.body_match = regexps.collect::<Result<_, _>>()?;
        Ok(())
    }

    fn body_not_match(&mut self, value: Value<'_>, sources: &Sources<'_>) -> Result<(), Problem> {
        let regexps = value.list(ITEMS_MAX)?.into_iter().map(|item| sources.regexp(item));
        self.checks.body_not_match = regexps.collect::<Result<_, _>>()?;
        Ok(())
    }

    fn header_match(&mut self, value: Value<'_>, sources: &Sources<'_>) -> Result<(), Problem> {
        self.checks.header_match = header_regexps(value, sources)?;
        Ok(())
    }

    fn header_not_match(&mut self, value: Value<'_>, sources: &Sources<'_>) -> Result<(), Problem> {
        self.checks.header_not_match = header_regexps(value, sources)?;
        Ok(())
    }

    fn json(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        self.checks.json.clear();
        for (at, item) in value.table("JSON pointers and values", ITEMS_MAX)? {
            if !(item.key.is_empty() || item.key.starts_with('/')) {
                let text = format!("json: {:?} is no JSON pointer: expected /...", item.key);
                return Err(Problem::new(at, text));
            }
            self.checks.json.push((item.key.to_owned(), item.json()?));
        }
        Ok(())
    }

    fn latency(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        let latency = value.number(" ms", 1..=300_000)?;
        self.checks.latency_max = Some(Duration::from_millis(latency));
        Ok(())
    }

    fn too_slow(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        self.checks.too_slow = severity(value)?;
        Ok(())
    }

    fn certificate_days(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        let days = value.number(" days", 1..=3_650)?;
        self.checks.certificate_days_min = Some(whole(days));
        Ok(())
    }

    fn certificate_expires_soon(
        &mut self,
        value: Value<'_>,
        _: &Sources<'_>,
    ) -> Result<(), Problem> {
        self.checks.certificate_expires_soon = severity(value)?;
        Ok(())
    }

    fn redirects(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        self.limits.redirects_max = match value.as_text() {
            Some("none") => 0,
            Some(_) => return Err(value.expected("0 to 50, or \"none\"")),
            None => whole(value.number(", or \"none\"", 0..=50)?),
        };
        self.follows_redirects = value.as_text().is_none();
        Ok(())
    }

    fn body_bytes_max(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        self.limits.body_bytes_max = value.number(" bytes", 1..=64 * 1024 * 1024)?;
        Ok(())
    }

    fn ip(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        const EXPECTED: &str = "4, 6, \"both\" or \"any\"";
        self.family = match (value.as_text(), value.number("", 4..=6)) {
            (Some("both"), _) => Family::Both,
            (Some("any"), _) => Family::Any,
            (None, Ok(4)) => Family::V4,
            (None, Ok(6)) => Family::V6,
            _ => return Err(value.wrong(format!("expected {EXPECTED}"))),
        };
        Ok(())
    }

    fn resolver(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        const EXPECTED: &str = "up to three of ip, ip:port or [ip]:port";
        let texts = value.list(ITEMS_MAX)?.into_iter().map(|item| item.text(EXPECTED));
        let texts = texts.collect::<Result<Vec<_>, _>>()?.join(",");
        self.servers = match texts.as_str() {
            "system" => None,
            texts => Some(Servers::parse(texts).map_err(|fault| {
                value.wrong(format!("{fault}: expected {EXPECTED}, or \"system\""))
            })?),
        };
        Ok(())
    }

    fn proxy(&mut self, value: Value<'_>, sources: &Sources<'_>) -> Result<(), Problem> {
        let text = sources.secret(value, request::VALUE_BYTES_MAX)?;
        self.proxy = match text.expose() {
            "none" => None,
            text => Some(Proxy::parse(text).map_err(|fault| value.wrong(fault))?),
        };
        Ok(())
    }

    fn ca(&mut self, value: Value<'_>, sources: &Sources<'_>) -> Result<(), Problem> {
        self.ca = Some(sources.pem(value)?);
        Ok(())
    }

    fn cert(&mut self, value: Value<'_>, sources: &Sources<'_>) -> Result<(), Problem> {
        self.cert = Some(sources.pem(value)?);
        Ok(())
    }

    fn key(&mut self, value: Value<'_>, sources: &Sources<'_>) -> Result<(), Problem> {
        self.key = Some(sources.pem(value)?);
        Ok(())
    }

    fn insecure(&mut self, value: Value<'_>, _: &Sources<'_>) -> Result<(), Problem> {
        self.insecure = value.boolean()?;
        Ok(())
    }
}

/// Of a number within a bound far below.
fn whole(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn severity(value: Value<'_>) -> Result<Severity, Problem> {
    match value.as_text() {
        Some("failure") => Ok(Severity::Failure),
        Some("warning") => Ok(Severity::Warning),
        _ => Err(value.wrong("expected \"failure\" or \"warning\"")),
    }
}

fn status(value: Value<'_>) -> Result<RangeInclusive<u16>, Problem> {
    let number =
        |text: &str| text.trim().parse().ok().filter(|number| (100..=999_u16).contains(number));
    let range = match value.as_text() {
        None => value.number("", 100..=999).ok().and_then(|number| {
            let number = u16::try_from(number).ok()?;
            Some(number..=number)
        }),
        Some(text) => match text.split_once('-') {
            Some((start, end)) => number(start).zip(number(end)).map(|(start, end)| start..=end),
            None => number(text).map(|number| number..=number),
        },
    };
    range
        .filter(|range| !range.is_empty())
        .ok_or_else(|| value.wrong("expected 100 to 999, a range like \"200-299\", or a list"))
}

fn header_regexps(
    value: Value<'_>,
    sources: &Sources<'_>,
) -> Result<Vec<(String, Regex)>, Problem> {
    let header = |(at, item): (usize, Value<'_>)| {
        let name = request::header_name(item.key)
            .map_err(|fault| Problem::new(at, format!("{}: {fault}", value.key)))?;
        Ok((name, sources.regexp(item)?))
    };
    value.table("names of headers and regexps", ITEMS_MAX)?.into_iter().map(header).collect()
}
