//! The target of a redirect.

use url::Url;

use super::request::displayable_url;
use crate::probe::reason::{Failure, Phase, Reason};

/// Resolves a Location header. As in browsers, `http` and `https` may lead to each other.
///
/// # Errors
/// [`Reason::RedirectRefused`] for another scheme, or if the location is not a URL.
pub(crate) fn next_url(from: &Url, location: &str) -> Result<Url, Failure> {
    match from.join(location) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Err(refused(&displayable_url(&url)))
        }
        Ok(mut url) => {
            let has_no_user = url.username().is_empty() && url.password().is_none();
            if has_no_user && is_same_site(from, &url) {
                // These two calls fail only for a URL without a host.
                let _ = url.set_username(from.username());
                let _ = url.set_password(from.password());
            }
            Ok(url)
        }
        Err(cause) => {
            // Without a valid URL the end of the password is not known: cut all up to the
            // last @.
            let shown = location.rsplit_once('@').map_or(location, |(_, rest)| rest);
            Err(refused(&format!("{cause}: {shown}")))
        }
    }
}

/// The failure when the body of a request would be sent to another site.
pub(crate) fn body_not_sent(to: &Url) -> Failure {
    refused(&format!("the body is for its own site alone: {}", displayable_url(to)))
}

fn refused(detail: &str) -> Failure {
    Failure::with_detail(Reason::RedirectRefused, Phase::Redirect, detail)
}

/// Whether credentials for one URL may be sent to the other: same host and port, or an
/// upgrade from http to https on the same host and the default ports.
pub(crate) fn is_same_site(one: &Url, other: &Url) -> bool {
    let ports = [one, other].map(|url| (url.scheme(), url.port_or_known_default()));
    let is_upgrade = ports == [("http", Some(80)), ("https", Some(443))];
    one.origin() == other.origin() || (is_upgrade && one.host() == other.host())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detail_has_no_password() {
        let from = "http://a.io/".parse().unwrap();
        for (location, expected) in [
            ("http://u:s3cret@b.io:99999/", "invalid port number: b.io:99999/"),
            ("ftp://u:s3cret@b.io/", "ftp://b.io/"),
            ("http://[/", "invalid IPv6 address: http://[/"),
        ] {
            let failure = next_url(&from, location).unwrap_err();
            assert_eq!(failure.detail.as_deref(), Some(expected));
        }
    }

    #[test]
    fn credentials_are_kept_for_the_same_site_only() {
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
            let url = next_url(&from.parse().unwrap(), location).unwrap();
            assert_eq!(url.as_str(), expected, "{from} to {location}");
        }
    }
}
