//! Generates the peer messages without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = "../../proto/peer.proto";
    println!("cargo:rerun-if-changed={file}");
    let set = protox::compile([file], ["../../proto"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(set)?;
    Ok(())
}
