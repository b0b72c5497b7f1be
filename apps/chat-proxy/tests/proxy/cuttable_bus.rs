//! A bus that can be cut off from its subscribers, and that can refuse to restore.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chat_bus::{
    Budget, Bus, BusError, BusEvent, Claim, ClaimOrder, HeldSession, Lease, LocalBus, LoginPolicy,
    OnEvent, ProxyId, Restored, SessionRef, Spending, Subscription,
};
use parking_lot::Mutex;

/// A bus whose subscriptions can be cut off.
#[derive(Default)]
pub(crate) struct CuttableBus {
    inner: LocalBus,
    subscribers: Mutex<Vec<Arc<Mutex<OnEvent>>>>,
    is_cut: Arc<AtomicBool>,
    refuses: AtomicBool,
    restores: AtomicUsize,
}

impl CuttableBus {
    /// Subscribers get no messages any more.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.tell(BusEvent::Lost);
    }

    /// Subscribers get messages again.
    pub(crate) fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
        self.tell(BusEvent::Connected);
    }

    /// Whether sessions can be restored.
    pub(crate) fn refuse_to_restore(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    /// How often sessions were restored.
    pub(crate) fn restores(&self) -> usize {
        self.restores.load(Ordering::SeqCst)
    }

    fn tell(&self, event: BusEvent) {
        for subscriber in &*self.subscribers.lock() {
            (subscriber.lock())(event.clone());
        }
    }
}

impl Bus for CuttableBus {
    fn claim(
        &self,
        user: i32,
        session: SessionRef,
        order: ClaimOrder,
        policy: LoginPolicy,
    ) -> Result<Claim, BusError> {
        self.inner.claim(user, session, order, policy)
    }

    fn claimed_since(&self, user: i32, waited: Duration) -> Result<bool, BusError> {
        self.inner.claimed_since(user, waited)
    }

    fn release(&self, user: i32, session: SessionRef) -> Result<bool, BusError> {
        self.inner.release(user, session)
    }

    fn locate(&self, users: &[i32]) -> Result<Vec<Option<SessionRef>>, BusError> {
        self.inner.locate(users)
    }

    fn renew_lease(&self, proxy: ProxyId, time_to_live: Duration) -> Result<Lease, BusError> {
        self.inner.renew_lease(proxy, time_to_live)
    }

    fn restore(&self, proxy: ProxyId, sessions: &[HeldSession]) -> Result<Restored, BusError> {
        if self.refuses.load(Ordering::SeqCst) {
            let reason = "as the test wants it".to_owned();
            return Err(BusError::Unavailable { reason });
        }
        let restored = self.inner.restore(proxy, sessions);
        self.restores.fetch_add(1, Ordering::SeqCst);
        restored
    }

    fn retain(
        &self,
        proxy: ProxyId,
        is_held: &dyn Fn(i32, u64) -> bool,
    ) -> Result<usize, BusError> {
        self.inner.retain(proxy, is_held)
    }

    fn end_lease(&self, proxy: ProxyId) -> Result<(), BusError> {
        self.inner.end_lease(proxy)
    }

    fn publish(&self, messages: &[(ProxyId, Bytes)]) -> Result<(), BusError> {
        self.inner.publish(messages)
    }

    fn subscribe(&self, proxy: ProxyId, on_event: OnEvent) -> Subscription {
        let on_event = Arc::new(Mutex::new(on_event));
        self.subscribers.lock().push(Arc::clone(&on_event));
        let is_cut = Arc::clone(&self.is_cut);
        self.inner.subscribe(
            proxy,
            Box::new(move |event| {
                if !is_cut.load(Ordering::SeqCst) {
                    (on_event.lock())(event);
                }
            }),
        )
    }

    fn spend(&self, budgets: &[Budget]) -> Result<Spending, BusError> {
        self.inner.spend(budgets)
    }

    fn refund(&self, budgets: &[Budget]) -> Result<(), BusError> {
        self.inner.refund(budgets)
    }

    fn remember(&self, fact: &str, life: Duration) -> Result<(), BusError> {
        self.inner.remember(fact, life)
    }

    fn remembers(&self, fact: &str) -> Result<bool, BusError> {
        self.inner.remembers(fact)
    }
}
