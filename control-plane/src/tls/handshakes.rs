//! Who may be in the middle of a TLS handshake. A peer that says nothing keeps a place for as long as it is waited for,
//! so each address has places of its own, and whoever waits for one waits behind its own address only.
//!
//! ```text
//!   accepted ─▶ not too many of this address ─▶ a place of its address ─▶ a place of all ─▶ handshake
//!                 else: closed                    16                        256               2 to 10 s
//! ```

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const PLACES: usize = 256;
const PLACES_OF_ONE: usize = 16;
/// Of one address, those that wait for a place included: a thousand sidecars on one host may start at once.
const ARRIVED_OF_ONE_MAX: usize = 2048;
/// For a handshake that gets on.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same when others wait for the place.
const PATIENCE_WHEN_SHORT: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A handle; all clones are the same places.
#[derive(Clone)]
pub(super) struct Handshakes(Arc<Inner>);

struct Inner {
    places: Arc<Semaphore>,
    /// Only addresses of which somebody is here.
    addresses: Mutex<HashMap<IpAddr, Address>>,
}

struct Address {
    arrived: usize,
    places: Arc<Semaphore>,
}

/// A connection whose handshake is not over.
pub(super) struct Arrival {
    handshakes: Handshakes,
    address: IpAddr,
    places: Arc<Semaphore>,
}

/// The handshake may go on while it is held.
pub(super) struct Place {
    _of_address: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self(Arc::new(Inner {
            places: Arc::new(Semaphore::new(PLACES)),
            addresses: Mutex::default(),
        }))
    }
}

impl Handshakes {
    /// `None`: too many of this address are here.
    pub(super) fn arrive(&self, address: IpAddr) -> Option<Arrival> {
        let mut addresses = self.addresses();
        let found = addresses.entry(address).or_insert_with(|| Address {
            arrived: 0,
            places: Arc::new(Semaphore::new(PLACES_OF_ONE)),
        });
        if found.arrived >= ARRIVED_OF_ONE_MAX {
            return None;
        }
        found.arrived += 1;
        let places = found.places.clone();
        drop(addresses);
        Some(Arrival {
            handshakes: self.clone(),
            address,
            places,
        })
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, Address>> {
        let addresses = self.0.addresses.lock();
        addresses.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrival {
    /// `None`: none was free for too long.
    pub(super) async fn place(&self) -> Option<Place> {
        let wait = async {
            let _of_address = self.places.clone().acquire_owned().await.ok()?;
            let _of_all = self
                .handshakes
                .0
                .places
                .clone()
                .acquire_owned()
                .await
                .ok()?;
            Some(Place {
                _of_address,
                _of_all,
            })
        };
        tokio::time::timeout(PATIENCE, wait).await.ok().flatten()
    }

    /// Returns when the handshake has had its time.
    pub(super) async fn too_long(&self) {
        let begun = tokio::time::Instant::now();
        tokio::time::sleep(PATIENCE_WHEN_SHORT).await;
        let is_short = || {
            let all = &self.handshakes.0.places;
            self.places.available_permits() == 0 || all.available_permits() < PLACES / 8
        };
        while !is_short() && begun.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut addresses = self.handshakes.addresses();
        if let Some(found) = addresses.get_mut(&self.address) {
            found.arrived -= 1;
            if found.arrived == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

    #[tokio::test(start_paused = true)]
    async fn a_silent_handshake_has_ten_seconds_and_two_when_others_wait() {
        let handshakes = Handshakes::default();
        let started = tokio::time::Instant::now();
        let alone = handshakes.arrive(SILENT).expect("room");
        let place = alone.place().await.expect("a place");
        alone.too_long().await;
        assert_eq!(started.elapsed(), PATIENCE);
        drop(place);

        let started = tokio::time::Instant::now();
        let mut places = Vec::new();
        for _ in 0..PLACES_OF_ONE {
            places.push(alone.place().await.expect("a place"));
        }
        alone.too_long().await;
        assert_eq!(started.elapsed(), PATIENCE_WHEN_SHORT);
    }

    #[tokio::test(start_paused = true)]
    async fn of_one_address_so_many_are_here_and_it_is_forgotten_with_the_last() {
        let handshakes = Handshakes::default();
        let mut here = Vec::new();
        for _ in 0..ARRIVED_OF_ONE_MAX {
            here.push(handshakes.arrive(SILENT).expect("room"));
        }
        assert!(handshakes.arrive(SILENT).is_none());
        let other = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        assert!(handshakes.arrive(other).is_some(), "another's is its own");
        here.clear();
        assert!(handshakes.addresses().is_empty());
    }
}
