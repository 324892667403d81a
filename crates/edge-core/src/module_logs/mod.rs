//! Logs of modules as IoT Edge's `GetModuleLogs` and `UploadModuleLogs` give them: which part is wanted ([`request`]), lines out of
//! what the engine sends ([`lines`]), and one line as text or JSON ([`record`]). [`one_module`] is what central requests of it.

pub mod lines;
pub mod one_module;
pub mod record;
pub mod request;
