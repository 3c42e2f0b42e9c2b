//! [`TargetBuilder`]: collects the options of one target, or of `[defaults]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use common::pem::Pem;
use common::secret::Secret;
use regex::Regex;

use super::context::ValueContext;
use super::values::{FileValue, FileValueError};
use super::{PERIODS, RETRIES, TIMEOUTS, TargetDefaults};
use crate::probe::basic_auth;
use crate::probe::http::checks::Checks;
use crate::probe::http::encoding;
use crate::probe::http::request::{self, HttpRequest};
use crate::probe::net::proxy::Proxy;
use crate::probe::net::resolver::NameServers;
use crate::probe::reason::Severity;
use crate::probe::{Family, Limits};

/// Longest name, in characters.
const NAME_CHARS_MAX: usize = 128;
/// Most regexps, headers, JSON pointers, statuses or name servers of a target.
const ITEMS_MAX: usize = 32;

/// Result of a setter.
pub(super) type SetResult = Result<(), FileValueError>;

/// The options that are set so far.
#[derive(Debug, Clone)]
pub(super) struct TargetBuilder {
    pub(super) name: Option<String>,
    pub(super) period: Duration,
    pub(super) retries: u32,
    pub(super) limits: Limits,
    pub(super) follows_redirects: bool,
    pub(super) family: Family,
    pub(super) request: HttpRequest,
    pub(super) checks: Checks,
    pub(super) servers: Option<NameServers>,
    pub(super) proxy: Option<Proxy>,
    /// The certificates and the key are read when the target is complete, so their offsets are
    /// stored for errors.
    pub(super) ca: Option<(usize, Pem)>,
    pub(super) cert: Option<(usize, Pem)>,
    pub(super) key: Option<(usize, Pem)>,
    pub(super) insecure: bool,
}

impl TargetBuilder {
    pub(super) fn new(defaults: &TargetDefaults) -> Self {
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
            request: HttpRequest::default(),
            checks: Checks::default(),
            servers: None,
            proxy: None,
            ca: None,
            cert: None,
            key: None,
            insecure: false,
        }
    }

    /// Checks the type alone. The URL is parsed with the whole target, because topic and domain
    /// depend on it.
    #[expect(clippy::unused_self, reason = "all setters have the same signature")]
    pub(super) fn check_url_type(
        &mut self,
        value: FileValue<'_>,
        _: &ValueContext<'_>,
    ) -> SetResult {
        value.text("a URL").map(drop)
    }

    pub(super) fn set_name(&mut self, value: FileValue<'_>, _: &ValueContext<'_>) -> SetResult {
        let name = value.text("a text")?.trim();
        let is_valid = (1..=NAME_CHARS_MAX).contains(&name.chars().count())
            && !name.chars().any(char::is_control);
        if !is_valid {
            return Err(
                value.error(format!("expected 1 to {NAME_CHARS_MAX} characters, in one line"))
            );
        }
        self.name = Some(name.to_owned());
        Ok(())
    }

    pub(super) fn set_period(&mut self, value: FileValue<'_>, _: &ValueContext<'_>) -> SetResult {
        self.period = value.seconds(PERIODS)?;
        Ok(())
    }

    pub(super) fn set_timeout(&mut self, value: FileValue<'_>, _: &ValueContext<'_>) -> SetResult {
        self.limits.timeout = value.seconds(TIMEOUTS)?;
        Ok(())
    }

    pub(super) fn set_retries(&mut self, value: FileValue<'_>, _: &ValueContext<'_>) -> SetResult {
        self.retries = saturate(value.number("", RETRIES)?);
        Ok(())
    }

    pub(super) fn set_method(&mut self, value: FileValue<'_>, _: &ValueContext<'_>) -> SetResult {
        let expected = format!("one of {}", request::METHODS.join(", "));
        let method = value.text(&expected)?.to_ascii_uppercase();
        if !request::METHODS.contains(&method.as_str()) {
            return Err(value.error(format!("{method:?}: expected {expected}")));
        }
        self.request.method = method.into();
        Ok(())
    }

    pub(super) fn set_headers(
        &mut self,
        value: FileValue<'_>,
        context: &ValueContext<'_>,
    ) -> SetResult {
        self.request.headers.clear();
        for (offset, header) in value.table("names and values", ITEMS_MAX)? {
            let name = request::parse_settable_header_name(header.key)
                .map_err(|error| FileValueError::new(offset, format!("headers: {error}")))?;
            if self.request.headers.iter().any(|(other, _)| *other == name) {
                return Err(FileValueError::new(offset, format!("headers: {name} is set twice")));
            }
            let text = context.secret(header, request::VALUE_BYTES_MAX)?;
            request::check_header_value(text.expose()).map_err(|error| header.error(error))?;
            if name == "accept-encoding" {
                encoding::check_accept_encoding(text.expose())
                    .map_err(|error| header.error(error))?;
            }
            self.request.headers.push((name, text));
        }
        Ok(())
    }

    pub(super) fn set_body(
        &mut self,
        value: FileValue<'_>,
        context: &ValueContext<'_>,
    ) -> SetResult {
        let body = context.secret(value, request::BODY_BYTES_MAX)?;
        self.request.body = Some(body).filter(|body| !body.expose().is_empty());
        Ok(())
    }

    pub(super) fn set_basic(
        &mut self,
        value: FileValue<'_>,
        context: &ValueContext<'_>,
    ) -> SetResult {
        const EXPECTED: &str = "{ user = ..., password = ... }";
        let (mut user, mut password) = (None, None);
        for (offset, part) in value.table(EXPECTED, 2)? {
            let slot = match part.key {
                "user" => &mut user,
                "password" => &mut password,
                _ => {
                    return Err(FileValueError::new(offset, format!("basic: expected {EXPECTED}")));
                }
            };
            *slot = Some(context.secret(part, request::VALUE_BYTES_MAX)?);
        }
        let (Some(user), Some(password)) = (user, password) else {
            return Err(value.error(format!("expected {EXPECTED}")));
        };
        if user.expose().contains(':') {
            return Err(
                value.error("a colon in the user would end it: expected a user without a colon")
            );
        }
        self.request.authorization = Some(basic_auth::encode(user.expose(), password.expose()));
        Ok(())
    }

    pub(super) fn set_bearer(
        &mut self,
        value: FileValue<'_>,
        context: &ValueContext<'_>,
    ) -> SetResult {
        let token = context.secret(value, request::VALUE_BYTES_MAX)?;
        if token.expose().is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(value.error("expected printable ASCII characters without spaces"));
        }
        self.request.authorization = Some(Secret::new(format!("Bearer {}", token.expose())));
        Ok(())
    }

    pub(super) fn set_status(&mut self, value: FileValue<'_>, _: &ValueContext<'_>) -> SetResult {
        let statuses = value.list(ITEMS_MAX)?.into_iter().map(parse_status);
        self.checks.status = statuses.collect::<Result<_, _>>()?;
        Ok(())
    }

    pub(super) fn set_body_match(
        &mut self,
        value: FileValue<'_>,
        context: &ValueContext<'_>,
    ) -> SetResult {
        let regexps = value.list(ITEMS_MAX)?.into_iter().map(|item| context.regexp(item));
        self.checks.body_match = regexps.collect::<Result<_, _>>()?;
        Ok(())
    }

    pub(super) fn set_body_not_match(
        &mut self,
        value: FileValue<'_>,
        context: &ValueContext<'_>,
    ) -> SetResult {
        let regexps = value.list(ITEMS_MAX)?.into_iter().map(|item| context.regexp(item));
        self.checks.body_not_match = regexps.collect::<Result<_, _>>()?;
        Ok(())
    }

    pub(super) fn set_header_match(
        &mut self,
        value: FileValue<'_>,
        context: &ValueContext<'_>,
    ) -> SetResult {
        self.checks.header_match = parse_header_regexps(value, context)?;
        Ok(())
    }

    pub(super) fn set_header_not_match(
        &mut self,
        value: FileValue<'_>,
        context: &ValueContext<'_>,
    ) -> SetResult {
        self.checks.header_not_match = parse_header_regexps(value, context)?;
        Ok(())
    }

    pub(super) fn set_json(&mut self, value: FileValue<'_>, _: &ValueContext<'_>) -> SetResult {
        self.checks.json.clear();
        for (offset, item) in value.table("JSON pointers and values", ITEMS_MAX)? {
            if !(item.key.is_empty() || item.key.starts_with('/')) {
                let text = format!("json: {:?} is not a JSON pointer: expected /...", item.key);
                return Err(FileValueError::new(offset, text));
            }
            self.checks.json.push((item.key.to_owned(), item.json()?));
        }
        Ok(())
    }

    pub(super) fn set_latency_max(
        &mut self,
        value: FileValue<'_>,
        _: &ValueContext<'_>,
    ) -> SetResult {
        let latency = value.number(" ms", 1..=300_000)?;
        self.checks.latency_max = Some(Duration::from_millis(latency));
        Ok(())
    }

    pub(super) fn set_too_slow(&mut self, value: FileValue<'_>, _: &ValueContext<'_>) -> SetResult {
        self.checks.too_slow = parse_severity(value)?;
        Ok(())
    }

    pub(super) fn set_certificate_days_min(
        &mut self,
        value: FileValue<'_>,
        _: &ValueContext<'_>,
    ) -> SetResult {
        let days = value.number(" days", 1..=3_650)?;
        self.checks.certificate_days_min = Some(saturate(days));
        Ok(())
    }

    pub(super) fn set_certificate_expires_soon(
        &mut self,
        value: FileValue<'_>,
        _: &ValueContext<'_>,
    ) -> SetResult {
        self.checks.certificate_expires_soon = parse_severity(value)?;
        Ok(())
    }

    pub(super) fn set_redirects(
        &mut self,
        value: FileValue<'_>,
        _: &ValueContext<'_>,
    ) -> SetResult {
        self.limits.redirects_max = match value.as_text() {
            Some("none") => 0,
            Some(_) => return Err(value.wrong_type("0 to 50, or \"none\"")),
            None => saturate(value.number(", or \"none\"", 0..=50)?),
        };
        self.follows_redirects = value.as_text().is_none();
        Ok(())
    }

    pub(super) fn set_body_bytes_max(
        &mut self,
        value: FileValue<'_>,
        _: &ValueContext<'_>,
    ) -> SetResult {
        self.limits.body_bytes_max = value.number(" bytes", 1..=64 * 1024 * 1024)?;
        Ok(())
    }

    pub(super) fn set_family(&mut self, value: FileValue<'_>, _: &ValueContext<'_>) -> SetResult {
        const EXPECTED: &str = "4, 6, \"both\" or \"any\"";
        self.family = match (value.as_text(), value.number("", 4..=6)) {
            (Some("both"), _) => Family::Both,
            (Some("any"), _) => Family::Any,
            (None, Ok(4)) => Family::V4,
            (None, Ok(6)) => Family::V6,
            _ => return Err(value.error(format!("expected {EXPECTED}"))),
        };
        Ok(())
    }

    pub(super) fn set_resolver(&mut self, value: FileValue<'_>, _: &ValueContext<'_>) -> SetResult {
        const EXPECTED: &str = "up to three of ip, ip:port or [ip]:port";
        let texts = value.list(ITEMS_MAX)?.into_iter().map(|item| item.text(EXPECTED));
        let texts = texts.collect::<Result<Vec<_>, _>>()?.join(",");
        self.servers = match texts.as_str() {
            "system" => None,
            texts => Some(NameServers::parse(texts).map_err(|error| {
                value.error(format!("{error}: expected {EXPECTED}, or \"system\""))
            })?),
        };
        Ok(())
    }

    pub(super) fn set_proxy(
        &mut self,
        value: FileValue<'_>,
        context: &ValueContext<'_>,
    ) -> SetResult {
        let text = context.secret(value, request::VALUE_BYTES_MAX)?;
        self.proxy = match text.expose() {
            "none" => None,
            text => Some(Proxy::parse(text).map_err(|error| value.error(error))?),
        };
        Ok(())
    }

    pub(super) fn set_ca(&mut self, value: FileValue<'_>, context: &ValueContext<'_>) -> SetResult {
        self.ca = Some(context.pem(value)?);
        Ok(())
    }

    pub(super) fn set_cert(
        &mut self,
        value: FileValue<'_>,
        context: &ValueContext<'_>,
    ) -> SetResult {
        self.cert = Some(context.pem(value)?);
        Ok(())
    }

    pub(super) fn set_key(
        &mut self,
        value: FileValue<'_>,
        context: &ValueContext<'_>,
    ) -> SetResult {
        self.key = Some(context.pem(value)?);
        Ok(())
    }

    pub(super) fn set_insecure(&mut self, value: FileValue<'_>, _: &ValueContext<'_>) -> SetResult {
        self.insecure = value.boolean()?;
        Ok(())
    }
}

/// Converts a number that was checked against a range far below the limit.
fn saturate(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn parse_severity(value: FileValue<'_>) -> Result<Severity, FileValueError> {
    match value.as_text() {
        Some("failure") => Ok(Severity::Failure),
        Some("warning") => Ok(Severity::Warning),
        _ => Err(value.error("expected \"failure\" or \"warning\"")),
    }
}

fn parse_status(value: FileValue<'_>) -> Result<RangeInclusive<u16>, FileValueError> {
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
        .ok_or_else(|| value.error("expected 100 to 999, a range like \"200-299\", or a list"))
}

fn parse_header_regexps(
    value: FileValue<'_>,
    context: &ValueContext<'_>,
) -> Result<Vec<(String, Regex)>, FileValueError> {
    let header = |(offset, item): (usize, FileValue<'_>)| {
        let name = request::parse_header_name(item.key)
            .map_err(|error| FileValueError::new(offset, format!("{}: {error}", value.key)))?;
        Ok((name, context.regexp(item)?))
    };
    value.table("names of headers and regexps", ITEMS_MAX)?.into_iter().map(header).collect()
}
