//! The recorder, and its way to PostgreSQL, on the real services.

#![cfg(test)]

mod account;
mod cuts;
mod further;
mod identity;
mod leases;
mod outages;
mod postgres_uri;
mod recording;
mod replay;
mod stale;
mod support;
mod tables;
mod unreadable;
mod walk;
