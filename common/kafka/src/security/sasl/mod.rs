//! SASL: PLAIN (RFC 4616) and SCRAM with SHA-256 and SHA-512 (RFC 5802, RFC 7677).
//!
//! User and password are sent as UTF-8 without SASLprep. RFC 5802 asks for SASLprep, but Kafka's
//! brokers and tools do not apply it (`ScramFormatter.normalize`), so a prepared password would
//! differ from the stored password.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SecureRandom;
use ring::{digest, hmac, pbkdf2};

use crate::text::one_line;
use common::secret::Secret;

/// The SASL mechanism: how the client proves that it knows the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// Sends the password itself. The client refuses it in plain text beyond this machine.
    Plain,
    /// SCRAM with SHA-256: both sides prove that they know the password, which is not sent.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

impl SaslMechanism {
    /// The mechanism's name in Kafka's protocol, for example `SCRAM-SHA-256`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl FromStr for SaslMechanism {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Plain, Self::ScramSha256, Self::ScramSha512]
            .into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| format!("{name:?} is not PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"))
    }
}

impl fmt::Display for SaslMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A SASL mechanism with user name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: SaslMechanism,
    /// The user name. SCRAM in Kafka allows ASCII only.
    pub username: String,
    /// The password. A password from a file is read again at each connection.
    pub password: Secret,
}

impl Sasl {
    /// Checks that the mechanism can carry user and password.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_invalid = |text: &str| text.is_empty() || text.contains('\0');
        if is_invalid(&self.username) || is_invalid(self.password.expose()) {
            return Err("user and password must not be empty or contain a NUL".to_owned());
        }
        if self.mechanism != SaslMechanism::Plain && !self.username.is_ascii() {
            return Err("Kafka allows only ASCII in a user name for SCRAM".to_owned());
        }
        Ok(())
    }

    /// Reads the password again if it came from a file.
    pub(crate) fn reread(&self) -> Result<Self, String> {
        let password = self.password.reread().map_err(|cause| format!("password: {cause}"))?;
        Ok(Self { password, ..self.clone() })
    }

    /// The message of PLAIN (RFC 4616, section 2).
    pub(crate) fn plain_message(&self) -> Vec<u8> {
        format!("\0{}\0{}", self.username, self.password.expose()).into_bytes()
    }

    /// Starts a SCRAM exchange. `None`: the mechanism is not SCRAM.
    pub(crate) fn start_scram(&self) -> Result<Option<Scram<'_>>, String> {
        let hash = match self.mechanism {
            SaslMechanism::Plain => return Ok(None),
            SaslMechanism::ScramSha256 => SHA_256,
            SaslMechanism::ScramSha512 => SHA_512,
        };
        let mut nonce = [0; 24];
        ring::rand::SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| "the system has no random numbers".to_owned())?;
        Ok(Some(Scram::new(self, hash, BASE64.encode(nonce))))
    }
}

#[derive(Clone, Copy)]
struct ScramHash {
    digest: &'static digest::Algorithm,
    hmac: hmac::Algorithm,
    pbkdf2: pbkdf2::Algorithm,
}

const SHA_256: ScramHash = ScramHash {
    digest: &digest::SHA256,
    hmac: hmac::HMAC_SHA256,
    pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256,
};
const SHA_512: ScramHash = ScramHash {
    digest: &digest::SHA512,
    hmac: hmac::HMAC_SHA512,
    pbkdf2: pbkdf2::PBKDF2_HMAC_SHA512,
};

/// Allowed numbers of PBKDF2 iterations. RFC 7677 asks for at least 4,096; fewer would help an
/// eavesdropper. The upper bound limits the work that a hostile broker can cause.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=1_000_000;

/// One SCRAM exchange: send [`Scram::first_message`], answer the broker's first message by
/// [`Scram::prove`], check the broker's last message by [`Scram::verify`].
pub(crate) struct Scram<'a> {
    sasl: &'a Sasl,
    hash: ScramHash,
    nonce: String,
    first_bare: String,
    server_signature: Option<hmac::Tag>,
}

impl<'a> Scram<'a> {
    fn new(sasl: &'a Sasl, hash: ScramHash, nonce: String) -> Self {
        let name = sasl.username.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={name},r={nonce}");
        Self { sasl, hash, nonce, first_bare, server_signature: None }
    }

    pub(crate) fn first_message(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare).into_bytes()
    }

    pub(crate) fn prove(&mut self, server_first: &[u8]) -> Result<Vec<u8>, String> {
        let server_first = parse_text(server_first)?;
        let nonce = find_attribute(server_first, "r")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the broker's nonce does not start with the client's nonce".to_owned());
        }
        let salt = BASE64
            .decode(find_attribute(server_first, "s")?)
            .map_err(|_| "the broker's salt is not base64".to_owned())?;
        let iterations = find_attribute(server_first, "i")?
            .parse()
            .ok()
            .filter(|iterations| ITERATIONS.contains(iterations))
            .and_then(NonZeroU32::new)
            .ok_or_else(|| {
                format!("the broker asks for a number of iterations outside {ITERATIONS:?}")
            })?;
        let ScramHash { digest, hmac, pbkdf2 } = self.hash;

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

    /// Checks the broker's proof that it knows the password.
    pub(crate) fn verify(&self, server_final: &[u8]) -> Result<(), String> {
        let server_final = parse_text(server_final)?;
        if let Ok(error) = find_attribute(server_final, "e") {
            return Err(format!("refused: {}", one_line(error)));
        }
        let signature = BASE64
            .decode(find_attribute(server_final, "v")?)
            .map_err(|_| "the broker's signature is not base64".to_owned())?;
        let expected = self.server_signature.as_ref().map(AsRef::as_ref).unwrap_or_default();
        // An eavesdropper knows both values, so a constant-time comparison is not needed.
        if expected.is_empty() || signature != expected {
            return Err("the broker did not prove that it knows the password".to_owned());
        }
        Ok(())
    }
}

fn parse_text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "the broker's message is not UTF-8".to_owned())
}

fn find_attribute<'m>(message: &'m str, name: &str) -> Result<&'m str, String> {
    message
        .split(',')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        .ok_or_else(|| format!("the broker's message has no {name}="))
}

#[cfg(test)]
mod tests;
