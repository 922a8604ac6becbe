//! Where carts are kept: in Redis, or in memory when there is none. Both obey the same limits.

mod memory;
mod redis;

use std::collections::BTreeMap;
use std::fmt;

pub use self::memory::MemoryCarts;
pub use self::redis::RedisCarts;

/// Bounds of what a caller can make us keep. An order of the shop never comes near them.
pub const PRODUCTS_PER_CART_MAX: usize = 100;
pub const QUANTITY_MAX: i32 = 10_000;
const ID_BYTES_MAX: usize = 128;

/// A user's or a product's id: not empty, printable ASCII, short. It becomes part of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

impl Id {
    /// `what` names the field in the refusal.
    pub fn parse(what: &str, text: String) -> Result<Self, String> {
        if text.is_empty() || text.len() > ID_BYTES_MAX {
            return Err(format!("{what} must have 1 to {ID_BYTES_MAX} bytes"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{what} must be printable ASCII without spaces"));
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How many to add: at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity(i32);

impl Quantity {
    pub fn parse(number: i32) -> Result<Self, String> {
        match (1..=QUANTITY_MAX).contains(&number) {
            true => Ok(Self(number)),
            false => Err(format!(
                "quantity must be 1 to {QUANTITY_MAX}, not {number}"
            )),
        }
    }
}

/// Product → quantity.
pub type Lines = BTreeMap<String, i32>;

#[derive(Debug)]
pub enum StoreError {
    /// This cart has as many products, or as many of one, as it may.
    CartFull,
    /// The store cannot take more work now.
    Busy(String),
    /// Nothing was heard from the store: the call may or may not have taken effect.
    Unreachable(String),
    /// The store answered with an error.
    Failed(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CartFull => write!(
                f,
                "the cart is full: at most {PRODUCTS_PER_CART_MAX} products, {QUANTITY_MAX} of each"
            ),
            Self::Busy(why) | Self::Unreachable(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

#[derive(Debug)]
pub enum Store {
    Memory(MemoryCarts),
    Redis(RedisCarts),
}

impl Store {
    /// Not idempotent: adds to what is there.
    pub async fn add(&self, user: &Id, product: &Id, quantity: Quantity) -> Result<(), StoreError> {
        match self {
            Self::Memory(carts) => carts.add(user, product, quantity),
            Self::Redis(carts) => carts.add(user, product, quantity).await,
        }
    }

    pub async fn lines(&self, user: &Id) -> Result<Lines, StoreError> {
        match self {
            Self::Memory(carts) => Ok(carts.lines(user)),
            Self::Redis(carts) => carts.lines(user).await,
        }
    }

    pub async fn empty(&self, user: &Id) -> Result<(), StoreError> {
        match self {
            Self::Memory(carts) => carts.empty(user),
            Self::Redis(carts) => carts.empty(user).await?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_be_mistaken_in_a_key_or_a_log_is_refused() {
        for text in ["", "two words", "line\nbreak", "naïve", &"x".repeat(129)] {
            Id::parse("user_id", text.to_owned()).expect_err(text);
        }
        Id::parse("user_id", "3f2a-77".to_owned()).expect("an ordinary id");
    }

    #[test]
    fn a_quantity_is_at_least_one() {
        for number in [i32::MIN, -1, 0, QUANTITY_MAX + 1, i32::MAX] {
            Quantity::parse(number).expect_err("out of range");
        }
        Quantity::parse(1).expect("one is a quantity");
    }
}
