//! Carts in memory, gone when the process ends.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

use super::{Id, Lines, PRODUCTS_PER_CART_MAX, QUANTITY_MAX, Quantity, StoreError};

/// A visitor more, and the cart that nobody has touched for longest is given up: most were left behind.
const CARTS_MAX: usize = 20_000;

#[derive(Debug, Default)]
pub struct MemoryCarts {
    carts: Mutex<Carts>,
}

impl MemoryCarts {
    pub fn add(&self, user: &Id, product: &Id, quantity: Quantity) -> Result<(), StoreError> {
        let mut carts = self.carts();
        let lines = carts.touch(user);
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
        let mut carts = self.carts();
        match carts.by_user.contains_key(user) {
            true => carts.touch(user).clone(),
            false => Lines::default(),
        }
    }

    pub fn empty(&self, user: &Id) {
        self.carts().remove(user);
    }

    fn carts(&self) -> MutexGuard<'_, Carts> {
        self.carts
            .lock()
            .expect("no code panics while it holds the lock")
    }
}

#[derive(Debug, Default)]
struct Carts {
    by_user: HashMap<Id, Cart>,
    /// Whose cart was touched when; the first is the longest ago.
    by_touch: BTreeMap<u64, Id>,
    /// So far: a clock.
    touches: u64,
}

#[derive(Debug, Default)]
struct Cart {
    lines: Lines,
    touched: u64,
}

impl Carts {
    /// What is in a user's cart, which there is from now on.
    fn touch(&mut self, user: &Id) -> &mut Lines {
        if self.by_user.len() >= CARTS_MAX && !self.by_user.contains_key(user) {
            self.give_one_up();
        }
        self.touches += 1;
        let cart = self.by_user.entry(user.clone()).or_default();
        self.by_touch.remove(&cart.touched);
        self.by_touch.insert(self.touches, user.clone());
        cart.touched = self.touches;
        &mut cart.lines
    }

    fn give_one_up(&mut self) {
        if let Some((_, user)) = self.by_touch.pop_first() {
            self.by_user.remove(&user);
        }
    }

    fn remove(&mut self, user: &Id) {
        if let Some(cart) = self.by_user.remove(user) {
            self.by_touch.remove(&cart.touched);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> Id {
        Id::parse("user_id", format!("u{number}")).expect("an ordinary id")
    }

    #[test]
    fn a_new_visitor_has_the_room_of_the_cart_that_nobody_touched_for_longest() {
        let (carts, mug) = (MemoryCarts::default(), id(0));
        let one = Quantity::parse(1).expect("a quantity");
        for user in 0..CARTS_MAX {
            carts.add(&id(user), &mug, one).expect("there is room");
        }
        carts.lines(&id(0));
        carts.add(&id(1), &mug, one).expect("it is there");
        carts.empty(&id(2));
        for user in CARTS_MAX..CARTS_MAX + 2 {
            carts.add(&id(user), &mug, one).expect("room is made");
        }
        let is_kept = |user: usize| !carts.lines(&id(user)).is_empty();
        let kept = [0, 1, 2, 3, 4, CARTS_MAX, CARTS_MAX + 1].map(is_kept);
        assert_eq!(kept, [true, true, false, false, true, true, true]);
    }
}
