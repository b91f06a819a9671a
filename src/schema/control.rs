//! Messages on the guest's control socket: each is a u32 length in little endian, then JSON of at most 64 KiB.

use serde::{Deserialize, Serialize};

/// Version in every message.
pub const VERSION: u32 = 1;
/// Longest message.
pub const MAX_MESSAGE_BYTES: u32 = 64 * 1024;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The question.
    #[serde(flatten)]
    pub op: Op,
}

/// Operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Open a window.
    Start {
        /// Name for the window.
        #[serde(default)]
        name: Option<String>,
        /// Close it by itself after this long, ns.
        #[serde(default)]
        for_ns: Option<u64>,
        /// Open it also while others are open, within or over them. Without it, that is refused.
        #[serde(default)]
        nested: bool,
    },
    /// Close windows.
    Stop {
        /// Only the window of this number; without it, all that are open.
        #[serde(default)]
        window: Option<u32>,
    },
    /// Say how it stands.
    Status,
    /// Seal what has come so far.
    Flush,
}

/// What the guest answers, to each request one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`].
    pub version: u32,
    /// Whether it was done.
    pub ok: bool,
    /// `armed`, `capturing`, `off` or `ended`.
    pub state: String,
    /// Number of the window that was opened or closed, the newest of several; else of the newest so far.
    #[serde(default)]
    pub window: Option<u32>,
    /// Numbers of the windows that are open now, the newest 100 at most.
    #[serde(default)]
    pub open: Vec<u32>,
    /// Rows sealed so far, all tables.
    #[serde(default)]
    pub rows: u64,
    /// Why not.
    #[serde(default)]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(text: &str) -> Op {
        serde_json::from_str::<Request>(text).unwrap().op
    }

    #[test]
    fn requests_of_older_clients_are_understood() {
        assert_eq!(op(r#"{"version":1,"op":"stop"}"#), Op::Stop { window: None });
        let start = Op::Start {
            name: Some("warm".to_owned()),
            for_ns: None,
            nested: false,
        };
        assert_eq!(op(r#"{"version":1,"op":"start","name":"warm"}"#), start);
    }

    #[test]
    fn requests_say_what_they_ask() {
        assert_eq!(
            op(r#"{"version":1,"op":"stop","window":7}"#),
            Op::Stop { window: Some(7) }
        );
        let start = Op::Start {
            name: None,
            for_ns: Some(5),
            nested: true,
        };
        assert_eq!(op(r#"{"version":1,"op":"start","for_ns":5,"nested":true}"#), start);
    }
}
