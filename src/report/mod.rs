//! What people and machines read: terminal tables and JSON.

mod by;
mod compare;
mod list;
mod names;
mod rows;
mod show;
mod table;
mod time;

pub use by::{By, ByJson, by_text};
pub use compare::{CompareJson, compare_text};
pub use list::{ListJson, list_table};
pub use rows::rows_table;
pub use show::{ShowJson, show_text, sum_up};
pub use table::terminal_width;
