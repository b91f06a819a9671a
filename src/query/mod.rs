//! SQL over sessions, done by DuckDB: the tables of docs/schema.md become views over the sessions' Parquet, and a DuckDB of
//! this machine, its Python package or its program, answers.

mod engine;
mod views;

pub use engine::{Engine, OutputKind, QueryError};
pub use views::Views;
