//! What `tracker` and `recorder` share: the record and its names, settings,
//! stopping and waiting, and the way to Kafka and PostgreSQL.

pub mod backoff;
pub mod domain;
pub mod identity;
pub mod kafka;
pub mod logger;
pub mod pem;
pub mod phrase;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod record;
pub mod secret;
pub mod settings;
pub mod stop;
