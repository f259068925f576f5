//! The Kafka port: translates Kafka's wire protocol to the log service and the group
//! coordinator. It owns no state.

mod authorize;
mod caller;
pub mod codec;
mod connection;
pub mod errors;
mod gateway;
mod handlers;
pub mod limits;
mod listener;
mod metrics;
mod outgoing;
mod quotas;
mod sasl;
mod sessions;

pub use gateway::{Advertised, Backend, KafkaConfig, KafkaGateway};
pub use listener::{ListenerSecurity, Protocol};
pub use metrics::KafkaMetrics;
