//! Devices that enrol themselves, as with Azure's Device Provisioning Service.

mod evidence;
pub(crate) mod placement;
pub(crate) mod proving;
mod registration;
pub mod service;
#[cfg(test)]
mod tests;
