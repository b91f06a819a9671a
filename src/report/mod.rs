//! What people and machines read: terminal tables and JSON.

mod by;
mod compare;
mod counters;
mod findings;
mod html;
mod list;
mod markdown;
mod names;
mod narrative;
mod rows;
mod show;
mod speed_of_light;
mod table;
mod time;

pub use by::{By, ByJson, by_text};
pub use compare::{CompareJson, Compared, compare_html, compare_markdown, compare_text};
pub use counters::{CountersJson, counters_text};
pub use findings::{FindingsJson, findings_in_short, findings_markdown, findings_text};
pub use html::report_html;
pub use list::{ListJson, list_table};
pub use markdown::summary_markdown;
pub use narrative::{Endpoint, NarrativeError};
pub use rows::rows_table;
pub use show::{ShowJson, show_text, sum_up};
pub use speed_of_light::speed_markdown;
pub use table::terminal_width;
