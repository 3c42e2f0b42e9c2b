//! The parts that `tracker` and `recorder` share.
//!
//! - Contract between the two: [`record`] (the value in Kafka), [`identity`] (its headers),
//!   [`phrase`] (the closed list of phrases), [`domain`] (names of topics and tables).
//! - Start and stop of a program: [`settings`], [`logger`], [`stop`].
//! - Connections: [`backoff`] and [`log_throttle`] (retries), [`pem`] and [`secret`] (certificates
//!   and passwords).
//! - Texts: [`counted`] (a count with its noun).

pub mod backoff;
pub mod counted;
pub mod domain;
pub mod identity;
pub mod log_throttle;
pub mod logger;
pub mod pem;
pub mod phrase;
pub mod record;
pub mod secret;
pub mod settings;
pub mod stop;
