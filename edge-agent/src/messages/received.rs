//! How many messages came from whom, counted since the daemon started. Each module of the deployment has a count of its own; leaf
//! devices have one together, and so have local users, because there may be as many of them as somebody adds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use schemas::names::{DeviceId, Identity, ModuleId};

/// The counts. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Received {
    leaf_devices: Arc<AtomicU64>,
    local_users: Arc<AtomicU64>,
    modules: BTreeMap<ModuleId, Arc<AtomicU64>>,
}

impl Received {
    /// These counts for a deployment with `modules`: those that stay go on counting.
    pub fn with_modules<'a>(&self, modules: impl Iterator<Item = &'a ModuleId>) -> Self {
        let count =
            |module: &ModuleId| (module.clone(), self.modules.get(module).cloned().unwrap_or_default());
        Self { modules: modules.map(count).collect(), ..self.clone() }
    }

    pub(crate) fn count(&self, from: &Identity, gateway: &DeviceId) {
        let counter = match &from.module {
            Some(module) if from.device == *gateway => self.modules.get(module),
            _ if from.is_user() => Some(&self.local_users),
            _ => Some(&self.leaf_devices),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn of_leaf_devices(&self) -> u64 {
        self.leaf_devices.load(Ordering::Relaxed)
    }

    pub fn of_local_users(&self) -> u64 {
        self.local_users.load(Ordering::Relaxed)
    }

    pub fn of_modules(&self) -> impl Iterator<Item = (&ModuleId, u64)> {
        self.modules.iter().map(|(module, count)| (module, count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_devices_and_users_send_only_modules_of_the_deployment_have_counts_of_their_own() {
        let gateway: DeviceId = "gw".parse().unwrap();
        let modules: Vec<ModuleId> = ["filter", "sensor"].map(|name| name.parse().unwrap()).into();
        let received = Received::default().with_modules(modules.iter());
        for number in 0..1_000 {
            received.count(&format!("press-{number}").parse().unwrap(), &gateway);
            received.count(&format!("press-{number}/filter").parse().unwrap(), &gateway);
            received.count(&format!("gw/m{number}").parse().unwrap(), &gateway);
            let user = "plc".parse().unwrap();
            received.count(&Identity::user(&user, &format!("c{number}")).unwrap(), &gateway);
        }
        received.count(&"gw/filter".parse().unwrap(), &gateway);
        assert_eq!((received.of_leaf_devices(), received.of_local_users()), (2_000, 1_000));
        let count = |received: &Received| received.of_modules().map(|(_, count)| count).collect::<Vec<_>>();
        assert_eq!(count(&received), [1, 0]);
        let next = received.with_modules(modules[..1].iter());
        next.count(&"gw/filter".parse().unwrap(), &gateway);
        assert_eq!((count(&next), next.of_leaf_devices()), (vec![2], 2_000));
    }
}
