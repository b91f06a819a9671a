//! NVTX ranges, each with its path, and which of them a kernel was launched in. Other than CUPTI's records, nsys's say
//! which thread launched, so paths are exact where several threads have ranges open.

use std::collections::{BTreeMap, HashMap};

use super::database::{Cells, Database, Wanted};
use super::{Lost, are_times, host, process_of, small, thread_of};
use crate::ingest::IngestError;
use crate::ingest::paths::{cut, joined};
use crate::schema::tables::{NvtxRangeRow, NvtxRangesBuilder};
use crate::session::{Recorder, Rows};

pub(super) const EVENTS: &str = "NVTX_EVENTS";

const FOREVER: i64 = i64::MAX;

/// Kinds of events, nsys's ENUM_NSYS_EVENT_TYPE.
const MARK: i64 = 34;
const CATEGORY: i64 = 33;
const PUSH_POP: i64 = 59;
const START_END: i64 = 60;
const DOMAIN: i64 = 75;

const COLUMNS: [Wanted; 14] = [
    ("start", true),
    ("end", true),
    ("eventType", true),
    ("globalTid", true),
    ("text", false),
    ("textId", false),
    ("domainId", false),
    ("category", false),
    ("uint64Value", false),
    ("int64Value", false),
    ("uint32Value", false),
    ("int32Value", false),
    ("doubleValue", false),
    ("floatValue", false),
];

/// A pushed range, while later ones of its thread may lie in it.
#[derive(Debug, Clone)]
struct Pushed {
    start: i64,
    end: i64,
    path: usize,
}

/// Paths of launches, by process and correlation id.
#[derive(Debug, Default)]
pub(super) struct LaunchPaths {
    paths: Vec<String>,
    launches: HashMap<(u32, u32), usize>,
}

impl LaunchPaths {
    pub(super) fn of(&self, pid: u32, correlation_id: u32) -> Option<&str> {
        let path = self.launches.get(&(pid, correlation_id))?;
        self.paths.get(*path).map(String::as_str)
    }
}

/// Names of domains and categories.
#[derive(Debug, Default)]
struct Titles(BTreeMap<(i64, u32, i64), String>);

impl Titles {
    fn read(database: &Database) -> Result<Self, IngestError> {
        let mut titles = Self::default();
        let only = format!("WHERE eventType IN ({CATEGORY}, {DOMAIN})");
        database.each(EVENTS, &COLUMNS, &only, |cells| {
            let integer = |column: usize| cells.integer(column);
            let kind = integer(2)?.unwrap_or_default();
            let number = integer(if kind == DOMAIN { 6 } else { 7 })?.unwrap_or_default();
            let pid = process_of(integer(3)?.unwrap_or_default()).pid;
            if let Some(text) = text(database, cells)? {
                titles.0.insert((kind, pid, number), text);
            }
            Ok(())
        })?;
        Ok(titles)
    }

    fn of(&self, kind: i64, pid: u32, number: i64) -> Option<&str> {
        self.0.get(&(kind, pid, number)).map(String::as_str)
    }
}

/// Reads the ranges, and the path of each launch that lies in one.
pub(super) fn ingest(
    database: &Database,
    recorder: &mut Recorder,
    window: u32,
    lost: &mut Lost,
) -> Result<LaunchPaths, IngestError> {
    let titles = Titles::read(database)?;
    let mut rows = Rows::<NvtxRangesBuilder>::default();
    let mut paths = LaunchPaths::default();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut threads: HashMap<i64, Vec<Pushed>> = HashMap::new();
    let mut stack: Vec<Pushed> = Vec::new();
    let mut current = None;
    // Outer ranges before those within them.
    let order = format!(
        "WHERE eventType IN ({MARK}, {PUSH_POP}, {START_END}) ORDER BY globalTid, start, ifnull(\"end\", {FOREVER}) DESC"
    );
    database.each(EVENTS, &COLUMNS, &order, |cells| {
        let integer = |column: usize| cells.integer(column);
        let (start, kind) = (integer(0)?.unwrap_or_default(), integer(2)?.unwrap_or_default());
        let (end, thread) = (integer(1)?, integer(3)?.unwrap_or_default());
        if current.replace(thread) != Some(thread) {
            stack.clear();
        }
        let process = process_of(thread);
        let (start_ns, end_ns) = (database.unix_ns(start), end.map(|end| database.unix_ns(end)));
        if !are_times(start_ns, end_ns.filter(|_| kind != MARK).unwrap_or(start_ns)) {
            lost.add(process, "nvtx_ranges");
            return Ok(());
        }
        stack.retain(|outer| outer.end > start);
        let mut name = text(database, cells)?.unwrap_or_default();
        cut(&mut name);
        let path = joined(stack.last().map(|outer| paths.paths[outer.path].as_str()), &name);
        let number = integer(7)?.filter(|&category| category != 0);
        let category = number.map(|number| {
            titles
                .of(CATEGORY, process.pid, number)
                .map_or(number.to_string(), str::to_owned)
        });
        let payload = payload(cells)?;
        let row = NvtxRangeRow {
            pid: process.pid,
            thread_id: thread_of(thread),
            domain: integer(6)?.and_then(|domain| titles.of(DOMAIN, process.pid, domain)),
            name: &name,
            category: category.as_deref(),
            payload: payload.as_deref(),
            kind: match kind {
                PUSH_POP => "push_pop",
                START_END => "start_end",
                _ => "mark",
            },
            depth: u32::try_from(stack.len()).unwrap_or(u32::MAX),
            path: &path,
            start_ns,
            end_ns: if kind == MARK { Some(start_ns) } else { end_ns },
            start_correlation_id: None,
            end_correlation_id: None,
            window,
        };
        rows.push(recorder, process, row)?;
        if kind == PUSH_POP {
            let place = *known.entry(path).or_insert_with_key(|path| {
                paths.paths.push(path.clone());
                paths.paths.len() - 1
            });
            let pushed = Pushed {
                start,
                end: end.unwrap_or(FOREVER),
                path: place,
            };
            threads.entry(thread).or_default().push(pushed.clone());
            stack.push(pushed);
        }
        Ok(())
    })?;
    rows.finish(recorder)?;
    if !threads.is_empty() {
        find_launches(database, &threads, &mut paths)?;
    }
    Ok(paths)
}

/// Which range each launch lies in, the innermost: one pass over the calls, thread by thread.
fn find_launches(
    database: &Database,
    threads: &HashMap<i64, Vec<Pushed>>,
    paths: &mut LaunchPaths,
) -> Result<(), IngestError> {
    const CALL: [Wanted; 4] = [
        ("globalTid", true),
        ("start", true),
        ("correlationId", true),
        ("nameId", true),
    ];
    let (mut current, mut next) = (None, 0);
    let mut open: Vec<&Pushed> = Vec::new();
    database.each(host::CALLS, &CALL, "ORDER BY globalTid, start", |cells| {
        let integer = |column: usize| cells.integer(column);
        let (thread, start) = (integer(0)?.unwrap_or_default(), integer(1)?.unwrap_or_default());
        let Some(ranges) = threads.get(&thread) else {
            return Ok(());
        };
        if current.replace(thread) != Some(thread) {
            next = 0;
            open.clear();
        }
        while let Some(range) = ranges.get(next).filter(|range| range.start <= start) {
            open.push(range);
            next += 1;
        }
        open.retain(|range| range.end > start);
        let is_launch = integer(3)?
            .and_then(|id| database.string(id))
            .is_some_and(|name| name.contains("Launch"));
        if let Some(innermost) = open.last().filter(|_| is_launch) {
            let id = small(cells, 2)?;
            paths.launches.insert((process_of(thread).pid, id), innermost.path);
        }
        Ok(())
    })
}

/// A range's message: in the row itself, or registered.
fn text(database: &Database, cells: &Cells<'_>) -> rusqlite::Result<Option<String>> {
    if let Some(text) = cells.text(4)? {
        return Ok(Some(text));
    }
    let id = cells.integer(5)?;
    Ok(id.and_then(|id| database.string(id)).map(str::to_owned))
}

fn payload(cells: &Cells<'_>) -> rusqlite::Result<Option<String>> {
    if let Some(unsigned) = cells.integer(8)? {
        return Ok(Some(unsigned.cast_unsigned().to_string()));
    }
    for column in 9..=11 {
        if let Some(value) = cells.integer(column)? {
            return Ok(Some(value.to_string()));
        }
    }
    for column in 12..=13 {
        if let Some(value) = cells.real(column)? {
            return Ok(Some(value.to_string()));
        }
    }
    Ok(None)
}
