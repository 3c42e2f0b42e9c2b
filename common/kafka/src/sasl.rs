//! SASL: PLAIN (RFC 4616) and SCRAM with SHA-256 and SHA-512 (RFC 5802, RFC 7677).
//!
//! User and password go as the UTF-8 that they are. RFC 5802 asks for SASLprep,
//! but Kafka's brokers and tools do without (`ScramFormatter.normalize`), so a
//! prepared password would be another one than the broker has stored.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SecureRandom;
use ring::{digest, hmac, pbkdf2};

use super::error::{Error, printable};
use common::secret::Secret;

/// How user and password are shown to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// The password itself; only over TLS or loopback.
    Plain,
    /// SCRAM-SHA-256: both sides prove that they know the password.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl FromStr for Mechanism {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Plain, Self::ScramSha256, Self::ScramSha512]
            .into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| format!("{name:?} is not PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"))
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// User and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sasl {
    /// How they are shown to the broker.
    pub mechanism: Mechanism,
    /// The user's name.
    pub username: String,
    /// The user's password.
    pub password: Secret,
}

impl Sasl {
    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |text: &str| text.is_empty() || text.contains('\0');
        if bad(&self.username) || bad(self.password.expose()) {
            let what = "user and password must not be empty or hold a NUL".to_owned();
            return Err(Error::Request { api: "SASL", what });
        }
        if self.mechanism != Mechanism::Plain && !self.username.is_ascii() {
            let what = "Kafka takes only ASCII in a user name by SCRAM".to_owned();
            return Err(Error::Request { api: "SASL", what });
        }
        Ok(())
    }

    /// With the password as it is now, where it stands in a file.
    pub(super) fn renewed(&self) -> Result<Self, String> {
        let password = self.password.renewed().map_err(|cause| format!("password: {cause}"))?;
        Ok(Self { password, ..self.clone() })
    }

    /// The one message of PLAIN.
    pub(super) fn plain(&self) -> Vec<u8> {
        format!("\0{}\0{}", self.username, self.password.expose()).into_bytes()
    }

    /// A SCRAM exchange, when the mechanism is one.
    pub(super) fn scram(&self) -> Result<Option<Scram<'_>>, String> {
        let hash = match self.mechanism {
            Mechanism::Plain => return Ok(None),
            Mechanism::ScramSha256 => SHA_256,
            Mechanism::ScramSha512 => SHA_512,
        };
        let mut nonce = [0; 24];
        ring::rand::SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| "the system gives no random numbers".to_owned())?;
        Ok(Some(Scram::new(self, hash, BASE64.encode(nonce))))
    }
}

#[derive(Clone, Copy)]
struct Hash {
    digest: &'static digest::Algorithm,
    hmac: hmac::Algorithm,
    pbkdf2: pbkdf2::Algorithm,
}

const SHA_256: Hash =
    Hash { digest: &digest::SHA256, hmac: hmac::HMAC_SHA256, pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256 };
const SHA_512: Hash =
    Hash { digest: &digest::SHA512, hmac: hmac::HMAC_SHA512, pbkdf2: pbkdf2::PBKDF2_HMAC_SHA512 };

/// Fewer rounds than RFC 7677 asks for are refused, because they would help who
/// listens; more than the upper bound would keep us busy for who answers.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=1_000_000;

/// One exchange: [`Scram::first`] is sent, [`Scram::proof`] answers the broker's
/// first message, [`Scram::verify`] judges its last.
pub(super) struct Scram<'a> {
    sasl: &'a Sasl,
    hash: Hash,
    nonce: String,
    first_bare: String,
    server_signature: Option<hmac::Tag>,
}

impl<'a> Scram<'a> {
    fn new(sasl: &'a Sasl, hash: Hash, nonce: String) -> Self {
        let name = sasl.username.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={name},r={nonce}");
        Self { sasl, hash, nonce, first_bare, server_signature: None }
    }

    pub(super) fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare).into_bytes()
    }

    pub(super) fn proof(&mut self, server_first: &[u8]) -> Result<Vec<u8>, String> {
        let server_first = text(server_first)?;
        let nonce = attribute(server_first, "r")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the broker's nonce does not go on from ours".to_owned());
        }
        let salt = BASE64
            .decode(attribute(server_first, "s")?)
            .map_err(|_| "the broker's salt is not base64".to_owned())?;
        let iterations = attribute(server_first, "i")?
            .parse()
            .ok()
            .filter(|iterations| ITERATIONS.contains(iterations))
            .and_then(NonZeroU32::new)
            .ok_or_else(|| format!("the broker asks for other than {ITERATIONS:?} iterations"))?;
        let Hash { digest, hmac, pbkdf2 } = self.hash;

        let mut salted = vec![0; digest.output_len()];
        let password = self.sasl.password.expose().as_bytes();
        pbkdf2::derive(pbkdf2, iterations, &salt, password, &mut salted);
        let salted = hmac::Key::new(hmac, &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let stored_key = digest::digest(digest, client_key.as_ref());
        let server_key = hmac::sign(&salted, b"Server Key");

        let final_bare = format!("c=biws,r={nonce}");
        let message = format!("{},{server_first},{final_bare}", self.first_bare);
        let signature = hmac::sign(&hmac::Key::new(hmac, stored_key.as_ref()), message.as_bytes());
        let proof: Vec<u8> =
            client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = hmac::Key::new(hmac, server_key.as_ref());
        self.server_signature = Some(hmac::sign(&server_key, message.as_bytes()));
        Ok(format!("{final_bare},p={}", BASE64.encode(proof)).into_bytes())
    }

    /// A broker that does not know the password can't make this message.
    pub(super) fn verify(&self, server_final: &[u8]) -> Result<(), String> {
        let server_final = text(server_final)?;
        if let Ok(error) = attribute(server_final, "e") {
            return Err(format!("refused: {}", printable(error)));
        }
        let signature = BASE64
            .decode(attribute(server_final, "v")?)
            .map_err(|_| "the broker's signature is not base64".to_owned())?;
        let expected = self.server_signature.as_ref().map(AsRef::as_ref).unwrap_or_default();
        // Both are known to who listens, so a plain comparison gives nothing away.
        if expected.is_empty() || signature != expected {
            return Err("the broker does not know the password it checks".to_owned());
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "the broker's message is not text".to_owned())
}

fn attribute<'m>(message: &'m str, name: &str) -> Result<&'m str, String> {
    message
        .split(',')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        .ok_or_else(|| format!("the broker's message lacks {name}="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sasl() -> Sasl {
        Sasl {
            mechanism: Mechanism::ScramSha256,
            username: "user".to_owned(),
            password: Secret::new("pencil"),
        }
    }

    /// The exchange that stands in RFC 7677, section 3.
    #[test]
    fn the_example_of_rfc_7677_comes_out() {
        let sasl = sasl();
        let mut scram = Scram::new(&sasl, SHA_256, "rOprNGfwEbeRWgbNEkqO".to_owned());
        assert_eq!(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let proof = scram
            .proof(
                b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                  s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            )
            .unwrap();
        assert_eq!(
            String::from_utf8(proof).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        let other = scram.verify(b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap_err();
        assert_eq!(other, "the broker does not know the password it checks");
        assert_eq!(scram.verify(b"e=other-error").unwrap_err(), "refused: other-error");
    }

    #[test]
    fn a_hostile_broker_is_refused() {
        let sasl = sasl();
        let mut scram = Scram::new(&sasl, SHA_256, "abc".to_owned());
        for (message, expected) in [
            ("r=xyz,s=AA==,i=4096", "the broker's nonce does not go on from ours"),
            ("r=abc,s=AA==,i=4096", "the broker's nonce does not go on from ours"),
            ("r=abcd,s=A,i=4096", "the broker's salt is not base64"),
            ("r=abcd,s=AA==,i=1", "the broker asks for other than 4096..=1000000 iterations"),
            (
                "r=abcd,s=AA==,i=4000000000",
                "the broker asks for other than 4096..=1000000 iterations",
            ),
            ("r=abcd,i=4096", "the broker's message lacks s="),
        ] {
            assert_eq!(scram.proof(message.as_bytes()).unwrap_err(), expected);
        }
        // The last message before the first must not count as proof.
        assert!(scram.verify(b"v=").is_err());
    }

    #[test]
    fn names_are_escaped_and_the_password_is_never_shown() {
        let mut sasl = sasl();
        sasl.username = "a=b,c".to_owned();
        assert_eq!(Scram::new(&sasl, SHA_512, "x".to_owned()).first(), b"n,,n=a=3Db=2Cc,r=x");
        assert!(!format!("{sasl:?}").contains("pencil"));
        sasl.check().unwrap();
        sasl.username = "\u{fc}".to_owned();
        assert!(sasl.check().is_err());
        assert_eq!("scram-sha-512".parse(), Ok(Mechanism::ScramSha512));
        assert!("GSSAPI".parse::<Mechanism>().is_err());
    }

    /// Goes red when `proof` takes any number of iterations: it is slow, or never done.
    #[test]
    fn fuzzed_messages_of_a_broker_are_answered_or_refused() {
        let samples: [Vec<u8>; 3] = [
            b"r=abcd,s=AA==,i=4096".into(),
            b"r=abcd,s=AA==,i=4294967295".into(),
            b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".into(),
        ];
        let sasl = sasl();
        let tried = testkit::fuzz::run(&samples, |bytes| {
            let mut scram = Scram::new(&sasl, SHA_256, "abc".to_owned());
            let iterations = text(bytes).and_then(|text| attribute(text, "i"));
            // What is allowed is counted through, which takes seconds without optimisation.
            if iterations
                .is_ok_and(|it| it.parse().is_ok_and(|it| (5_000..=1_000_000).contains(&it)))
            {
                return;
            }
            let _ = scram.proof(bytes);
            assert!(scram.verify(bytes).is_err(), "nobody can know what it is to be");
        });
        println!("sasl: {tried} inputs");
    }
}
