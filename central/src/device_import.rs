//! Files of devices, as IoT Central has them: what a file would do, doing it step by step, and writing one.
//!
//! Each line stands for itself. A step of 100 lines is one commit with what became of each of them, so that after a kill the operation
//! says exactly how far it came.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use central_core::devices::csv::{self, CsvField};
use central_core::devices::import::{BYTE_ORDER_MARK, COLUMNS, DeviceFile, Line, WrongLine};
use edge_core::access::thumbprint::Thumbprint;
use edge_core::error_chain::chain;
use edge_hub::tasks;
use rusqlite::Connection;
use schemas::names::DeviceId;

use crate::clock::now_ms;
use crate::error::ServiceError;
use crate::new_device::{new_device, new_key};
use crate::registry::attest::is_key;
use crate::services::Services;
use crate::store::StoreError;
use crate::store::devices::{self, Device, Keys, X509};
use crate::store::operations::{self, OperationFault};
use crate::types::single_line::{DisplayName, TemplateId};

/// What the operation is called.
pub const KIND: &str = "importDevices";
/// Lines of one commit. Telemetry is committed between two of them.
const STEP: usize = 100;
/// No operation runs.
const NONE: i64 = 0;

/// The import that runs; there is one at a time.
#[derive(Debug, Default)]
pub struct RunningImport(AtomicI64);

impl RunningImport {
    pub fn is(&self, operation: i64) -> bool {
        self.0.load(Ordering::Acquire) == operation
    }
}

/// The devices of a file, as they would be stored.
pub struct Import {
    lines: Vec<Result<(usize, Device), OperationFault>>,
}

/// Reads each line of a file on its own, without the registry.
pub fn prepare(file: DeviceFile, template: Option<&TemplateId>) -> Import {
    let lines = file.lines.into_iter().map(|line| {
        let line = line.map_err(fault)?;
        let number = line.line;
        device(line, template).map(|device| (number, device)).map_err(fault)
    });
    Import { lines: lines.collect() }
}

fn fault(of: WrongLine) -> OperationFault {
    OperationFault { line: of.line as u64, device: of.id, why: of.why }
}

fn device(line: Line, template: Option<&TemplateId>) -> Result<Device, WrongLine> {
    let wrong = |why: String| WrongLine { line: line.line, id: Some(line.id.clone()), why };
    let id: DeviceId = line.id.parse().map_err(|why| wrong(format!("{}: {}", COLUMNS[0], chain(&why))))?;
    let mut device = new_device(id);
    if let Some(name) = &line.name {
        let name = DisplayName::try_from(name.clone());
        device.display_name = name.map_err(|why| wrong(format!("{}: {why}", COLUMNS[1])))?.into();
    }
    device.template = template.map(|template| template.to_string());
    for (column, key) in COLUMNS[2..4].iter().zip(&line.keys) {
        if key.as_ref().is_some_and(|key| !is_key(key)) {
            return Err(wrong(format!("{column}: it must be base64 of 16 to 64 bytes")));
        }
    }
    if let [Some(primary), secondary] = &line.keys {
        let secondary = secondary.clone().unwrap_or_else(new_key);
        device.keys = Some(Keys { primary: primary.clone(), secondary });
    }
    let mut thumbprints = [None, None];
    for ((column, text), thumbprint) in COLUMNS[4..].iter().zip(&line.thumbprints).zip(&mut thumbprints) {
        let Some(text) = text else { continue };
        let read: Thumbprint = text.parse().map_err(|why| wrong(format!("{column}: {}", chain(&why))))?;
        *thumbprint = Some(read.to_string());
    }
    if let [Some(primary), secondary] = thumbprints {
        device.keys = None;
        device.x509 = Some(X509 { primary: Some(primary), secondary, ..X509::default() });
    }
    Ok(device)
}

impl Import {
    pub fn count(&self) -> usize {
        self.lines.len()
    }

    /// Every line that cannot be done, those whose device is registered already included.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn faults(&self, c: &Connection) -> Result<Vec<OperationFault>, StoreError> {
        let mut faults = Vec::new();
        for line in &self.lines {
            match line {
                Err(fault) => faults.push(fault.clone()),
                Ok((line, device)) => faults.extend(taken(c, *line, device)?),
            }
        }
        Ok(faults)
    }
}

/// Why a device cannot be added.
fn taken(c: &Connection, line: usize, device: &Device) -> Result<Option<OperationFault>, StoreError> {
    let existing = devices::get(c, &device.id)?;
    let why = existing.map(|existing| match existing.gateway.filter(|_| existing.is_claim) {
        Some(gateway) => {
            format!("gateway `{gateway}` has brought a device of this id; open it and take it over")
        }
        None => format!("device `{}` is registered already", device.id),
    });
    Ok(why.map(|why| OperationFault { line: line as u64, device: Some(device.id.to_string()), why }))
}

/// Adds the devices of some lines, and notes it.
fn step(
    c: &Connection,
    operation: i64,
    lines: Vec<Result<(usize, Device), OperationFault>>,
) -> Result<(), StoreError> {
    let tried = lines.len();
    let mut faults = Vec::new();
    for line in lines {
        match line {
            Err(fault) => faults.push(fault),
            Ok((line, device)) => match taken(c, line, &device)? {
                Some(fault) => faults.push(fault),
                None => {
                    devices::put(c, &device)?;
                }
            },
        }
    }
    operations::advance(c, operation, tried, &faults)?;
    Ok(())
}

/// Begins to add the devices of a file; gives the id of the operation, which goes on by itself.
///
/// # Errors
/// [`ServiceError::Conflict`] while another import runs.
pub async fn begin(
    services: &Services,
    running: &Arc<RunningImport>,
    import: Import,
    title: String,
    who: String,
) -> Result<i64, ServiceError> {
    // Taken before it has an id, so that two at once are not both the first.
    let is_first = running.0.compare_exchange(NONE, -1, Ordering::AcqRel, Ordering::Acquire).is_ok();
    if !is_first {
        return Err(ServiceError::Conflict(
            "another import runs; /api/ext/operations tells how far it is. Begin this one when it has ended"
                .into(),
        ));
    }
    let free = Freed(running.clone());
    let total = import.count();
    let work =
        move |c: &Connection| Ok::<_, StoreError>(operations::begin(c, KIND, &title, &who, total, now_ms())?);
    let operation = services.store.submit(work).await?;
    running.0.store(operation, Ordering::Release);
    let services = services.clone();
    tasks::spawn("import of devices", async move {
        let _free = free;
        if let Err(error) = run(&services, operation, import).await {
            tracing::error!(operation, error = %chain(&error), "an import of devices ended early");
        }
    });
    Ok(operation)
}

/// Lets the next import begin, however this one ends.
struct Freed(Arc<RunningImport>);

impl Drop for Freed {
    fn drop(&mut self) {
        self.0.0.store(NONE, Ordering::Release);
    }
}

async fn run(services: &Services, operation: i64, import: Import) -> Result<(), StoreError> {
    let mut lines = import.lines.into_iter();
    loop {
        let next: Vec<_> = lines.by_ref().take(STEP).collect();
        if next.is_empty() {
            break;
        }
        if services.stop.is_cancelled() {
            tracing::warn!(
                operation,
                "an import of devices was interrupted; begin it again for the lines that are left"
            );
            return Ok(());
        }
        services.store.submit(move |c| step(c, operation, next)).await?;
    }
    services.store.submit(move |c| Ok::<_, StoreError>(operations::end(c, operation, now_ms())?)).await?;
    tracing::info!(operation, "an import of devices ended");
    Ok(())
}

/// Part of an export.
pub struct Exported {
    pub csv: String,
    pub devices: usize,
    /// Behind which id it goes on.
    pub next: Option<String>,
}

fn key(of: Option<&String>) -> CsvField<'_> {
    CsvField::Key(of.map_or("", String::as_str))
}

/// Writes devices as IoT Central's file, by id behind `after`. The first part has the header.
///
/// # Errors
/// The database cannot be read.
pub fn export(
    c: &Connection,
    after: &str,
    template: Option<&str>,
    with_keys: bool,
    limit: u32,
) -> rusqlite::Result<Exported> {
    let mut out = String::new();
    let columns = if with_keys { &COLUMNS[..] } else { &COLUMNS[..2] };
    if after.is_empty() {
        out.push(BYTE_ORDER_MARK);
        let header: Vec<_> = columns.iter().map(|column| CsvField::Text(column)).collect();
        csv::write(&mut out, &header);
    }
    let found = devices::list(c, after, limit)?;
    let next = (found.len() == limit as usize).then(|| found.last().map(|device| device.id.to_string()));
    let mut count = 0;
    for device in &found {
        if template.is_some_and(|template| device.template.as_deref().unwrap_or_default() != template) {
            continue;
        }
        let (keys, x509) = (device.keys.as_ref(), device.x509.as_ref());
        let fields = [
            CsvField::Text(device.id.as_str()),
            CsvField::Text(&device.display_name),
            key(keys.filter(|_| x509.is_none()).map(|keys| &keys.primary)),
            key(keys.filter(|_| x509.is_none()).map(|keys| &keys.secondary)),
            key(x509.and_then(|x509| x509.primary.as_ref())),
            key(x509.and_then(|x509| x509.secondary.as_ref())),
        ];
        csv::write(&mut out, &fields[..columns.len()]);
        count += 1;
    }
    Ok(Exported { csv: out, devices: count, next: next.flatten() })
}
