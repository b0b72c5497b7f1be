//! Both buses pass the suite of the contract; the one on Redis with a real server, whose faults it
//! is tested against as well.

#[macro_use]
mod suite;

mod budgets;
mod logins;
mod redis_failover;
mod redis_faults;
mod redis_older_states;
mod redis_refusals;
mod redis_tls;

mod local {
    use std::sync::Arc;

    use chat_bus::LocalBus;

    use crate::suite::TwoHandles;

    fn two_handles() -> TwoHandles {
        let bus = LocalBus::new();
        (Arc::new(bus.clone()), Arc::new(bus))
    }

    conformance!(two_handles);
}

mod redis {
    use std::sync::{Arc, OnceLock};

    use chat_bus::{ProxyId, RedisBus, RedisConfig};
    use nexus_testkit::Redis;

    use crate::suite::TwoHandles;

    fn two_handles() -> TwoHandles {
        // One server for all cases; it ends with this process. A prefix each keeps them apart.
        static REDIS: OnceLock<Redis> = OnceLock::new();
        let redis = REDIS.get_or_init(|| Redis::start().expect("Redis starts"));
        let mut config = RedisConfig::new(redis.url());
        config.key_prefix = format!("case-{}:", ProxyId::random());
        let handle = || Arc::new(RedisBus::new(config.clone()).expect("a good configuration"));
        (handle(), handle())
    }

    conformance!(two_handles);
}
