//! One block of every layer, such as `outbound.limits`: the path of a field is the block's and its own name.

use serde::Serialize;

use super::Merge;

pub(super) struct Block<'m, 'a, T, B> {
    merge: &'m mut Merge<'a, T>,
    path: &'static str,
    of: fn(&T) -> Option<&B>,
}

impl<'a, T> Merge<'a, T> {
    pub(super) fn block<B>(
        &mut self,
        path: &'static str,
        of: fn(&T) -> Option<&B>,
    ) -> Block<'_, 'a, T, B> {
        Block {
            merge: self,
            path,
            of,
        }
    }
}

impl<T, B> Block<'_, '_, T, B> {
    /// `None`: no layer has it, and that is noted.
    pub(super) fn if_said(self) -> Option<Self> {
        let of = self.of;
        if self
            .merge
            .layers
            .iter()
            .any(|(_, layer)| of(layer).is_some())
        {
            return Some(self);
        }
        self.merge.said(self.path, |_| None::<()>);
        None
    }

    pub(super) fn field<V: Serialize>(
        &mut self,
        name: &str,
        default: V,
        get: impl Fn(&B) -> Option<V>,
    ) -> V {
        let of = self.of;
        let path = format!("{}.{name}", self.path);
        self.merge.field(&path, default, |layer| get(of(layer)?))
    }

    pub(super) fn said<V: Serialize>(
        &mut self,
        name: &str,
        get: impl Fn(&B) -> Option<V>,
    ) -> Option<V> {
        let of = self.of;
        let path = format!("{}.{name}", self.path);
        self.merge.said(&path, |layer| get(of(layer)?))
    }
}
