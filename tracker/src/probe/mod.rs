//! One attempt to probe a URL: one request per redirect, each on a new connection,
//! within one deadline, and the checks on the final response.
//!
//! [`net`] resolves, connects and secures; [`http`] sends the request, reads the
//! response and checks it; [`reason`] has the names of all failures; [`Prober`] runs the
//! steps and measures them.

pub(crate) mod basic_auth;
mod dual_stack;
mod family;
pub mod http;
pub mod net;
mod outcome;
mod prober;
pub mod reason;
mod spec;

pub use family::Family;
pub use net::tls::roots::Roots;
pub use outcome::{Facts, PhaseTime, ProbeOutcome, ProbeTimings};
pub use prober::Prober;
pub use spec::{Limits, ProbeRequest, ProbeSpec};
