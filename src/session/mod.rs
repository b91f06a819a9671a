//! Sessions on disk: create, open, seal, compact, recover, list, remove.
