//! The Kafka client on a real cluster, and on scripted brokers for what a real
//! one can't be made to do.

#[cfg(test)]
mod absent;
#[cfg(test)]
mod cuts;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod forgotten;
#[cfg(test)]
mod leaders;
#[cfg(test)]
mod positions;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod security;
#[cfg(test)]
mod stale;
#[cfg(test)]
mod support;
