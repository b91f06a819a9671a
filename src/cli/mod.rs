//! The command line: one file a command, arguments and messages, no logic.
