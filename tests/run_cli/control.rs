//! `colonel start`, `stop` and `status` against a guest of the test's own.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use colonel::schema::control::{Op, Reply, Request, VERSION};
use colonel::session::start_ticks;
use colonel::session::synthetic::SyntheticGuest;
use colonel::session::{NewSession, SessionWriter, SessionsDir};

use crate::support::{Workplace, assert_code, stderr, stdout};

/// A process that the guest is said to live in: killed in the end.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Serves a socket as a guest does, one window after the other.
fn serve(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let mut window = 0;
        let mut open = false;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 4];
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut text = vec![0; u32::from_le_bytes(length) as usize];
            stream.read_exact(&mut text).unwrap();
            let request: Request = serde_json::from_slice(&text).unwrap();
            assert_eq!(request.version, VERSION);
            let mut error = None;
            match request.op {
                Op::Start { name, for_ns, nested } => {
                    assert_eq!(
                        (name.as_deref(), for_ns, nested),
                        (Some("steady"), Some(10_000_000_000), false)
                    );
                    window += 1;
                    open = true;
                }
                Op::Stop { window: None } if open => open = false,
                Op::Stop { .. } => error = Some("no window is open".to_owned()),
                Op::Status | Op::Flush => {}
            }
            let reply = Reply {
                version: VERSION,
                ok: error.is_none(),
                state: if open { "capturing" } else { "armed" }.to_owned(),
                window: (window > 0).then_some(window),
                open: open.then_some(window).into_iter().collect(),
                rows: 1_200,
                error,
            };
            let text = serde_json::to_vec(&reply).unwrap();
            stream
                .write_all(&u32::try_from(text.len()).unwrap().to_le_bytes())
                .unwrap();
            stream.write_all(&text).unwrap();
        }
    });
}

/// A session that runs, launched by this test, with one process whose socket is as given.
fn session(place: &Workplace, process: &Sleeper, socket: Option<&Path>) -> SessionWriter {
    let sessions = SessionsDir::resolve(Some(&place.path().join(".colonel/sessions"))).unwrap();
    let session = SessionWriter::create(&sessions, NewSession::default()).unwrap();
    let mut guest = SyntheticGuest::new(session.path(), process.pid());
    guest.process.start_ticks = start_ticks(process.pid()).unwrap();
    guest.process.control = socket.map(Path::to_owned);
    guest.write_process().unwrap();
    session
}

#[test]
fn windows_open_and_close_in_the_only_session() {
    let place = Workplace::new();
    let process = Sleeper::new();
    let socket = place.path().join("sock");
    serve(&socket);
    let session = session(&place, &process, Some(&socket));
    let who = format!("{}  python loop.py (pid {})", session.id(), process.pid());
    let pid = process.pid().to_string();
    for (words, expected) in [
        (&["status"][..], "armed, 1,200 rows sealed so far"),
        (
            &["start", "--for", "10s", "--name", "steady"],
            "window 1 open, for 10.0 s",
        ),
        (
            &["status", session.id()],
            "capturing, window 1, 1,200 rows sealed so far",
        ),
        (&["stop", &pid], "window 1 closed, 1,200 rows sealed so far"),
        (
            &["status", &session.id()[..4]],
            "armed, window 1, 1,200 rows sealed so far",
        ),
    ] {
        let output = place.colonel().args(words).output().unwrap();
        assert_code(&output, 0);
        assert_eq!(stdout(&output), format!("{who}: {expected}\n"), "{words:?}");
    }
    let output = place.colonel().args(["stop"]).output().unwrap();
    assert_code(&output, 1);
    assert_eq!(stdout(&output), format!("{who}: no window is open\n"));
}

#[test]
fn json_has_one_object_a_process() {
    let place = Workplace::new();
    let process = Sleeper::new();
    let socket = place.path().join("sock");
    serve(&socket);
    let session = session(&place, &process, Some(&socket));
    let output = place.colonel().args(["status", "--json"]).output().unwrap();
    assert_code(&output, 0);
    let answers: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.as_array().unwrap().len(), 1);
    assert_eq!(answers[0]["session"], session.id());
    assert_eq!(answers[0]["pid"], process.pid());
    assert_eq!(answers[0]["state"], "armed");
    assert_eq!(answers[0]["rows"], 1_200);
    assert_eq!(answers[0]["error"], serde_json::Value::Null);
}

#[test]
fn several_sessions_are_listed_and_not_guessed() {
    let place = Workplace::new();
    let processes = [Sleeper::new(), Sleeper::new()];
    let sessions: Vec<_> = processes.iter().map(|process| session(&place, process, None)).collect();
    let output = place.colonel().arg("status").output().unwrap();
    assert_code(&output, 1);
    let said = stderr(&output);
    assert!(said.starts_with("colonel: 2 sessions run; say which: "), "{said}");
    for (session, process) in sessions.iter().zip(&processes) {
        assert!(
            said.contains(&format!("{} (python loop.py pid {})", session.id(), process.pid())),
            "{said}"
        );
    }
}

#[test]
fn nothing_to_ask_is_said_with_what_to_do() {
    let place = Workplace::new();
    let said = |words: &[&str]| {
        let output = place.colonel().args(words).output().unwrap();
        assert_code(&output, 1);
        assert_eq!(stdout(&output), "");
        stderr(&output)
    };
    assert!(said(&["start"]).contains("no session runs in `.colonel/sessions`; start one with `colonel run"));
    assert!(said(&["start", "4711"]).contains("nor is there a captured process with pid 4711"));
    assert!(said(&["start", "beef"]).contains("no session `beef`"));

    // It runs, for its launcher, this test, does.
    let sessions = SessionsDir::resolve(Some(&place.path().join(".colonel/sessions"))).unwrap();
    let session = SessionWriter::create(&sessions, NewSession::default()).unwrap();
    let text = said(&["start"]);
    assert!(
        text.contains(&format!("no process of session `{}` with CUDA runs", session.id())),
        "{text}"
    );
}

#[test]
fn a_socket_that_nobody_serves_is_named() {
    let place = Workplace::new();
    let process = Sleeper::new();
    let socket = place.path().join("sock");
    drop(UnixListener::bind(&socket).unwrap());
    session(&place, &process, Some(&socket));
    let output = place.colonel().arg("stop").output().unwrap();
    assert_code(&output, 1);
    assert!(stdout(&output).contains(&format!("its control socket `{}` does not answer", socket.display())));
}

#[test]
fn a_guest_without_a_socket_is_said() {
    let place = Workplace::new();
    let process = Sleeper::new();
    session(&place, &process, None);
    let output = place.colonel().arg("stop").output().unwrap();
    assert_code(&output, 1);
    assert!(
        stdout(&output).contains("its guest has no control socket"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn a_guest_that_does_not_answer_is_given_up() {
    let place = Workplace::new();
    let process = Sleeper::new();
    let socket = place.path().join("sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    session(&place, &process, Some(&socket));
    let started = std::time::Instant::now();
    let output = place.colonel().arg("status").output().unwrap();
    assert_code(&output, 1);
    assert!(started.elapsed() < std::time::Duration::from_secs(8));
    assert!(stdout(&output).contains("no answer within 5 s"), "{}", stdout(&output));
}
