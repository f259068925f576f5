//! The Kafka port: translates Kafka's wire protocol to the log service. It owns no state.

pub mod codec;
pub mod limits;
