//! Calls of the CUDA runtime and driver.

use super::database::{Database, Wanted};
use super::{Lost, are_times, maybe_small, process_of, small, thread_of};
use crate::ingest::IngestError;
use crate::schema::tables::{ApiCallRow, ApiCallsBuilder};
use crate::session::{Recorder, Rows};

pub(super) const CALLS: &str = "CUPTI_ACTIVITY_KIND_RUNTIME";

const COLUMNS: [Wanted; 7] = [
    ("start", true),
    ("end", true),
    ("globalTid", true),
    ("correlationId", true),
    ("nameId", true),
    ("eventClass", false),
    ("returnValue", false),
];

pub(super) fn ingest(
    database: &Database,
    recorder: &mut Recorder,
    window: u32,
    lost: &mut Lost,
) -> Result<(), IngestError> {
    let mut rows = Rows::<ApiCallsBuilder>::default();
    database.each(CALLS, &COLUMNS, "", |cells| {
        let integer = |column: usize| cells.integer(column);
        let caller = integer(2)?.unwrap_or_default();
        let process = process_of(caller);
        let times = integer(0)?.zip(integer(1)?);
        let times = times.map(|(start, end)| (database.unix_ns(start), database.unix_ns(end)));
        let Some((start_ns, end_ns)) = times.filter(|&(start, end)| are_times(start, end)) else {
            lost.add(process, "api_calls");
            return Ok(());
        };
        let name = integer(4)?.and_then(|id| database.string(id)).unwrap_or("unknown");
        // Which of both it is stands in newer schemas; before, in the name: `cudaMalloc_v3020`, `cuLaunchKernel`.
        let is_driver = integer(5)?.map_or(!name.starts_with("cuda"), |class| class == 1);
        let row = ApiCallRow {
            pid: process.pid,
            thread_id: thread_of(caller),
            start_ns,
            end_ns,
            api: if is_driver { "driver" } else { "runtime" },
            name,
            cbid: 0,
            correlation_id: small(cells, 3)?,
            return_value: maybe_small(cells, 6)?.unwrap_or(0),
            window,
        };
        Ok(rows.push(recorder, process, row)?)
    })?;
    Ok(rows.finish(recorder)?)
}
