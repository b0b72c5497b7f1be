//! What stands in a registry's node, whoever wrote it: a provider that survives being written again,
//! or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nexus_rpc::registry::Provider;

fuzz_target!(|content: &[u8]| {
    match Provider::from_node(content) {
        Ok(provider) => {
            assert!(provider.weight >= 1 && provider.address.port() != 0);
            let again = Provider::from_node(&provider.to_node()).expect("a provider");
            assert_eq!(again, provider);
        }
        Err(error) => drop(error.to_string()),
    }
});
