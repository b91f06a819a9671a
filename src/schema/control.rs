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
    },
    /// Close the open window.
    Stop,
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
    /// Number of the window opened, closed or open now.
    #[serde(default)]
    pub window: Option<u32>,
    /// Rows sealed so far, all tables.
    #[serde(default)]
    pub rows: u64,
    /// Why not.
    #[serde(default)]
    pub error: Option<String>,
}
