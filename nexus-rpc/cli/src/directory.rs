//! Who provides what: the registry, read once.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use nexus_rpc::registry::{self, Provider, Registry, Watch};

use crate::args::Global;
use crate::failure::Failure;
use crate::reach;

/// A watch's function, of a list of `T`.
type OnList<T> = Box<dyn Fn(&[T]) + Send + Sync>;

/// The registry that the command line names.
pub(crate) struct Directory {
    registry: Arc<dyn Registry>,
    url: String,
    timeout: Duration,
}

impl Directory {
    pub(crate) fn open(global: &Global) -> Result<Self, Failure> {
        let registry = registry::open(&global.registry).map_err(|error| {
            Failure::new(
                error.to_string(),
                "give --registry as zookeeper://host:port/root or as list://host:port,host:port",
            )
        })?;
        Ok(Self {
            registry,
            url: registry::redacted(&global.registry),
            timeout: global.timeout,
        })
    }

    pub(crate) fn registry(&self) -> Arc<dyn Registry> {
        Arc::clone(&self.registry)
    }

    /// As it was given, without credentials.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether it is a list of addresses, the same for every service. Which services there are, only the
    /// providers know then.
    pub(crate) fn is_list(&self) -> bool {
        self.url.starts_with("list://")
    }

    /// The names of all services.
    pub(crate) fn services(&self) -> Result<Vec<String>, Failure> {
        self.first(|on_change| self.registry.watch_services(on_change))
    }

    /// Who provides the service now; nobody is no failure.
    pub(crate) fn providers(&self, service: &str) -> Result<Vec<Provider>, Failure> {
        self.first(|on_change| self.registry.watch(service, on_change))
    }

    /// Who provides the service now, at least one.
    pub(crate) fn some_providers(&self, service: &str) -> Result<Vec<Provider>, Failure> {
        let providers = self.providers(service)?;
        if providers.is_empty() {
            return Err(Failure::new(
                format!("nobody provides {service} in {}", self.url),
                "`nexus-rpc list` shows the services and their providers; check the name and \
                 --registry",
            ));
        }
        Ok(providers)
    }

    /// What a watch tells first.
    fn first<T: Clone + Send + 'static>(
        &self,
        watch: impl FnOnce(OnList<T>) -> Watch,
    ) -> Result<Vec<T>, Failure> {
        let (tell, told) = mpsc::channel();
        let _watch = watch(Box::new(move |list: &[T]| {
            // Only the first is waited for.
            let _ = tell.send(list.to_vec());
        }));
        told.recv_timeout(self.timeout).map_err(|_| {
            let what = format!("{} does not answer within {:?}", self.url, self.timeout);
            match self
                .hosts()
                .find_map(|host| reach::unreachable(host, self.timeout))
            {
                Some(trouble) => trouble.of(what),
                None => Failure::new(what, "see whether ZooKeeper runs there"),
            }
            .or("name another registry with --registry or NEXUS_REGISTRY")
        })
    }

    /// The addresses in the URL, host:port.
    fn hosts(&self) -> impl Iterator<Item = &str> {
        let behind = self.url.split_once("://").map_or("", |(_, behind)| behind);
        let hosts = behind.split('/').next().unwrap_or_default();
        // Behind the credentials, whose place the URL still shows.
        let hosts = hosts.rsplit('@').next().unwrap_or_default();
        hosts.split(',').filter(|host| !host.is_empty())
    }
}
