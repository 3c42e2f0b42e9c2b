//! What `tracker` and `recorder` share: the record and its names, settings,
//! stopping and waiting, and identities.

pub mod backoff;
pub mod domain;
pub mod identity;
pub mod logger;
pub mod pem;
pub mod phrase;
pub mod record;
pub mod secret;
pub mod settings;
pub mod stop;
