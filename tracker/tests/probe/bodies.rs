use common::phrase;
use testkit::sites::{
    Site, Step, chunked, deflate_raw, deflate_zlib, gzip, response_head, response_with_body,
};
use tracker::probe::Limits;

use crate::{Seen, broken, limits, mismatched, probe, probe_within, unanswered, well};

fn see(bytes: Vec<u8>, check: &str) -> Seen {
    let site = Site::sends(bytes).unwrap();
    probe(&format!("http://127.0.0.1:{}/", site.port()), Some(check)).into()
}

fn coded(coding: &str, body: &[u8]) -> Vec<u8> {
    response_with_body(200, &[&format!("Content-Encoding: {coding}")], body)
}

#[test]
fn a_body_is_decoded_as_its_answer_declares() {
    let text = "a page ".repeat(10_000) + "and its end";
    let text = text.as_bytes();
    for (bytes, case) in [
        (response_with_body(200, &[], text), "by length"),
        (chunked(&[&text[..7], &text[7..40_000], &text[40_000..]]), "in chunks"),
        ([response_head(200, &[]), text.to_vec()].concat(), "to the end"),
        (coded("gzip", &gzip(text)), "gzip"),
        (coded("X-GZip", &gzip(text)), "x-gzip"),
        (coded("deflate", &deflate_zlib(text)), "zlib"),
        (coded("deflate", &deflate_raw(text)), "raw deflate"),
        (coded("identity", text), "identity"),
        (coded("UTF-8", text), "no coding at all"),
        (coded("deflate, gzip", &gzip(&deflate_zlib(text))), "one on the other"),
        (coded("gzip", &[gzip(text), b"and more".to_vec()].concat()), "with a tail"),
        (coded("gzip", &[gzip(&text[..9]), gzip(&text[9..])].concat()), "in members"),
    ] {
        assert_eq!(see(bytes, "^a page .* and its end$"), well("ok"), "{case}");
    }
}

#[test]
fn a_coded_body_may_be_empty() {
    for coding in ["gzip", "deflate", "br"] {
        assert_eq!(see(coded(coding, b""), "^$"), well("ok"), "{coding}");
    }
    let bodiless = response_head(304, &["Content-Encoding: br"]);
    assert_eq!(see(bodiless, "^$"), well("not modified"));
}

#[test]
fn a_body_that_is_not_coded_as_declared_is_never_ok() {
    let invalid = phrase::INVALID_RESPONSE;
    let whole = gzip(&b"some text".repeat(1000));
    let mut flipped = whole.clone();
    let middle = flipped.len() - 6;
    flipped[middle] ^= 1;
    for (bytes, detail) in [
        (coded("gzip", b"plain text"), "broken content encoding: invalid gzip header"),
        (
            coded("gzip", &whole[..whole.len() - 10]),
            "broken content encoding: incomplete deflate stream",
        ),
        (
            coded("gzip", &flipped),
            "broken content encoding: corrupt gzip stream does not have a matching checksum",
        ),
        (coded("br", b"\x8b\x01"), "content encoding not asked for: br"),
    ] {
        let site = Site::sends(bytes).unwrap();
        for check in [Some(""), None] {
            let url = format!("http://127.0.0.1:{}/", site.port());
            let seen = Seen::from(probe(&url, check));
            let expected = broken(invalid, detail).because("malformed_response", "body");
            assert_eq!(seen, expected, "{check:?}");
        }
    }
}

#[test]
fn a_coded_body_that_is_cut_short_by_the_site_is_the_connection_s_fault() {
    let mut bytes = coded("gzip", &gzip(&b"some text".repeat(1000)));
    bytes.truncate(bytes.len() - 10);
    let expected = broken(phrase::CONNECTION_CLOSED, "in the body");
    assert_eq!(see(bytes, ""), expected.because("closed_early", "body"));
}

#[test]
fn the_text_is_read_in_its_own_character_set() {
    for (content_type, body, check) in [
        ("text/html; charset=iso-8859-1", b"caf\xe9".as_slice(), "^café$"),
        ("text/html; charset=utf-8", "café".as_bytes(), "^café$"),
        ("text/html", "café".as_bytes(), "^café$"),
        ("text/html", b"<meta charset='windows-1251'>\xcc\xee\xf1\xea\xe2\xe0", "Москва$"),
        ("text/html; charset=shift_jis", b"\x93\xfa\x96\x7b", "^日本$"),
    ] {
        let bytes = response_with_body(200, &[&format!("Content-Type: {content_type}")], body);
        assert_eq!(see(bytes, check), well("ok"), "{content_type}");
    }
}

#[test]
fn reading_stops_at_the_bound_and_the_check_sees_no_further() {
    let small = Limits { body_bytes_max: 1000, ..limits() };
    let body = [vec![b'a'; 990], b"in sight".to_vec(), b"; out of sight".to_vec()].concat();
    let packed = gzip(&body);
    // Neither ever ends, so only the bound ends the probe.
    let endless =
        |bytes: Vec<u8>| Site::raw(vec![Step::ReadRequest, Step::Send(bytes), Step::Hang]).unwrap();
    let plain = endless([response_head(200, &[]), body].concat());
    let coded = endless([response_head(200, &["Content-Encoding: gzip"]), packed].concat());
    for (site, case) in [(plain, "plain"), (coded, "gzip")] {
        let see = |check| {
            let url = format!("http://127.0.0.1:{}/", site.port());
            Seen::from(probe_within(small, &url, check))
        };
        assert_eq!(see(Some("in sight")), well("ok"), "{case}");
        assert_eq!(see(None), well("ok"), "{case}");
        let missing = mismatched("out of");
        assert_eq!(see(Some("out of")), missing, "{case}");
    }
}

#[test]
fn a_bomb_is_read_to_the_bound_only() {
    let bomb = gzip(&vec![0; 50 * 1024 * 1024]);
    assert_eq!(see(coded("gzip", &bomb), "^\0+$"), well("ok"));
}

/// What a site sends for ever is not kept for ever, nor waited for to the deadline.
#[test]
fn what_never_ends_is_given_up_at_a_bound() {
    let invalid = phrase::INVALID_RESPONSE;
    let too_large = unanswered(invalid, "more than 64 KiB").because("head_too_large", "head");
    let chunked = || response_head(200, &["Transfer-Encoding: chunked"]);
    let framing =
        || broken(invalid, "framing of more than 64 KiB").because("malformed_response", "body");
    for (start, again, expected) in [
        (b"HTTP/1.1 200 OK\r\nX: ".to_vec(), "x", too_large),
        (chunked(), "0", framing()),
        ([chunked(), b"1;x=".to_vec()].concat(), "x", framing()),
        ([chunked(), b"0\r\nX: ".to_vec()].concat(), "x", framing()),
    ] {
        let shown = String::from_utf8_lossy(&start).into_owned();
        let more = again.repeat(64 * 1024).into_bytes();
        let mut steps = vec![Step::ReadRequest, Step::Send(start)];
        steps.extend(std::iter::repeat_n(Step::Send(more), 3));
        steps.push(Step::Hang);
        let site = Site::raw(steps).unwrap();
        let seen = Seen::from(probe(&format!("http://127.0.0.1:{}/", site.port()), None));
        assert_eq!(seen, expected, "{shown}");
    }
}
