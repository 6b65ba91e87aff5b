//! Volumes of the fake engine, and its disk.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use crate::{
    error::{Error, ErrorKind, Result},
    runtime::{DiskSpace, DiskUse, VolumeSpec, VolumeState},
};

/// The volumes there are, by name, with their labels.
#[derive(Default)]
pub(super) struct Volumes(Mutex<BTreeMap<String, BTreeMap<String, String>>>);

impl Volumes {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, String>>> {
        self.0.lock().unwrap()
    }

    pub(super) fn create(&self, volume: &VolumeSpec) -> Result<()> {
        let mut all = self.all();
        if all.contains_key(&volume.name) {
            return Err(Error::new(ErrorKind::AlreadyExists, "there is one"));
        }
        all.insert(volume.name.clone(), volume.labels.clone());
        Ok(())
    }

    pub(super) fn list(&self, labels: &BTreeMap<String, String>) -> Vec<VolumeState> {
        let wanted = |all: &BTreeMap<String, String>| labels.iter().all(|(name, value)| all.get(name) == Some(value));
        let state = |(name, labels): (&String, &BTreeMap<String, String>)| VolumeState {
            name: name.clone(),
            labels: labels.clone(),
            created: None,
        };
        self.all().iter().filter(|(_, labels)| wanted(labels)).map(state).collect()
    }

    pub(super) fn remove(&self, name: &str, in_use: bool) -> Result<()> {
        if in_use {
            return Err(Error::new(ErrorKind::Conflict, "it is in use"));
        }
        self.all().remove(name);
        Ok(())
    }
}

/// What lies on its disk.
#[derive(Default)]
pub(crate) struct Disk {
    /// What containers have there, by their names.
    pub(crate) uses: Mutex<BTreeMap<String, DiskUse>>,
    /// What is left; absent: it isn't seen.
    pub(crate) left: Mutex<Option<DiskSpace>>,
}

impl Disk {
    pub(super) fn space(&self) -> Result<DiskSpace> {
        let unseen = || Error::new(ErrorKind::Unsupported, "the fake engine has no disk");
        self.left.lock().unwrap().ok_or_else(unseen)
    }
}
