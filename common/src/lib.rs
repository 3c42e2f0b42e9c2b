//! What `tracker` and `recorder` share: the record and its names, settings,
//! stopping and waiting, and the way to Kafka and PostgreSQL.

pub mod backoff;
pub mod pem;
pub mod stop;
