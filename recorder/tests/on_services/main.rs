//! The recorder, and its way to PostgreSQL, on the real services.

// What is under `test` may unwrap: see clippy.toml.
#[cfg(test)]
mod outages;
#[cfg(test)]
mod postgres_uri;
#[cfg(test)]
mod recording;
#[cfg(test)]
mod support;
