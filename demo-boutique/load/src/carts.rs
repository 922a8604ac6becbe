//! Who has something in the cart, as far as this run can know: only they can order.
//!
//! ```text
//!            filled                      order()
//!   empty ───────────▶ full ───────────────────────▶ ordering
//!     ▲                  ▲                              │
//!     │                  └──── turned away unheard ─────┤
//!     └───────────────── anything else ─────────────────┘
//! ```
//!
//! Where it cannot be known, a cart counts as empty: that costs one more visit to it, and a wrong guess would be an order of
//! nothing. So nothing is learnt from a filling that was under way when an order of the same visitor began or ended.

/// The visitors of a run, and not more.
#[derive(Debug)]
pub(crate) struct Carts(Vec<Cart>);

#[derive(Clone, Debug, Default)]
struct Cart {
    full: bool,
    /// Grows when an order begins and when it ends.
    turn: u32,
}

/// Somebody puts something in.
#[derive(Debug)]
pub(crate) struct Filling {
    pub(crate) visitor: usize,
    turn: u32,
}

/// Somebody orders what is there.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) visitor: usize,
}

impl Carts {
    /// All empty.
    pub(crate) fn of(visitors: usize) -> Self {
        Self(vec![Cart::default(); visitors])
    }

    pub(crate) fn fill(&self, visitor: usize) -> Filling {
        let turn = self.0[visitor].turn;
        Filling { visitor, turn }
    }

    pub(crate) fn filled(&mut self, filling: &Filling) {
        let cart = &mut self.0[filling.visitor];
        cart.full |= cart.turn == filling.turn;
    }

    /// The next visitor from this one on with something in the cart. Nobody else orders the same.
    pub(crate) fn order(&mut self, from: usize) -> Option<Order> {
        let visitors = (from..self.0.len()).chain(0..from);
        let visitor = visitors.into_iter().find(|visitor| self.0[*visitor].full)?;
        let cart = &mut self.0[visitor];
        cart.full = false;
        cart.turn = cart.turn.wrapping_add(1);
        Some(Order { visitor })
    }

    /// `unheard`: the order was turned away before anybody looked at it, and the cart is as it was.
    pub(crate) fn ordered(&mut self, order: &Order, unheard: bool) {
        let cart = &mut self.0[order.visitor];
        cart.full = unheard;
        cart.turn = cart.turn.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(visitor: usize) -> Carts {
        let mut carts = Carts::of(3);
        carts.filled(&carts.fill(visitor));
        carts
    }

    #[test]
    fn only_who_has_something_in_the_cart_orders_and_only_once() {
        let mut carts = full(1);
        let order = carts.order(2).expect("somebody has");
        assert_eq!(order.visitor, 1);
        assert!(carts.order(1).is_none(), "while it is under way");
        carts.ordered(&order, false);
        assert!(carts.order(1).is_none(), "after it");
    }

    #[test]
    fn who_is_turned_away_keeps_the_cart() {
        let mut carts = full(0);
        let order = carts.order(0).expect("somebody has");
        carts.ordered(&order, true);
        assert!(carts.order(0).is_some());
    }

    #[test]
    fn what_is_put_in_beside_an_order_may_have_been_ordered_with_it() {
        let mut carts = full(0);
        let before = carts.fill(0);
        let order = carts.order(0).expect("somebody has");
        let (meanwhile, late) = (carts.fill(0), carts.fill(0));
        carts.filled(&before);
        carts.filled(&meanwhile);
        carts.ordered(&order, false);
        carts.filled(&late);
        assert!(carts.order(0).is_none());
        carts.filled(&carts.fill(0));
        assert!(carts.order(0).is_some(), "what came after it was not");
    }
}
