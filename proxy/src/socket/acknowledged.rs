//! What the peer's kernel has of what was written.
#![expect(unsafe_code, reason = "no crate of the tree reads TCP_INFO")]

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::AsRawFd;

use tokio::net::TcpStream;

/// Whether the peer's kernel acknowledged none of the last `bytes` that were written. Asked after the peer has ended its
/// side: the segment that said so acknowledged what had come until then, so what it left out came later (RFC 9293
/// section 3.10.7.4).
///
/// Linux 4.19 and newer can tell; others are taken to have it.
pub fn lacks_last(stream: &TcpStream, bytes: u64) -> bool {
    let Ok(info) = info(stream) else {
        return false;
    };
    let sent = info.tcpi_bytes_sent.saturating_sub(info.tcpi_bytes_retrans);
    // The SYN is counted as acknowledged and not as sent.
    let acknowledged = info.tcpi_bytes_acked.saturating_sub(1);
    acknowledged + bytes <= sent
}

fn info(stream: &TcpStream) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = mem::size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and the kernel writes no more than `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: integers alone, and what an older kernel leaves out is zero.
    Ok(unsafe { info.assume_init() })
}
