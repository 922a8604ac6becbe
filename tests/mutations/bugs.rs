//! The lists, each by the noun of what it breaks.

pub(crate) mod around;
pub(crate) mod layers;
pub(crate) mod policies;

macro_rules! bugs {
    ($($file:literal { $($what:literal: $code:literal => $planted:literal, $caught_by:literal;)+ })+) => {
        &[$($(Bug { what: $what, file: $file, code: $code, planted: $planted, caught_by: $caught_by },)+)+]
    };
}

pub(crate) use bugs;
