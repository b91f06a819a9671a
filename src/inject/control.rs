//! The control socket: who may speak, and how messages are framed. What they ask is answered by the steward.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::inject::descriptors;
use crate::inject::log::log;
use crate::schema::control::{MAX_MESSAGE_BYTES, Op, Reply, Request, VERSION};

/// A client that says nothing for this long is left: the steward has other work.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(500);
const MAX_REQUESTS: u32 = 16;

/// The socket of this process, removed when dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// `PID.sock` in a folder that is the owner's alone.
    pub(crate) fn listen(folder: &Path, pid: u32) -> io::Result<ControlSocket> {
        let path = folder.join(format!("{pid}.sock"));
        let _ = std::fs::remove_file(&path);
        let listener = descriptors::above_standard(UnixListener::bind(&path)?)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(ControlSocket { listener, path })
    }

    /// For `poll`.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// For the process file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The client that waits, if it may speak.
    pub(crate) fn accept(&self) -> io::Result<Option<UnixStream>> {
        let client = match self.listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        if !is_trusted(&client) {
            log!("a client of another user was turned away");
            return Ok(None);
        }
        descriptors::above_standard(client).map(Some)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// How a conversation ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The client said nothing more, or nothing that can be read.
    #[error("client: {0}")]
    Silent(#[from] io::Error),
    /// The client was gone before the answer to its last request.
    #[error("client, gone before its answer: {0}")]
    Undelivered(io::Error),
}

/// Reads requests and writes what `answer` says to them, until the client leaves. An `Err` is a request that can't be
/// met, in words.
pub(crate) fn serve(mut client: UnixStream, mut answer: impl FnMut(Result<Op, String>) -> Reply) -> Result<(), Broken> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    client.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    for _ in 0..MAX_REQUESTS {
        let Some(request) = read_message(&mut client)? else {
            return Ok(());
        };
        let op = match serde_json::from_slice::<Request>(&request) {
            Ok(request) if request.version != VERSION => Err(format!(
                "protocol version {} is not spoken here (this guest speaks {VERSION}); use the colonel that started the \
                 session",
                request.version
            )),
            Ok(request) => Ok(request.op),
            Err(error) => Err(format!("not a request: {error}")),
        };
        let reply = serde_json::to_vec(&answer(op)).map_err(io::Error::from)?;
        let length = u32::try_from(reply.len()).unwrap_or(0).to_le_bytes();
        client
            .write_all(&[&length[..], &reply].concat())
            .map_err(Broken::Undelivered)?;
    }
    Ok(())
}

/// The same user, or root.
fn is_trusted(client: &UnixStream) -> bool {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` has room for `length` bytes.
    let status = unsafe {
        libc::getsockopt(
            client.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    // SAFETY: no arguments, can't fail.
    status == 0 && (peer.uid == 0 || peer.uid == unsafe { libc::geteuid() })
}

/// The next message, `None` at the end.
fn read_message(client: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0_u8; 4];
    match client.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length);
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {length} bytes"),
        ));
    }
    let mut message = vec![0; length as usize];
    client.read_exact(&mut message)?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_a_length_and_a_limit() {
        let mut bytes: &[u8] = b"\x02\0\0\0{}\x01";
        assert_eq!(read_message(&mut bytes).expect("whole"), Some(b"{}".to_vec()));
        assert!(
            read_message(&mut bytes)
                .expect("cut in the length counts as the end")
                .is_none()
        );
        let mut long: &[u8] = &(MAX_MESSAGE_BYTES + 1).to_le_bytes();
        assert!(read_message(&mut long).is_err());
        let mut short: &[u8] = b"\x05\0\0\0{}";
        assert!(read_message(&mut short).is_err());
    }
}
