//! The files of the cluster, and what is wrong in others.

use std::io::Write;

use super::*;

fn loaded(text: &str) -> Result<ProxyConfig, String> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    load(file.path()).map_err(|error| error.to_string())
}

/// All of a configuration, as text.
fn shown(config: &ProxyConfig) -> String {
    let redis = &config.redis;
    format!(
        "{:?} {:?} {:?} {} {} {} {} {:?} {} {} {:?}",
        config.options,
        config.admin,
        config.reload,
        config.loops,
        config.registry_url,
        redis.url,
        redis.key_prefix,
        redis.timeout,
        redis.connections_max,
        config.log_level,
        config.grace,
    )
}

#[test]
fn the_files_of_the_cluster_spell_out_the_defaults() {
    let defaults = loaded("").unwrap_or_else(|error| panic!("{error}"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    for (file, port) in [("proxy-1.toml", 8001), ("proxy-2.toml", 8002)] {
        let mut config = load(&folder.join(file)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            config.options.listen.to_string(),
            format!("127.0.0.1:{port}")
        );
        config.options.listen = defaults.options.listen;
        assert_eq!(shown(&config), shown(&defaults));
    }
}

#[test]
fn the_files_of_the_cluster_show_every_key_and_no_other() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    for file in ["proxy-1.toml", "proxy-2.toml"] {
        let text = std::fs::read_to_string(folder.join(file)).expect("read");
        nexus_testkit::assert_keys_stand(&text, |text| match loaded(text) {
            Ok(_) => panic!("{text} was taken"),
            Err(error) => error,
        });
    }
}

#[test]
fn proxies_in_front_are_named_by_address_or_network() {
    let config = loaded("[proxy]\nproxy_protocol = [\"127.0.0.2\", \"10.1.0.0/16\", \"fd00::/8\"]");
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let networks = ["127.0.0.2/32", "10.1.0.0/16", "fd00::/8"].map(|net| net.parse().unwrap());
    let expected = ProxyProtocol::RequiredFrom(networks.into());
    assert_eq!(config.options.proxy_protocol, expected);
}

#[test]
fn the_smallest_limits_that_hold_everything_are_taken() {
    let limits = format!(
        "[limits]\nframe_size_max = \"72KiB\"\noutput_size_high = \"1MiB\"\noutput_size_max = \"{}B\"",
        (1 << 20) + RESPONSE_FRAME_BYTES_MIN
    );
    loaded(&limits).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn all_that_is_wrong_is_reported_with_its_key() {
    let Err(error) = loaded(
        r#"
        [proxy]
        loops = 0
        idle_timeout = "0s"
        [registry]
        url = "http://localhost"
        [redis]
        url = "nowhere"
        connections_max = 0
        [limits]
        frame_size_max = "0B"
        output_size_low = "2 MiB"
        "#,
    ) else {
        panic!("taken");
    };
    for key in [
        "proxy.loops",
        "proxy.idle_timeout",
        "registry.url",
        "redis.connections_max",
        "limits.frame_size_max",
        "limits.output_size_low",
    ] {
        assert!(error.contains(&format!("key \"{key}\"")), "{key}: {error}");
    }
    for (text, key) in [
        ("[proxy]\nlisten = \"8001\"", "proxy.listen"),
        ("[redis]\nurl = \"nowhere\"", "redis.url"),
        ("[registry]\nurl = \"zookeeper://\"", "registry.url"),
        (
            "[limits]\nframe_size_max = \"64KiB\"",
            "limits.frame_size_max",
        ),
        (
            "[limits]\noutput_size_max = \"5MiB\"",
            "limits.output_size_max",
        ),
        ("[log]\nlevel = \"\"", "log.level"),
        (
            "[proxy]\nproxy_protocol = [\"nginx\"]",
            "proxy.proxy_protocol",
        ),
        ("[tls]\nkey = \"proxy.key\"", "tls.certificate"),
        ("[cluster]\nca = \"ca.pem\"", "cluster.certificate"),
        (
            "[cluster]\nsecret_file = \"/no/such/file\"",
            "cluster.secret_file",
        ),
    ] {
        assert!(
            loaded(text).is_err_and(|error| error.contains(key)),
            "{text}"
        );
    }
}
