//! Where a redirect leads.

use url::Url;

use crate::probe::http::client;
use crate::probe::reason::{Failure, Phase, Reason};

/// Where a redirect leads: to http or https, as in a browser from either.
///
/// # Errors
/// [`Reason::RedirectRefused`] for another scheme, and for what is no URL.
pub(crate) fn next(from: &Url, location: &str) -> Result<Url, Failure> {
    match from.join(location) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Err(refused(&client::target_of(&url)))
        }
        Ok(mut url) => {
            let has_none = url.username().is_empty() && url.password().is_none();
            if has_none && is_same_site(from, &url) {
                // These two fail only for URLs without a host.
                let _ = url.set_username(from.username());
                let _ = url.set_password(from.password());
            }
            Ok(url)
        }
        Err(cause) => {
            // Nobody can tell where a password in what is no URL ends.
            let shown = location.rsplit_once('@').map_or(location, |(_, behind)| behind);
            Err(refused(&format!("{cause}: {shown}")))
        }
    }
}

/// Why a request with a body does not go to that other site.
pub(crate) fn of_body(to: &Url) -> Failure {
    refused(&format!("the body is for its own site alone: {}", client::target_of(to)))
}

fn refused(detail: &str) -> Failure {
    Failure::with(Reason::RedirectRefused, Phase::Redirect, detail)
}

/// Whether credentials for one are meant for the other as well: the same host
/// and port, or the same host's change from http to https.
pub(crate) fn is_same_site(one: &Url, other: &Url) -> bool {
    let ports = [one, other].map(|url| (url.scheme(), url.port_or_known_default()));
    let is_upgrade = ports == [("http", Some(80)), ("https", Some(443))];
    one.origin() == other.origin() || (is_upgrade && one.host() == other.host())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_url_is_told_without_its_password() {
        let from = "http://a.io/".parse().unwrap();
        for (location, expected) in [
            ("http://u:s3cret@b.io:99999/", "invalid port number: b.io:99999/"),
            ("ftp://u:s3cret@b.io/", "ftp://b.io/"),
            ("http://[/", "invalid IPv6 address: http://[/"),
        ] {
            let failure = next(&from, location).unwrap_err();
            assert_eq!(failure.detail.as_deref(), Some(expected));
        }
    }

    #[test]
    fn credentials_go_on_to_the_same_site_alone() {
        for (from, location, expected) in [
            ("http://u:p%20@a.io/", "/x", "http://u:p%20@a.io/x"),
            ("http://u:p%20@a.io/", "http://A.io:80/x", "http://u:p%20@a.io/x"),
            ("http://u@a.io/", "https://a.io/", "https://u@a.io/"),
            ("http://u:p@a.io/", "http://v:q@a.io/", "http://v:q@a.io/"),
            ("http://u:p@a.io/", "http://a.io:81/", "http://a.io:81/"),
            ("http://u:p@a.io/", "//b.a.io/", "http://b.a.io/"),
            ("https://u:p@a.io/", "http://a.io/", "http://a.io/"),
            ("http://a.io/", "/x", "http://a.io/x"),
        ] {
            let url = next(&from.parse().unwrap(), location).unwrap();
            assert_eq!(url.as_str(), expected, "{from} to {location}");
        }
    }
}
