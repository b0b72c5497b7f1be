//! Senders, and a handler that empties its mailbox when it is woken and closes it in the end.

use std::fmt;

use loom::sync::{Arc, Condvar};
use loom::thread::{self, JoinHandle};

use crate::check;
use crate::mailbox::Mailbox;

/// Stands in for the library's: a wake is remembered until the handler has run.
#[derive(Clone, Default)]
pub(crate) struct ConnHandle(Arc<Woken>);

#[derive(Default)]
struct Woken {
    pending: loom::sync::Mutex<bool>,
    changed: Condvar,
}

impl ConnHandle {
    pub(crate) fn wake(&self) -> Result<(), ()> {
        *self.0.pending.lock().unwrap() = true;
        self.0.changed.notify_one();
        Ok(())
    }

    fn wait(&self) {
        let mut pending = self.0.pending.lock().unwrap();
        while !*pending {
            pending = self.0.changed.wait(pending).unwrap();
        }
        *pending = false;
    }
}

impl fmt::Debug for ConnHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnHandle")
    }
}

/// A message: who sent it, and how many that thread had sent before.
type Message = (usize, usize);

/// Sends messages; returns those that came back.
fn sender(
    mailbox: &Arc<Mailbox<Message>>,
    thread: usize,
    count: usize,
) -> JoinHandle<Vec<Message>> {
    let mailbox = Arc::clone(mailbox);
    thread::spawn(move || {
        let results = (0..count).map(|n| mailbox.send((thread, n)));
        results.filter_map(Result::err).collect()
    })
}

#[test]
fn every_message_wakes_the_handler_or_joins_one_that_does() {
    check(Some(3), || {
        let mailbox = Arc::new(Mailbox::new(ConnHandle::default()));
        let senders = [sender(&mailbox, 0, 2), sender(&mailbox, 1, 1)];
        let mut taken = Vec::new();
        while taken.len() < 3 {
            mailbox.conn().wait();
            mailbox.take(&mut taken);
        }
        for sender in senders {
            assert_eq!(sender.join().unwrap(), []);
        }
        taken.retain(|message| message.0 == 0);
        assert_eq!(taken, [(0, 0), (0, 1)]);
    });
}

#[test]
fn a_message_is_taken_or_comes_back_and_never_both() {
    check(Some(3), || {
        let mailbox = Arc::new(Mailbox::new(ConnHandle::default()));
        let senders = [sender(&mailbox, 0, 2), sender(&mailbox, 1, 1)];
        let mut all = Vec::new();
        mailbox.take(&mut all);
        all.extend(mailbox.close());
        for sender in senders {
            all.extend(sender.join().unwrap());
        }
        all.sort_unstable();
        assert_eq!(all, [(0, 0), (0, 1), (1, 0)]);
    });
}
