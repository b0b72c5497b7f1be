//! A store whose changes are made on [`Terms`].

use super::{backend::Backend, memberships::Memberships, session::Session, users};
use crate::{
    error::{DbError, StoreError},
    terms::Terms,
};

/// The store, but what a login does looks first whether the user has a later one, and what changes something keeps its
/// deadline: at its beginning, and right before it commits.
pub(super) struct OnTerms<'a, B> {
    pub(super) store: &'a B,
    pub(super) terms: Terms,
}

impl<B> OnTerms<'_, B> {
    fn check_login(&self, s: &mut dyn Session) -> Result<(), DbError> {
        match self.terms.login {
            Some(login) if !users::find_displaced(s, &[login])?.is_empty() => {
                Err(DbError::Displaced)
            }
            _ => Ok(()),
        }
    }

    fn check_in_time(&self) -> Result<(), DbError> {
        match self.terms.is_late() {
            true => Err(DbError::TooLate),
            false => Ok(()),
        }
    }
}

impl<B: Backend<Plain = B>> Backend for OnTerms<'_, B> {
    type Plain = B;

    fn plain(&self) -> &B {
        self.store
    }

    fn bring_up_to_date(&self) -> Result<(), StoreError> {
        self.store.bring_up_to_date()
    }

    fn memberships(&self) -> &Memberships {
        self.store.memberships()
    }

    fn is_away(&self) -> bool {
        Backend::is_away(self.store)
    }

    fn on_away(&self, act: Box<dyn Fn() + Send + Sync>) {
        Backend::on_away(self.store, act);
    }

    fn read<T>(
        &self,
        mut work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        self.store.read(|s| {
            self.check_login(s)?;
            work(s)
        })
    }

    fn snapshot<T>(
        &self,
        mut work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        self.store.snapshot(|s| {
            self.check_login(s)?;
            work(s)
        })
    }

    fn write<T>(
        &self,
        mut work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        self.store.write(|s| {
            self.check_in_time()?;
            self.check_login(s)?;
            let done = work(s)?;
            self.check_in_time()?;
            Ok(done)
        })
    }
}
