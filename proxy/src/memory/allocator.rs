//! What has been freed, and is kept by the allocator to be used again: some know only what is the asking thread's own.
#![expect(
    unsafe_code,
    reason = "no crate of the tree gives back what an allocator keeps"
)]

#[cfg(feature = "mimalloc")]
pub(super) fn give_back() {
    give_back_of_this_thread();
}

#[cfg(feature = "mimalloc")]
pub(super) fn give_back_of_this_thread() {
    unsafe extern "C" {
        fn mi_collect(force: bool);
    }
    // SAFETY: it is linked in with this feature, takes any value, and may be called whenever memory may be freed.
    unsafe { mi_collect(true) }
}

#[cfg(all(not(feature = "mimalloc"), target_env = "gnu"))]
pub(super) fn give_back() {
    // SAFETY: it may be called whenever memory may be freed. What all threads have freed is meant.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(all(not(feature = "mimalloc"), not(target_env = "gnu")))]
pub(super) fn give_back() {}

#[cfg(not(feature = "mimalloc"))]
pub(super) fn give_back_of_this_thread() {}
