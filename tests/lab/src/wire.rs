//! Lines with file descriptors beside them, over a unix socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;

/// No honest line is longer.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Of descriptors beside one line.
const DESCRIPTORS_MAX: usize = 16;

/// What was read and not yet taken.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Inbox {
    /// A whole line, once it is there, with the descriptors that came until its end.
    fn line(&mut self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line = self.bytes.drain(..=end).collect();
            return Ok(Some((line, std::mem::take(&mut self.descriptors))));
        }
        if self.bytes.len() > LINE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line without end",
            ));
        }
        Ok(None)
    }

    /// False at the end of the stream.
    fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut bytes = [0; 16 * 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(socket, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        self.bytes.extend_from_slice(&bytes[..received.bytes]);
        Ok(received.bytes > 0)
    }

    /// Waits for the next message; `None` at the end of the stream.
    pub fn receive<T: DeserializeOwned>(
        &mut self,
        stream: &UnixStream,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some((line, descriptors)) = self.line()? {
                return Ok(Some((serde_json::from_slice(&line)?, descriptors)));
            }
            match self.fill(stream.as_fd()) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub async fn receive_async<T: DeserializeOwned>(
        &mut self,
        stream: &tokio::net::UnixStream,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some((line, descriptors)) = self.line()? {
                return Ok(Some((serde_json::from_slice(&line)?, descriptors)));
            }
            let fill = || self.fill(stream.as_fd());
            if !stream.async_io(Interest::READABLE, fill).await? {
                return Ok(None);
            }
        }
    }
}

pub fn send<T: Serialize>(
    stream: &UnixStream,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let line = line_of(message)?;
    let mut sent = send_some(stream.as_fd(), &line, descriptors)?;
    while sent < line.len() {
        sent += send_some(stream.as_fd(), &line[sent..], &[])?;
    }
    Ok(())
}

pub async fn send_async<T: Serialize>(
    stream: &tokio::net::UnixStream,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let line = line_of(message)?;
    let mut sent = 0;
    while sent < line.len() {
        let beside = if sent == 0 { descriptors } else { &[] };
        let write = || send_some(stream.as_fd(), &line[sent..], beside);
        sent += stream.async_io(Interest::WRITABLE, write).await?;
    }
    Ok(())
}

fn line_of<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

fn send_some(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        let message = format!("more than {DESCRIPTORS_MAX} descriptors in one message");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    // A peer that hung up is an error, not a signal.
    let sent = sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_line_arrives_whole_with_its_descriptors() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let long = "x".repeat(100_000);
        let sender = std::thread::spawn(move || {
            send(&here, &("first", long.len()), &[writer.as_fd()]).unwrap();
            send(&here, &long, &[]).unwrap();
        });
        let mut inbox = Inbox::default();
        let (first, descriptors) = inbox.receive::<(String, usize)>(&there).unwrap().unwrap();
        assert_eq!((first.0.as_str(), descriptors.len()), ("first", 1));
        let (second, none) = inbox.receive::<String>(&there).unwrap().unwrap();
        assert_eq!((second.len(), none.len()), (first.1, 0));
        sender.join().unwrap();
        assert!(
            inbox.receive::<String>(&there).unwrap().is_none(),
            "the end"
        );

        let mut pipe = std::fs::File::from(descriptors.into_iter().next().unwrap());
        pipe.write_all(b"through").unwrap();
        drop(pipe);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }
}
