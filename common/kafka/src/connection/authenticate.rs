//! The SASL exchange after a connection is opened.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;

use super::BrokerConnection;
use crate::error::KafkaError;
use crate::security::sasl::Sasl;
use crate::text::one_line;

/// A connection is replaced at this percentage of its SASL session's lifetime (KIP-368), so that
/// no request is in flight when the broker closes it.
const SESSION_USE_PERCENT: u64 = 85;

impl BrokerConnection {
    /// Authenticates by SASL (KIP-43, KIP-152).
    pub(super) fn authenticate(
        &mut self,
        sasl: &Sasl,
        deadline: Instant,
    ) -> Result<(), KafkaError> {
        let address = self.address.clone();
        let refused = |reason: String| KafkaError::Sasl { address: address.clone(), reason };
        let sasl = sasl.reread().map_err(refused)?;
        let name = sasl.mechanism.name();
        let request =
            SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(name));
        let response = self.call(&request, deadline)?;
        if response.error_code != 0 {
            let offered: Vec<_> = response.mechanisms.iter().map(StrBytes::as_str).collect();
            let offered = one_line(&offered.join(", "));
            return Err(refused(format!(
                "the broker does not support {name}: it supports {offered}"
            )));
        }
        match sasl.start_scram().map_err(refused)? {
            None => self.sasl_step(sasl.plain_message(), deadline).map(drop),
            Some(mut scram) => {
                let first = self.sasl_step(scram.first_message(), deadline)?;
                let proof = scram.prove(&first).map_err(refused)?;
                let last = self.sasl_step(proof, deadline)?;
                scram.verify(&last).map_err(refused)
            }
        }
    }

    fn sasl_step(&mut self, message: Vec<u8>, deadline: Instant) -> Result<Bytes, KafkaError> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
        let response = self.call(&request, deadline)?;
        if response.error_code != 0 {
            let message = response.error_message.as_ref().map(StrBytes::as_str).unwrap_or_default();
            let reason = format!("the broker refused user and password ({})", one_line(message));
            return Err(KafkaError::Sasl { address: self.address.clone(), reason });
        }
        if let Ok(lifetime_ms) = u64::try_from(response.session_lifetime_ms)
            && lifetime_ms > 0
        {
            let usable = Duration::from_millis(lifetime_ms / 100 * SESSION_USE_PERCENT);
            self.session_end = Instant::now().checked_add(usable);
        }
        Ok(response.auth_bytes)
    }
}
