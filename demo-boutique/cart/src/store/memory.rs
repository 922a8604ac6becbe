//! Carts in memory, gone when the process ends.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use super::{Id, Lines, PRODUCTS_PER_CART_MAX, QUANTITY_MAX, Quantity, StoreError};

const CARTS_MAX: usize = 20_000;

#[derive(Debug, Default)]
pub struct MemoryCarts {
    carts: Mutex<HashMap<Id, Lines>>,
}

impl MemoryCarts {
    pub fn add(&self, user: &Id, product: &Id, quantity: Quantity) -> Result<(), StoreError> {
        let mut carts = self.carts();
        if carts.len() >= CARTS_MAX && !carts.contains_key(user) {
            return Err(StoreError::Busy(format!("{CARTS_MAX} carts are in memory")));
        }
        let lines = carts.entry(user.clone()).or_default();
        let is_new = !lines.contains_key(product.as_str());
        if is_new && lines.len() >= PRODUCTS_PER_CART_MAX {
            return Err(StoreError::CartFull);
        }
        let have = lines.entry(product.as_str().to_owned()).or_default();
        // Neither side exceeds QUANTITY_MAX, so the sum fits.
        if *have + quantity.0 > QUANTITY_MAX {
            return Err(StoreError::CartFull);
        }
        *have += quantity.0;
        Ok(())
    }

    pub fn lines(&self, user: &Id) -> Lines {
        self.carts().get(user).cloned().unwrap_or_default()
    }

    pub fn empty(&self, user: &Id) {
        self.carts().remove(user);
    }

    fn carts(&self) -> MutexGuard<'_, HashMap<Id, Lines>> {
        self.carts
            .lock()
            .expect("no code panics while it holds the lock")
    }
}
