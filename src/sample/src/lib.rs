//! A built-in SFTP server over a directory, and the sample files that the demo serves with it.
//!
//! The server speaks SFTP version 3 over SSH and is read-only. It has its own packet code
//! because file names must pass as raw bytes: Korean sites still have CP949 names. It is for
//! demonstrations and tests, not an SFTP server for the public.

mod serve;
pub mod server;
pub mod text;
pub mod tree;
pub mod wire;

pub use server::{SampleError, SampleOptions, SampleServer};
pub use tree::{SampleFile, read_tree, write_tree};
