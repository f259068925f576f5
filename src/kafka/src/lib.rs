//! The Kafka port: translates Kafka's wire protocol to the log service and the group
//! coordinator. It owns no state.

pub mod codec;
mod connection;
pub mod errors;
mod gateway;
mod handlers;
pub mod limits;
mod metrics;
mod outgoing;
mod sessions;

pub use gateway::{Backend, KafkaConfig, KafkaGateway};
pub use metrics::KafkaMetrics;
