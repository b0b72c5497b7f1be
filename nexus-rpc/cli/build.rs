//! Generates the service that this crate's tests call.

fn main() -> Result<(), nexus_rpc_build::BuildError> {
    nexus_rpc_build::Builder::new()
        .inline("shop.Shop.Price")
        .compile(&["shop.proto"], &["tests/proto"])
}
