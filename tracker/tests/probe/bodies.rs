//! Bodies: encodings, character sets, and limits.

use common::phrase;
use testkit::sites::{
    Site, Step, chunked, deflate_raw, deflate_zlib, gzip, response_head, response_with_body,
};
use tracker::probe::Limits;

use crate::{
    Observed, incomplete, limits, no_response, probe, probe_within, success, unexpected_body,
};

fn observe(bytes: Vec<u8>, check: &str) -> Observed {
    let site = Site::sends(bytes).unwrap();
    probe(&format!("http://127.0.0.1:{}/", site.port()), Some(check)).into()
}

fn encoded(encoding: &str, body: &[u8]) -> Vec<u8> {
    response_with_body(200, &[&format!("Content-Encoding: {encoding}")], body)
}

#[test]
fn a_body_is_decoded_as_declared() {
    let text = "a page ".repeat(10_000) + "and its end";
    let text = text.as_bytes();
    for (bytes, case) in [
        (response_with_body(200, &[], text), "by length"),
        (chunked(&[&text[..7], &text[7..40_000], &text[40_000..]]), "in chunks"),
        ([response_head(200, &[]), text.to_vec()].concat(), "until close"),
        (encoded("gzip", &gzip(text)), "gzip"),
        (encoded("X-GZip", &gzip(text)), "x-gzip"),
        (encoded("deflate", &deflate_zlib(text)), "zlib"),
        (encoded("deflate", &deflate_raw(text)), "raw deflate"),
        (encoded("identity", text), "identity"),
        (encoded("UTF-8", text), "not an encoding"),
        (encoded("deflate, gzip", &gzip(&deflate_zlib(text))), "two encodings"),
        (encoded("gzip", &[gzip(text), b"and more".to_vec()].concat()), "with trailing bytes"),
        (encoded("gzip", &[gzip(&text[..9]), gzip(&text[9..])].concat()), "two members"),
    ] {
        assert_eq!(observe(bytes, "^a page .* and its end$"), success("ok"), "{case}");
    }
}

#[test]
fn an_encoded_body_may_be_empty() {
    for encoding in ["gzip", "deflate", "br"] {
        assert_eq!(observe(encoded(encoding, b""), "^$"), success("ok"), "{encoding}");
    }
    let bodiless = response_head(304, &["Content-Encoding: br"]);
    assert_eq!(observe(bodiless, "^$"), success("not modified"));
}

#[test]
fn a_body_that_is_not_encoded_as_declared_is_invalid() {
    let invalid = phrase::INVALID_RESPONSE;
    let whole = gzip(&b"some text".repeat(1000));
    let mut flipped = whole.clone();
    let middle = flipped.len() - 6;
    flipped[middle] ^= 1;
    for (bytes, detail) in [
        (encoded("gzip", b"plain text"), "broken content encoding: invalid gzip header"),
        (
            encoded("gzip", &whole[..whole.len() - 10]),
            "broken content encoding: incomplete deflate stream",
        ),
        (
            encoded("gzip", &flipped),
            "broken content encoding: corrupt gzip stream does not have a matching checksum",
        ),
        (encoded("br", b"\x8b\x01"), "content encoding not asked for: br"),
    ] {
        let site = Site::sends(bytes).unwrap();
        for check in [Some(""), None] {
            let url = format!("http://127.0.0.1:{}/", site.port());
            let observed = Observed::from(probe(&url, check));
            let expected = incomplete(invalid, detail).with_failure("malformed_response", "body");
            assert_eq!(observed, expected, "{check:?}");
        }
    }
}

#[test]
fn an_encoded_body_that_the_site_cuts_is_closed_early() {
    let mut bytes = encoded("gzip", &gzip(&b"some text".repeat(1000)));
    bytes.truncate(bytes.len() - 10);
    let expected = incomplete(phrase::CONNECTION_CLOSED, "in the body");
    assert_eq!(observe(bytes, ""), expected.with_failure("closed_early", "body"));
}

#[test]
fn a_body_is_decoded_by_its_character_set() {
    for (content_type, body, check) in [
        ("text/html; charset=iso-8859-1", b"caf\xe9".as_slice(), "^café$"),
        ("text/html; charset=utf-8", "café".as_bytes(), "^café$"),
        ("text/html", "café".as_bytes(), "^café$"),
        ("text/html", b"<meta charset='windows-1251'>\xcc\xee\xf1\xea\xe2\xe0", "Москва$"),
        ("text/html; charset=shift_jis", b"\x93\xfa\x96\x7b", "^日本$"),
    ] {
        let bytes = response_with_body(200, &[&format!("Content-Type: {content_type}")], body);
        assert_eq!(observe(bytes, check), success("ok"), "{content_type}");
    }
}

#[test]
fn reading_and_checks_stop_at_the_limit() {
    let small_limit = Limits { body_bytes_max: 1000, ..limits() };
    let body = [vec![b'a'; 990], b"within".to_vec(), b"; beyond".to_vec()].concat();
    let packed = gzip(&body);
    // The sites never end the body, so only the limit ends the probe.
    let endless =
        |bytes: Vec<u8>| Site::raw(vec![Step::ReadRequest, Step::Send(bytes), Step::Hang]).unwrap();
    let plain = endless([response_head(200, &[]), body].concat());
    let coded = endless([response_head(200, &["Content-Encoding: gzip"]), packed].concat());
    for (site, case) in [(plain, "plain"), (coded, "gzip")] {
        let observe = |check| {
            let url = format!("http://127.0.0.1:{}/", site.port());
            Observed::from(probe_within(small_limit, &url, check))
        };
        assert_eq!(observe(Some("within")), success("ok"), "{case}");
        assert_eq!(observe(None), success("ok"), "{case}");
        let missing = unexpected_body("beyond");
        assert_eq!(observe(Some("beyond")), missing, "{case}");
    }
}

#[test]
fn a_compression_bomb_is_read_to_the_limit() {
    let bomb = gzip(&vec![0; 50 * 1024 * 1024]);
    assert_eq!(observe(encoded("gzip", &bomb), "^\0+$"), success("ok"));
}

/// The probe neither buffers endless input nor reads it until the deadline.
#[test]
fn an_endless_head_or_framing_fails_at_its_limit() {
    let invalid = phrase::INVALID_RESPONSE;
    let too_large = no_response(invalid, "more than 64 KiB").with_failure("head_too_large", "head");
    let chunked = || response_head(200, &["Transfer-Encoding: chunked"]);
    let framing = || {
        incomplete(invalid, "framing of more than 64 KiB")
            .with_failure("malformed_response", "body")
    };
    for (start, repeated, expected) in [
        (b"HTTP/1.1 200 OK\r\nX: ".to_vec(), "x", too_large),
        (chunked(), "0", framing()),
        ([chunked(), b"1;x=".to_vec()].concat(), "x", framing()),
        ([chunked(), b"0\r\nX: ".to_vec()].concat(), "x", framing()),
    ] {
        let shown = String::from_utf8_lossy(&start).into_owned();
        let more = repeated.repeat(64 * 1024).into_bytes();
        let mut steps = vec![Step::ReadRequest, Step::Send(start)];
        steps.extend(std::iter::repeat_n(Step::Send(more), 3));
        steps.push(Step::Hang);
        let site = Site::raw(steps).unwrap();
        let observed = Observed::from(probe(&format!("http://127.0.0.1:{}/", site.port()), None));
        assert_eq!(observed, expected, "{shown}");
    }
}
