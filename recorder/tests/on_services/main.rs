//! Tests of the recorder, and of its connection to PostgreSQL, with real services.

#![cfg(test)]

mod commit_cuts;
mod connection_limits;
mod dedup;
mod extra_columns;
mod group_offset;
mod leases;
mod legacy;
mod lost_tail;
mod open_files;
mod outages;
mod own_services;
mod panics;
mod pooler;
mod postgres_uri;
mod quarantine;
mod recording;
mod refusals;
mod replay;
mod schema;
mod slot_account;
mod smart;
mod support;
mod tables;
mod three_brokers;
mod transaction_cuts;
mod unreadable;
