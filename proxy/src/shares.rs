//! Places of which each address has its share: whoever takes all that it can get leaves the others theirs.
//!
//! Who is above the share of its address waits for a place of that address, behind nobody else. An address is known for
//! as long as somebody there has a place or waits for one, so there are no more of them than connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub struct Shares {
    everybodys: Arc<Semaphore>,
    each: usize,
    known: Mutex<HashMap<IpAddr, Known>>,
}

struct Known {
    users: usize,
    places: Arc<Semaphore>,
}

/// Given back when it is dropped.
pub struct Place {
    _own: OwnedSemaphorePermit,
    _everybodys: OwnedSemaphorePermit,
    _user: User,
}

/// Somebody who has a place or waits for one.
struct User {
    shares: Arc<Shares>,
    address: IpAddr,
    places: Arc<Semaphore>,
}

impl Shares {
    /// So many places, and so many of them for one address.
    pub fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self {
            everybodys: Arc::new(Semaphore::new(all)),
            each,
            known: Mutex::default(),
        })
    }

    /// A place, if there is one now.
    pub fn try_take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let user = self.user(address);
        Some(Place {
            _own: user.places.clone().try_acquire_owned().ok()?,
            _everybodys: self.everybodys.clone().try_acquire_owned().ok()?,
            _user: user,
        })
    }

    /// Waits for a place of its address, and only then among everybody.
    pub async fn take(self: &Arc<Self>, address: IpAddr) -> Place {
        let user = self.user(address);
        let own = user.places.clone().acquire_owned().await;
        let everybodys = self.everybodys.clone().acquire_owned().await;
        Place {
            _own: own.expect("it is never closed"),
            _everybodys: everybodys.expect("it is never closed"),
            _user: user,
        }
    }

    fn user(self: &Arc<Self>, address: IpAddr) -> User {
        // The same peer, whichever family the listener is of.
        let address = address.to_canonical();
        let mut known = self.known.lock().expect("no panic while locked");
        let of_address = known.entry(address).or_insert_with(|| Known {
            users: 0,
            places: Arc::new(Semaphore::new(self.each)),
        });
        of_address.users += 1;
        User {
            shares: self.clone(),
            address,
            places: of_address.places.clone(),
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut known = self.shares.known.lock().expect("no panic while locked");
        if let Some(of_address) = known.get_mut(&self.address) {
            of_address.users -= 1;
            if of_address.users == 0 {
                known.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn who_takes_all_that_it_can_get_leaves_the_others_their_places() {
        let shares = Shares::new(10, 4);
        let greedy: Vec<_> = (0..20).map(|_| shares.try_take(address(1))).collect();
        assert_eq!(greedy.iter().flatten().count(), 4);
        let other = shares.try_take(address(2));
        assert!(other.is_some());
        let mapped = "::ffff:10.0.0.1".parse().expect("an address");
        assert!(shares.try_take(mapped).is_none(), "the same, written anew");
    }

    #[test]
    fn all_together_have_no_more_than_there_is() {
        let shares = Shares::new(10, 4);
        let places: Vec<_> = (0..40).map(|n| shares.try_take(address(n / 4))).collect();
        assert_eq!(places.iter().flatten().count(), 10);
    }

    #[test]
    fn who_waits_for_its_own_address_keeps_nobody_else_waiting() {
        let shares = Shares::new(10, 4);
        let places: Vec<_> = (0..4).map(|_| shares.try_take(address(1))).collect();
        let mut waiting: Vec<_> = (0..100)
            .map(|_| Box::pin(shares.take(address(1))))
            .collect();
        for waits in &mut waiting {
            assert!(waits.now_or_never().is_none());
        }
        assert!(shares.take(address(2)).now_or_never().is_some());
        drop(places);
        assert!((&mut waiting[0]).now_or_never().is_some(), "first come");
    }

    #[test]
    fn an_address_that_has_left_is_forgotten() {
        let shares = Shares::new(10, 1);
        let place = shares.try_take(address(1));
        let refused = shares.try_take(address(1));
        let mut given_up = Box::pin(shares.take(address(1)));
        assert!((&mut given_up).now_or_never().is_none());
        assert_eq!(shares.known.lock().expect("no panic").len(), 1);
        drop((place, refused, given_up));
        assert!(shares.known.lock().expect("no panic").is_empty());
        assert_eq!(shares.everybodys.available_permits(), 10);
    }
}
