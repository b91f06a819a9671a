//! How sealing and compaction say how far they are, without knowing who shows it.

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Process files are merged and rows counted; in files.
    Sealing,
    /// Tables are sorted and merged; in rows.
    Compacting,
}

impl Phase {
    /// Word for the terminal.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Sealing => "sealing",
            Self::Compacting => "compacting",
        }
    }
}

/// Called now and then with the phase, what is done, and the whole of it.
pub type ProgressSink<'a> = &'a mut dyn FnMut(Phase, u64, u64);
