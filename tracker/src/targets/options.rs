//! The options of a target in the TOML file. Each option is defined once here: its name, the type
//! of its value, its parser, its place in the file and its documentation.
//!
//! To add an option, add an entry to [`OPTIONS`] and a setter to `TargetBuilder`.

use OptionPlace::{SharedSpec, Target, TargetAndDefaults};

use super::builder::{SetResult, TargetBuilder};
use super::context::ValueContext;
use super::values::FileValue;

/// Parses a value and stores it in the builder.
pub(super) type Setter = fn(&mut TargetBuilder, FileValue<'_>, &ValueContext<'_>) -> SetResult;

/// One option of a target.
#[derive(Debug)]
pub struct TargetOption {
    /// Key in the file.
    pub name: &'static str,
    /// Type and range of the value, as the tables in the documentation show it.
    pub value: &'static str,
    /// Where the option is allowed.
    pub place: OptionPlace,
    /// What the option does. Starts in lower case, without a full stop.
    pub documentation: &'static str,
    /// Stores the value in the builder.
    pub(super) set: Setter,
}

/// Where an option is allowed in the file, and which part of a target it sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionPlace {
    /// In `[[target]]` only: it identifies the target.
    Target,
    /// In `[[target]]` and `[defaults]`. It sets a number of the target itself.
    TargetAndDefaults,
    /// In `[[target]]` and `[defaults]`. It sets the request, route or checks. Targets that set
    /// none of these options share them.
    SharedSpec,
}

impl OptionPlace {
    /// True if the option is allowed in `[defaults]`.
    pub fn is_in_defaults(self) -> bool {
        self != Self::Target
    }
}

const fn option(
    name: &'static str,
    value: &'static str,
    place: OptionPlace,
    set: Setter,
    documentation: &'static str,
) -> TargetOption {
    TargetOption { name, value, place, documentation, set }
}

/// All options, in the order of the documentation.
pub const OPTIONS: &[TargetOption] = &[
    option("url", "a URL", Target, TargetBuilder::check_url_type, "URL to probe, http or https"),
    option(
        "name",
        "1 to 128 characters, in one line",
        Target,
        TargetBuilder::set_name,
        "distinguishes targets with the same URL",
    ),
    option(
        "period_s",
        "1 to 86400 seconds",
        TargetAndDefaults,
        TargetBuilder::set_period,
        "time from one probe to the next; default: PERIOD",
    ),
    option(
        "timeout_s",
        "0.1 to 300 seconds",
        TargetAndDefaults,
        TargetBuilder::set_timeout,
        "longest duration of an attempt; default: TIMEOUT",
    ),
    option(
        "retries",
        "0 to 10",
        TargetAndDefaults,
        TargetBuilder::set_retries,
        "further attempts after a failed one; default: RETRIES",
    ),
    option(
        "method",
        "one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        SharedSpec,
        TargetBuilder::set_method,
        "request method; default GET",
    ),
    option(
        "headers",
        "a table of names and values",
        SharedSpec,
        TargetBuilder::set_headers,
        "request headers. A redirect to another site carries only accept, accept-encoding, accept-language and user-agent",
    ),
    option(
        "body",
        "a text, a file or a variable, at most 64 KiB",
        SharedSpec,
        TargetBuilder::set_body,
        "request body. It is never sent to another site: a redirect that requires this is refused",
    ),
    option(
        "basic",
        "{ user = ..., password = ... }, each a text, a file or a variable",
        SharedSpec,
        TargetBuilder::set_basic,
        "HTTP basic authentication; not together with bearer",
    ),
    option(
        "bearer",
        "a text, a file or a variable",
        SharedSpec,
        TargetBuilder::set_bearer,
        "bearer token; not together with basic",
    ),
    option(
        "status",
        "100 to 999, a range like \"200-299\", or a list",
        SharedSpec,
        TargetBuilder::set_status,
        "expected HTTP statuses; default: 200 to 399",
    ),
    option(
        "match",
        "a regexp or a list",
        SharedSpec,
        TargetBuilder::set_body_match,
        "regexps that must all match the decoded body",
    ),
    option(
        "not_match",
        "a regexp or a list",
        SharedSpec,
        TargetBuilder::set_body_not_match,
        "regexps of which none may match the decoded body",
    ),
    option(
        "header_match",
        "a table of header names and regexps",
        SharedSpec,
        TargetBuilder::set_header_match,
        "regexps that must match response headers",
    ),
    option(
        "header_not_match",
        "a table of header names and regexps",
        SharedSpec,
        TargetBuilder::set_header_not_match,
        "regexps that must not match response headers",
    ),
    option(
        "json",
        "a table of JSON pointers (RFC 6901) and values",
        SharedSpec,
        TargetBuilder::set_json,
        "values that the JSON body must have",
    ),
    option(
        "latency_ms_max",
        "1 to 300000 ms",
        SharedSpec,
        TargetBuilder::set_latency_max,
        "longest duration of an attempt that is not reported as too_slow",
    ),
    option(
        "too_slow",
        "\"failure\" or \"warning\"",
        SharedSpec,
        TargetBuilder::set_too_slow,
        "severity of an attempt longer than latency_ms_max; default \"warning\"",
    ),
    option(
        "certificate_days_min",
        "1 to 3650 days",
        SharedSpec,
        TargetBuilder::set_certificate_days_min,
        "shortest remaining validity of the certificate that is not reported as certificate_expires_soon",
    ),
    option(
        "certificate_expires_soon",
        "\"failure\" or \"warning\"",
        SharedSpec,
        TargetBuilder::set_certificate_expires_soon,
        "severity of a certificate that expires before certificate_days_min; default \"warning\"",
    ),
    option(
        "redirects",
        "0 to 50, or \"none\"",
        SharedSpec,
        TargetBuilder::set_redirects,
        "most redirects that are followed; default 10. \"none\" follows none and checks the redirect as the response",
    ),
    option(
        "body_bytes_max",
        "1 to 67108864 bytes",
        TargetAndDefaults,
        TargetBuilder::set_body_bytes_max,
        "most bytes that are read of the response body, after decoding; default: BODY_MAX",
    ),
    option(
        "ip",
        "4, 6, \"both\" or \"any\"",
        TargetAndDefaults,
        TargetBuilder::set_family,
        "address family. \"both\" probes by IPv4 and by IPv6 at the same time; default \"any\"",
    ),
    option(
        "resolver",
        "up to three of ip, ip:port or [ip]:port, or \"system\"",
        SharedSpec,
        TargetBuilder::set_resolver,
        "name servers to query; default \"system\": RESOLVER",
    ),
    option(
        "proxy",
        "http://[user:password@]host[:port], or \"none\"; a text, a file or a variable",
        SharedSpec,
        TargetBuilder::set_proxy,
        "proxy to connect through, by CONNECT also for http URLs. \"none\" overrides [defaults]",
    ),
    option(
        "ca",
        "a path or PEM text",
        SharedSpec,
        TargetBuilder::set_ca,
        "CA certificates to trust in addition to ROOTS",
    ),
    option(
        "cert",
        "a path or PEM text",
        SharedSpec,
        TargetBuilder::set_cert,
        "client certificate; needs key",
    ),
    option(
        "key",
        "a path or PEM text",
        SharedSpec,
        TargetBuilder::set_key,
        "private key of the client certificate; needs cert",
    ),
    option(
        "insecure",
        "true or false",
        SharedSpec,
        TargetBuilder::set_insecure,
        "accepts any certificate. Each start logs one warning",
    ),
];
