//! [`Reload`]: what is read again when the program is told to, by SIGHUP.

use std::fmt;
use std::sync::Arc;

/// What is to be read again. Clones are of the same things.
#[derive(Clone, Default)]
pub struct Reload {
    parts: Vec<Part>,
}

#[derive(Clone)]
struct Part {
    what: String,
    read: Arc<ReadAgain>,
}

type ReadAgain = dyn Fn() -> Result<(), String> + Send + Sync;

impl Reload {
    /// Adds something, by the name it has in the log: the section of the configuration. `read` runs on the
    /// thread that waits for signals, and leaves what is in use in place when it fails.
    pub fn add(
        &mut self,
        what: impl Into<String>,
        read: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.parts.push(Part {
            what: what.into(),
            read: Arc::new(read),
        });
    }

    /// Reads everything again. What cannot be read is logged, and holds nothing else up.
    pub fn run(&self) {
        if self.parts.is_empty() {
            log::info!("nothing to read again: no certificate and no secret is configured");
        }
        for part in &self.parts {
            match (part.read)() {
                Ok(()) => log::info!("{}: read again", part.what),
                Err(error) => log::error!("{}: {error}; the old one stays in use", part.what),
            }
        }
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.parts.iter().map(|part| &part.what))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_that_fails_does_not_hold_up_the_others() {
        let read = Arc::new(AtomicUsize::new(0));
        let mut reload = Reload::default();
        reload.add("first", || Err("no such file".to_owned()));
        let counted = Arc::clone(&read);
        reload.add("second", move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        reload.clone().run();
        assert_eq!(read.load(Ordering::Relaxed), 1);
        assert_eq!(format!("{reload:?}"), r#"["first", "second"]"#);
    }
}
