//! Tests of the Kafka client on a real cluster, and on scripted brokers for faults that tests can't
//! cause on a real broker.

#[cfg(test)]
mod connection_cuts;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod forgotten_producer;
#[cfg(test)]
mod leader_changes;
#[cfg(test)]
mod missing_topics;
#[cfg(test)]
mod offsets;
#[cfg(test)]
mod produce_faults;
#[cfg(test)]
mod refused_records;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod scripted_broker;
#[cfg(test)]
mod security;
#[cfg(test)]
mod stale_leader;
#[cfg(test)]
mod support;
