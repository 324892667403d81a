//! Who may speak for whom, of many at once.

use rusqlite::Connection;
use schemas::generation::Generation;
use schemas::names::{DeviceId, Identity};

use crate::access::authorize::{Statement, authorize, is_current_module, own};
use crate::error::ServiceError;

/// [`authorize`] for many: the speaker's own registration is read once, however many of its modules it names.
pub(super) struct Speaker<'c> {
    c: &'c Connection,
    id: &'c DeviceId,
    statement: Statement,
    /// Whether the speaker may name modules of its own.
    may_name_modules: Option<bool>,
}

impl<'c> Speaker<'c> {
    pub(super) fn new(c: &'c Connection, id: &'c DeviceId, statement: Statement) -> Self {
        Self { c, id, statement, may_name_modules: None }
    }

    /// # Errors
    /// As [`authorize`].
    pub(super) fn authorize(
        &mut self,
        of: &Identity,
        generation: Option<Generation>,
    ) -> Result<(), ServiceError> {
        let is_plain = of.device == *self.id
            && of.module.is_some()
            && matches!(self.statement, Statement::Presence | Statement::Loss);
        if !is_plain || self.may_name_modules == Some(false) {
            return authorize(self.c, self.id, of, self.statement, generation);
        }
        if self.may_name_modules.is_none() {
            let checked = own(self.c, self.id, of.module.as_ref(), self.statement, None);
            self.may_name_modules = Some(checked.is_ok());
            checked?;
        }
        match &of.module {
            Some(module) => is_current_module(self.c, self.id, module, generation),
            None => Ok(()),
        }
    }
}
