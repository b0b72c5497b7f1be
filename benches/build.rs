//! Generates `example.EchoService` once for each way to run a handler of nexus-rpc, and for tonic.

use std::path::PathBuf;

const METHOD: &str = "example.EchoService.Echo";
const PROTO: &str = "example/echo.proto";
const INCLUDE: &str = "../proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let folder = |name: &str| {
        let folder = out.join(name);
        std::fs::create_dir_all(&folder).map(|()| folder)
    };
    let builder = nexus_rpc_build::Builder::new;
    for (name, builder) in [
        ("pooled", builder()),
        ("inline", builder().inline(METHOD)),
        ("responder", builder().responder(METHOD)),
    ] {
        builder
            .out_dir(folder(name)?)
            .compile(&[PROTO], &[INCLUDE])?;
    }
    tonic_prost_build::configure()
        .out_dir(folder("tonic")?)
        .compile_fds(protox::compile([PROTO], [INCLUDE])?)?;
    Ok(())
}
