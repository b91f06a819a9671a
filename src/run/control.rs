//! The client of the guests' control sockets: opens and closes windows in a running process.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::summary::process_name;
use crate::schema::control::{MAX_MESSAGE_BYTES, Op, Reply, Request, VERSION};
use crate::schema::manifest::{Process, ProcessState};
use crate::session::{Session, SessionError, SessionsDir, is_alive};

/// A guest that does not answer in this time is stuck, or its process is stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process with a guest that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Session id.
    pub session: String,
    /// Process id.
    pub pid: u32,
    /// Start time, so that a reused pid is told apart.
    start_ticks: u64,
    /// Short name.
    pub name: String,
    /// Its socket; `None` where it could not make one.
    socket: Option<PathBuf>,
}

/// Why there is no guest to ask, in words that stand alone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// The sessions can't be read.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Nothing runs.
    #[error(
        "no session runs in `{dir}`; start one with `colonel run --gate manual -- CMD`, or name its folder with `--sessions-dir`"
    )]
    NoneRuns {
        /// Where.
        dir: PathBuf,
    },
    /// Several run.
    #[error("{} sessions run; say which: {}", .sessions.len(), .sessions.join(", "))]
    SeveralRun {
        /// Each with its processes.
        sessions: Vec<String>,
    },
    /// The one asked for has no guest.
    #[error(
        "no process of session `{id}` with CUDA runs; a process can be asked from when it initialises CUDA until it ends"
    )]
    NoGuest {
        /// Session id.
        id: String,
    },
    /// A pid of no session.
    #[error("{source}; nor is there a captured process with pid {pid}{hint}")]
    NoSuchPid {
        /// Process id.
        pid: u32,
        /// Which there are.
        hint: String,
        /// Why it is no session either.
        source: SessionError,
    },
}

/// Why a guest was not asked, or did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The process is gone.
    #[error("the process has ended")]
    Ended,
    /// The guest could not make a socket.
    #[error("its guest has no control socket; `colonel show` says why")]
    NoSocket,
    /// The socket is there and nobody serves it.
    #[error("its control socket `{path}` does not answer: {source}")]
    Socket {
        /// Socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer within {} s; is the process stopped?", PATIENCE.as_secs())]
    Timeout,
    /// The guest's answer is none.
    #[error("its answer can't be read ({0}); were guest and `colonel` built from the same version?")]
    Protocol(String),
}

/// The guests that an argument means: a session, a pid, or the only session that runs.
pub fn select(sessions: &SessionsDir, which: Option<&str>) -> Result<Vec<Guest>, SelectError> {
    let live: Vec<Guest> = Session::list(sessions)?
        .into_iter()
        .filter_map(|listed| listed.session.ok())
        .flat_map(|s| guests(&s))
        .collect();
    match which {
        None => only_session(sessions, live),
        Some(which) => named(sessions, which, live),
    }
}

fn only_session(sessions: &SessionsDir, live: Vec<Guest>) -> Result<Vec<Guest>, SelectError> {
    let mut ids: Vec<&str> = live.iter().map(|guest| guest.session.as_str()).collect();
    ids.dedup();
    match ids.as_slice() {
        [_] => Ok(live),
        [] => match running(sessions)? {
            Some(id) => Err(SelectError::NoGuest { id }),
            None => Err(SelectError::NoneRuns {
                dir: sessions.shown().to_owned(),
            }),
        },
        several => {
            let describe = |id: &&str| {
                let of_session: Vec<String> = live
                    .iter()
                    .filter(|g| g.session == *id)
                    .map(|g| format!("{} pid {}", g.name, g.pid))
                    .collect();
                format!("{id} ({})", of_session.join(", "))
            };
            Err(SelectError::SeveralRun {
                sessions: several.iter().map(describe).collect(),
            })
        }
    }
}

/// A session that runs, though no process of it has a guest.
fn running(sessions: &SessionsDir) -> Result<Option<String>, SessionError> {
    let running = Session::list(sessions)?.into_iter().rev().find(|listed| {
        listed
            .session
            .as_ref()
            .is_ok_and(|session| matches!(session.life(), crate::session::Life::Running(_)))
    });
    Ok(running.map(|listed| listed.id))
}

fn named(sessions: &SessionsDir, which: &str, live: Vec<Guest>) -> Result<Vec<Guest>, SelectError> {
    let pid = which.parse::<u32>().ok();
    // A pid that is captured goes before the first digits of a session, which could be written out.
    if let Some(guest) = live
        .iter()
        .find(|guest| Some(guest.pid) == pid && guest.session != which)
    {
        return Ok(vec![guest.clone()]);
    }
    match (Session::open(sessions, which.as_ref()), pid) {
        (Ok(session), _) => match guests(&session) {
            none if none.is_empty() => Err(SelectError::NoGuest {
                id: session.manifest().id.clone(),
            }),
            some => Ok(some),
        },
        (Err(source @ SessionError::NotFound { .. }), Some(pid)) => {
            let pids: Vec<String> = live.iter().map(|guest| guest.pid.to_string()).collect();
            let hint = if pids.is_empty() {
                String::new()
            } else {
                format!(" (captured: {})", pids.join(", "))
            };
            Err(SelectError::NoSuchPid { pid, hint, source })
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// Processes of a session whose guest can be asked.
fn guests(session: &Session) -> Vec<Guest> {
    let alive = |process: &&Process| {
        process.ended_ns.is_none() && process.state != ProcessState::Ended && is_alive(process.pid, process.start_ticks)
    };
    let guest = |process: &Process| Guest {
        session: session.manifest().id.clone(),
        pid: process.pid,
        start_ticks: process.start_ticks,
        name: process_name(process),
        socket: process.control.clone(),
    };
    session.manifest().processes.iter().filter(alive).map(guest).collect()
}

/// Asks all at once, so that windows of several processes open together. Answers come in the order of the guests.
pub fn ask_all(guests: &[Guest], op: &Op) -> Vec<Result<Reply, ControlError>> {
    let deadline = Instant::now() + PATIENCE;
    let asked: Vec<_> = guests
        .iter()
        .map(|guest| {
            let (send, receive) = mpsc::channel();
            let (guest, op) = (guest.clone(), op.clone());
            // A thread that never comes back ends with the process.
            std::thread::spawn(move || send.send(ask(&guest, op)));
            receive
        })
        .collect();
    asked
        .into_iter()
        .map(|receive| {
            let left = deadline.saturating_duration_since(Instant::now());
            receive.recv_timeout(left).unwrap_or(Err(ControlError::Timeout))
        })
        .collect()
}

fn ask(guest: &Guest, op: Op) -> Result<Reply, ControlError> {
    let path = guest.socket.as_deref().ok_or(ControlError::NoSocket)?;
    let result = converse(path, &Request { version: VERSION, op });
    match result {
        Err(ControlError::Socket { .. }) if !is_alive(guest.pid, guest.start_ticks) => Err(ControlError::Ended),
        other => other,
    }
}

fn converse(path: &Path, request: &Request) -> Result<Reply, ControlError> {
    let socket = |source| ControlError::Socket {
        path: path.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(path).map_err(socket)?;
    let message = encode(request)?;
    stream.write_all(&message).map_err(socket)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(socket)?;
    let length = u32::from_le_bytes(length);
    if length > MAX_MESSAGE_BYTES {
        return Err(ControlError::Protocol(format!(
            "{length} bytes, of {MAX_MESSAGE_BYTES} at most"
        )));
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text).map_err(socket)?;
    serde_json::from_slice(&text).map_err(|error| ControlError::Protocol(error.to_string()))
}

fn encode(request: &Request) -> Result<Vec<u8>, ControlError> {
    let text = serde_json::to_vec(request).map_err(|error| ControlError::Protocol(error.to_string()))?;
    match u32::try_from(text.len()) {
        Ok(length) if length <= MAX_MESSAGE_BYTES => Ok([&length.to_le_bytes()[..], &text].concat()),
        _ => Err(ControlError::Protocol(format!(
            "a request of {} bytes is too long",
            text.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn answering(answer: Vec<u8>) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut text = vec![0; u32::from_le_bytes(length) as usize];
            stream.read_exact(&mut text).unwrap();
            assert_eq!(text, br#"{"version":1,"op":"status"}"#);
            stream.write_all(&answer).unwrap();
        });
        (folder, path)
    }

    fn status(answer: Vec<u8>) -> Result<Reply, ControlError> {
        let (_folder, path) = answering(answer);
        converse(
            &path,
            &Request {
                version: VERSION,
                op: Op::Status,
            },
        )
    }

    fn framed(text: &[u8]) -> Vec<u8> {
        [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text].concat()
    }

    #[test]
    fn an_answer_is_read_whole() {
        let reply = status(framed(
            br#"{"version":1,"ok":true,"state":"armed","rows":7,"later_field":0}"#,
        ))
        .unwrap();
        assert_eq!((reply.ok, reply.state.as_str(), reply.rows), (true, "armed", 7));
    }

    #[test]
    fn nonsense_is_no_answer() {
        assert!(matches!(status(framed(b"{}")), Err(ControlError::Protocol(_))));
        assert!(matches!(
            status(u32::MAX.to_le_bytes().to_vec()),
            Err(ControlError::Protocol(_))
        ));
        assert!(
            matches!(status(framed(b"{}")[..5].to_vec()), Err(ControlError::Socket { .. })),
            "cut off"
        );
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused_here() {
        let op = Op::Start {
            name: Some("x".repeat(70_000)),
            for_ns: None,
            nested: false,
        };
        assert!(matches!(
            encode(&Request { version: VERSION, op }),
            Err(ControlError::Protocol(_))
        ));
    }
}
