//! Compiles the messages that nexus-rpc itself speaks: the baidu_std meta and the registry nodes.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto/nexus");
    let descriptors = protox::compile(
        ["nexus/baidu_std.proto", "nexus/registry.proto"],
        ["../proto"],
    )?;
    prost_build::Config::new()
        .bytes(["."])
        // Sorted maps: the same content gives the same bytes.
        .btree_map(["."])
        .compile_fds(descriptors)?;
    // For the tests and examples of this crate.
    nexus_rpc_build::Builder::new()
        .inline("nexus.test.Modes.Inline")
        .responder("nexus.test.Modes.Later")
        .compile(
            &["example/echo.proto", "modes.proto"],
            &["../proto", "tests/proto"],
        )?;
    nexus_rpc_build::Builder::new()
        .inline("shop.Prices.Look")
        .responder("shop.Orders.Place")
        .compile(&["shop.proto"], &["examples/proto"])?;
    Ok(())
}
