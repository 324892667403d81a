//! A disk in memory that knows what a power cut would leave of it, and fails when told to.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;

use crate::storage::{File, Storage};

const SECTOR: usize = 512;

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, written) => {
            bytes.resize(bytes.len().max(offset + written.len()), 0);
            bytes[*offset..offset + written.len()].copy_from_slice(written);
        }
        Change::Len(len) => bytes.resize(*len, 0),
    }
}

/// What is on the platter, what the page cache shows, and what is between the two.
#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    cached: Vec<u8>,
    pending: Vec<Change>,
    has_failed_sync: bool,
}

#[derive(Clone)]
enum Naming {
    Link(String, usize),
    Unlink(String),
}

fn rename(names: &mut BTreeMap<String, usize>, naming: &Naming) {
    match naming {
        Naming::Link(name, inode) => {
            names.retain(|_, other| other != inode);
            names.insert(name.clone(), *inode);
        }
        Naming::Unlink(name) => {
            names.remove(name);
        }
    }
}

#[derive(Clone, Default)]
struct Sim {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<Naming>,
    /// Changes and syncs until the power fails.
    steps_left: Option<u64>,
    steps: u64,
    fail_writes: u32,
    fail_syncs: u32,
    /// Syncs that go well before those.
    good_syncs: u32,
    /// Bytes of a file that cannot be read: name, from, to.
    bad_sectors: Option<(usize, u64, u64)>,
    /// `fdatasync` that says yes and does nothing: the control that shows that the tests see a missing sync.
    lies: bool,
    capacity: Option<u64>,
    /// The longest that the process may make a file.
    file_len_max: Option<u64>,
    syncs: u64,
    holds_syncs: bool,
    waiting_syncs: u32,
    writes_after_failed_sync: u32,
    panics_at_sync: bool,
    synced_by: Option<ThreadId>,
}

impl Sim {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.steps_left {
            Some(0) => return Err(io::Error::from_raw_os_error(5)),
            Some(left) => *left -= 1,
            None => {}
        }
        self.steps += 1;
        Ok(())
    }

    fn check_len(&self, len: u64) -> io::Result<()> {
        let is_too_large = self.file_len_max.is_some_and(|max| len > max);
        if is_too_large { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
    }

    /// How much of a file's growth to `len` finds space.
    fn space_for(&self, inode: usize, len: usize) -> usize {
        let has = self.inodes[inode].cached.len();
        let growth = len.saturating_sub(has);
        let free = self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.used()) as usize);
        if growth <= free { len } else { has + free }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].cached.len() as u64).sum()
    }

    fn name(&mut self, naming: Naming) {
        rename(&mut self.names, &naming);
        self.pending_names.push(naming);
    }
}

#[derive(Clone, Default)]
pub(super) struct Disk(Arc<(Mutex<Sim>, Condvar)>);

impl Disk {
    fn sim(&self) -> MutexGuard<'_, Sim> {
        self.0.0.lock().unwrap()
    }

    pub(super) fn cut_power_after(&self, steps: u64) {
        self.sim().steps_left = Some(steps);
    }

    /// Changes and syncs so far.
    pub(super) fn steps(&self) -> u64 {
        self.sim().steps
    }

    /// Reads that touch these bytes of a file fail.
    pub(super) fn break_sectors(&self, name: &str, from: u64, to: u64) {
        let mut sim = self.sim();
        sim.bad_sectors = Some((sim.names[name], from, to));
    }

    /// A disk of its own as a killed program leaves it: the page cache lives on.
    pub(super) fn after_kill(&self) -> Self {
        let mut sim = self.sim().clone();
        sim.steps_left = None;
        Self(Arc::new((Mutex::new(sim), Condvar::new())))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.sim().names.keys().cloned().collect()
    }

    pub(super) fn fail_writes(&self, count: u32) {
        self.sim().fail_writes = count;
    }

    pub(super) fn fail_syncs(&self, count: u32) {
        self.fail_syncs_after(0, count);
    }

    pub(super) fn fail_syncs_after(&self, good: u32, count: u32) {
        let mut sim = self.sim();
        (sim.good_syncs, sim.fail_syncs) = (good, count);
    }

    pub(super) fn lie(&self) {
        self.sim().lies = true;
    }

    pub(super) fn set_capacity(&self, bytes: u64) {
        self.sim().capacity = Some(bytes);
    }

    pub(super) fn limit_files(&self, bytes: u64) {
        self.sim().file_len_max = Some(bytes);
    }

    pub(super) fn used(&self) -> u64 {
        self.sim().used()
    }

    pub(super) fn syncs(&self) -> u64 {
        self.sim().syncs
    }

    pub(super) fn writes_after_failed_sync(&self) -> u32 {
        self.sim().writes_after_failed_sync
    }

    pub(super) fn panic_at_sync(&self) {
        self.sim().panics_at_sync = true;
    }

    /// The thread of the last sync.
    pub(super) fn synced_by(&self) -> Option<ThreadId> {
        self.sim().synced_by
    }

    pub(super) fn hold_syncs(&self) {
        self.sim().holds_syncs = true;
    }

    /// Blocks until a sync waits.
    pub(super) fn sync_waits(&self) {
        let sim = self.sim();
        drop(self.0.1.wait_while(sim, |sim| sim.waiting_syncs == 0).unwrap());
    }

    pub(super) fn release_syncs(&self) {
        self.sim().holds_syncs = false;
        self.0.1.notify_all();
    }

    /// Segment files, oldest first.
    pub(super) fn segments(&self) -> Vec<String> {
        self.sim().names.keys().filter(|name| name.ends_with(".segment")).cloned().collect()
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        let sim = self.sim();
        sim.inodes[sim.names[name]].cached.clone()
    }

    /// A disk of its own with one file changed.
    pub(super) fn with(&self, name: &str, bytes: Vec<u8>) -> Self {
        let mut sim = self.sim().clone();
        let inode = sim.names[name];
        sim.inodes[inode] = Inode { durable: bytes.clone(), cached: bytes, ..Inode::default() };
        Self(Arc::new((Mutex::new(sim), Condvar::new())))
    }

    /// A disk of its own as it comes back: of what was not synced, each sector is there or not, and directory changes up
    /// to somewhere, as a journal keeps them in order.
    pub(super) fn after_power_cut(&self, mut random: impl FnMut() -> u64) -> Self {
        let mut sim = self.sim().clone();
        let names = random() as usize % (sim.pending_names.len() + 1);
        for naming in &sim.pending_names[..names] {
            rename(&mut sim.durable_names, naming);
        }
        for inode in &mut sim.inodes {
            for change in std::mem::take(&mut inode.pending) {
                match change {
                    Change::Write(offset, bytes) => {
                        let mut at = 0;
                        while at < bytes.len() {
                            let end = (at + SECTOR - (offset + at) % SECTOR).min(bytes.len());
                            if !random().is_multiple_of(3) {
                                let part = Change::Write(offset + at, bytes[at..end].to_vec());
                                apply(&mut inode.durable, &part);
                            }
                            at = end;
                        }
                    }
                    len if random().is_multiple_of(2) => apply(&mut inode.durable, &len),
                    Change::Len(_) => {}
                }
            }
            inode.cached = inode.durable.clone();
        }
        let back = Sim {
            inodes: sim.inodes,
            names: sim.durable_names.clone(),
            durable_names: sim.durable_names,
            lies: sim.lies,
            ..Sim::default()
        };
        Self(Arc::new((Mutex::new(back), Condvar::new())))
    }
}

struct SimFile {
    disk: Disk,
    inode: usize,
}

impl File for SimFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let sim = self.disk.sim();
        let end = offset + into.len() as u64;
        if sim.bad_sectors.is_some_and(|(inode, from, to)| inode == self.inode && offset < to && from < end) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let rest = sim.inodes[self.inode].cached.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut sim = self.disk.sim();
        sim.step()?;
        sim.check_len(offset + bytes.len() as u64)?;
        let is_failing = sim.fail_writes > 0;
        let fits = sim.space_for(self.inode, offset as usize + bytes.len()).saturating_sub(offset as usize);
        let kept = if is_failing { bytes.len() / 2 } else { bytes.len().min(fits) };
        let is_torn = kept < bytes.len();
        sim.fail_writes -= u32::from(is_failing);
        sim.writes_after_failed_sync += u32::from(sim.inodes[self.inode].has_failed_sync);
        let change = Change::Write(offset as usize, bytes[..kept].to_vec());
        let inode = &mut sim.inodes[self.inode];
        apply(&mut inode.cached, &change);
        inode.pending.push(change);
        if is_torn { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut sim = self.disk.sim();
        sim.step()?;
        let inode = &mut sim.inodes[self.inode];
        let change = Change::Len(len as usize);
        apply(&mut inode.cached, &change);
        inode.pending.push(change);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut sim = self.disk.sim();
        sim.step()?;
        sim.check_len(len)?;
        if sim.space_for(self.inode, len as usize) < len as usize {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = &mut sim.inodes[self.inode];
        let change = Change::Len(inode.cached.len().max(len as usize));
        apply(&mut inode.cached, &change);
        inode.pending.push(change);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.sim().inodes[self.inode].cached.len() as u64)
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        Ok((0, self.inode as u64))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut sim = self.disk.sim();
        if sim.holds_syncs {
            sim.waiting_syncs += 1;
            self.disk.0.1.notify_all();
            sim = self.disk.0.1.wait_while(sim, |sim| sim.holds_syncs).unwrap();
            sim.waiting_syncs -= 1;
        }
        if std::mem::take(&mut sim.panics_at_sync) {
            drop(sim);
            panic!("a sync that panics, as told");
        }
        sim.step()?;
        sim.syncs += 1;
        sim.synced_by = Some(std::thread::current().id());
        let is_good = sim.good_syncs > 0;
        sim.good_syncs -= u32::from(is_good);
        let (lies, fails) = (sim.lies, sim.fail_syncs > 0 && !is_good);
        sim.fail_syncs -= u32::from(fails);
        let inode = &mut sim.inodes[self.inode];
        if fails {
            // As Linux does: the pages are clean now, and a second sync would report success.
            inode.pending.clear();
            inode.has_failed_sync = true;
            return Err(io::Error::from_raw_os_error(5));
        }
        if !lies {
            inode.pending.clear();
            inode.durable = inode.cached.clone();
        }
        Ok(())
    }
}

impl Storage for Disk {
    fn path(&self) -> &Path {
        Path::new("/simulated")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.sim().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut sim = self.sim();
        sim.step()?;
        sim.inodes.push(Inode::default());
        let inode = sim.inodes.len() - 1;
        sim.name(Naming::Link(name.into(), inode));
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let inode = *self.sim().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut sim = self.sim();
        sim.step()?;
        let inode = *sim.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        sim.name(Naming::Link(to.into(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut sim = self.sim();
        sim.step()?;
        sim.name(Naming::Unlink(name.into()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut sim = self.sim();
        sim.step()?;
        sim.durable_names = sim.names.clone();
        sim.pending_names.clear();
        Ok(())
    }

    fn identity(&self, name: &str) -> io::Result<Option<(u64, u64)>> {
        Ok(self.sim().names.get(name).map(|inode| (0, *inode as u64)))
    }

    fn remake(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let sim = self.sim();
        Ok(sim.capacity.map_or(u64::MAX / 2, |capacity| capacity.saturating_sub(sim.used())))
    }

    fn release(&self) {}
}
