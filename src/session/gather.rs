//! What a session's folder holds beside `session.json`: the guests' files, the rows on disk, and what was lost.
//! Sealing writes it down; a reader of a session that was never sealed uses it as it is. Nothing is changed on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::schema::manifest::{
    FORMAT, Loss, PROCESSES_DIR, Problem, Process, ProcessId, Progress, Session as Manifest,
};
use crate::schema::tables;
use crate::session::files::{self, ProcessFolder};
use crate::session::writer::now_ns;
use crate::session::{Phase, ProgressSink, SessionError, is_alive};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) processes: Vec<Process>,
    /// Rows in readable files, a table.
    pub(crate) rows: BTreeMap<String, u64>,
    pub(crate) losses: Vec<Loss>,
    pub(crate) problems: Vec<Problem>,
    /// Processes whose guests may still write.
    pub(crate) running: Vec<ProcessId>,
}

impl Gathered {
    /// Puts what was found into the manifest. Problems of an earlier gathering are replaced, others kept.
    pub(crate) fn write_into(self, manifest: &mut Manifest) {
        manifest.processes = self.processes;
        manifest.rows = self.rows;
        manifest.losses = self.losses;
        manifest
            .problems
            .retain(|old| !self.problems.iter().any(|new| new.code == old.code));
        manifest.problems.extend(self.problems);
    }

    fn problem(&mut self, code: &str, message: String) {
        self.problems.push(Problem {
            code: code.to_owned(),
            message,
            time_ns: now_ns(),
        });
    }
}

/// Rows of one process that its files hold, and files that could not be read, a table.
#[derive(Debug, Default)]
struct Counted {
    rows: BTreeMap<String, u64>,
    broken: BTreeMap<String, Vec<PathBuf>>,
}

/// Looks through the folder. `local` says whether its processes are of this machine, so that they can be asked after.
pub(crate) fn gather(session: &Path, local: bool, progress: ProgressSink<'_>) -> Result<Gathered, SessionError> {
    let mut gathered = Gathered::default();
    read_processes(session, &mut gathered)?;
    let mut counted = count_rows(session, &mut gathered, progress)?;
    for index in 0..gathered.processes.len() {
        let id = id_of(&gathered.processes[index]);
        let counted = counted.remove(&Some(id)).unwrap_or_default();
        judge_process(session, index, local, &counted, &mut gathered);
    }
    for (id, orphan) in counted {
        note_orphan(session, id, &orphan, &mut gathered);
    }
    Ok(gathered)
}

fn id_of(process: &Process) -> ProcessId {
    ProcessId {
        pid: process.pid,
        start_ticks: process.start_ticks,
    }
}

fn read_processes(session: &Path, gathered: &mut Gathered) -> Result<(), SessionError> {
    let folder = session.join(PROCESSES_DIR);
    for path in files::entries(&folder).map_err(SessionError::io("read", &folder))? {
        if files::is_hidden(&path) || path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let parsed = fs::read(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| serde_json::from_slice::<Process>(&text).map_err(|error| error.to_string()));
        match parsed {
            Ok(process) if process.format.major > FORMAT.major => gathered.problem(
                "process_file_too_new",
                format!(
                    "`{}` has format {}.{}, newer than this colonel reads; its tables are read as far as they are known",
                    path.display(),
                    process.format.major,
                    process.format.minor
                ),
            ),
            Ok(process) => gathered.processes.push(process),
            Err(error) => gathered.problem(
                "process_file_broken",
                format!("`{}` does not parse ({error}); its windows and losses are unknown", path.display()),
            ),
        }
    }
    gathered
        .processes
        .sort_by_key(|process| (process.started_ns, process.pid, process.start_ticks));
    Ok(())
}

fn count_rows(
    session: &Path,
    gathered: &mut Gathered,
    progress: ProgressSink<'_>,
) -> Result<BTreeMap<Option<ProcessId>, Counted>, SessionError> {
    let mut all: Vec<(String, ProcessFolder, PathBuf)> = Vec::new();
    for table in tables::all() {
        let read = SessionError::io("read", session.join(table.name));
        let folders = files::process_folders(session, table.name).map_err(read)?;
        for folder in folders {
            for path in files::segments(&folder.path).map_err(SessionError::io("read", &folder.path))? {
                all.push((table.name.to_owned(), folder.clone(), path));
            }
        }
    }
    let mut counted = BTreeMap::<_, Counted>::new();
    let total = all.len() as u64;
    for (done, (table, folder, path)) in all.into_iter().enumerate() {
        let of_process = counted.entry(folder.process).or_default();
        match files::row_count(&path) {
            Ok(rows) => {
                *gathered.rows.entry(table.clone()).or_default() += rows;
                *of_process.rows.entry(table).or_default() += rows;
            }
            Err(error) => {
                gathered.problem("table_file_broken", broken_file(&path, &error));
                of_process.broken.entry(table).or_default().push(path);
            }
        }
        progress(Phase::Sealing, done as u64 + 1, total);
    }
    Ok(counted)
}

/// The words for a Parquet file that can't be read, also part way through.
pub(crate) fn broken_file(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("`{}` is cut off or damaged and was left out ({error})", path.display())
}

fn judge_process(session: &Path, index: usize, local: bool, counted: &Counted, gathered: &mut Gathered) {
    let process = gathered.processes[index].clone();
    let id = id_of(&process);
    let mut own_losses = process.losses.clone();
    own_losses
        .iter_mut()
        .for_each(|loss| loss.pid = loss.pid.or(Some(process.pid)));
    gathered.losses.extend(own_losses);
    let mut sealed = process.rows.clone();
    if process.ended_ns.is_none() {
        if local && is_alive(id.pid, id.start_ticks) {
            gathered.running.push(id);
            return;
        }
        judge_cut_off(session, &process, counted, &mut sealed, gathered);
    }
    note_missing_rows(&process, counted, &sealed, gathered);
}

/// A process that ended without telling: what had come and was not sealed is lost, and counted.
fn judge_cut_off(
    session: &Path,
    process: &Process,
    counted: &Counted,
    sealed: &mut BTreeMap<String, u64>,
    gathered: &mut Gathered,
) {
    let path = session
        .join(PROCESSES_DIR)
        .join(format!("{}.progress", files::process_name(id_of(process))));
    let text = fs::read(&path).unwrap_or_default();
    let time_ns = modified_ns(&path).unwrap_or_else(now_ns);
    let loss = |kind: &str, count| Loss {
        pid: Some(process.pid),
        kind: kind.to_owned(),
        reason: "not_sealed".to_owned(),
        count,
        first_ns: time_ns,
        last_ns: time_ns,
    };
    // A process that never captured has no progress file.
    let progress = if text.is_empty() {
        Some(Progress::default())
    } else {
        parse_progress(&text)
    };
    let undelivered = progress.is_none() || !unsealed_windows(process).is_empty();
    if undelivered {
        gathered.losses.push(loss("records", None));
    }
    let progress = progress.unwrap_or_default();
    let mut lost = 0;
    for (table, &received) in &progress.received {
        let said = progress.sealed.get(table).copied().unwrap_or(0);
        let said = said.max(sealed.get(table).copied().unwrap_or(0));
        sealed.insert(table.clone(), said);
        // A segment may have got its name just before the process died, with no time left to say so.
        let have = said.max(counted.rows.get(table).copied().unwrap_or(0));
        let accounted = have.saturating_add(failed_writes(process, table));
        if let Some(count) = received.checked_sub(accounted).filter(|&count| count > 0) {
            gathered.losses.push(loss(table, Some(count)));
            lost += count;
        }
    }
    if lost > 0 || undelivered {
        gathered.problem("process_cut_off", cut_off(process));
    }
}

/// Rows that were received, could not be written, and that the process counted as lost itself. Its other losses never
/// came to be rows that it received.
fn failed_writes(process: &Process, table: &str) -> u64 {
    let losses = process.losses.iter();
    let failed = losses.filter(|loss| loss.kind == table && loss.reason == "write_failed");
    failed.filter_map(|loss| loss.count).sum()
}

/// Windows of which some records may not have reached the guest.
fn unsealed_windows(process: &Process) -> Vec<String> {
    let unsealed = process.windows.iter().filter(|window| window.sealed_ns.is_none());
    unsealed.map(|window| window.number.to_string()).collect()
}

/// How much is known to be lost is said by the losses.
fn cut_off(process: &Process) -> String {
    let windows = unsealed_windows(process);
    let window = match windows.as_slice() {
        [] => " before it had sealed everything".to_owned(),
        [one] => format!(
            " before window {one} was on disk: what CUPTI had not delivered yet is lost, and nobody can count it"
        ),
        many => format!(
            " before windows {} were on disk: what CUPTI had not delivered yet is lost, and nobody can count it",
            many.join(", ")
        ),
    };
    format!(
        "process {} ended without notice (killed, or by a raw system call){window}",
        process.pid
    )
}

/// Written in place and padded; cut short where the process died in the middle.
fn parse_progress(text: &[u8]) -> Option<Progress> {
    let end = text
        .iter()
        .rposition(|&byte| byte != 0 && !byte.is_ascii_whitespace())?
        + 1;
    serde_json::from_slice(&text[..end]).ok()
}

fn modified_ns(path: &Path) -> Option<i64> {
    let modified = fs::metadata(path).ok()?.modified().ok()?;
    i64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// Rows that the guest sealed and that no readable file holds.
fn note_missing_rows(process: &Process, counted: &Counted, sealed: &BTreeMap<String, u64>, gathered: &mut Gathered) {
    for (table, &said) in sealed {
        let found = counted.rows.get(table).copied().unwrap_or(0);
        let Some(count) = said.checked_sub(found).filter(|&count| count > 0) else {
            continue;
        };
        let time_ns = process.ended_ns.unwrap_or_else(now_ns);
        gathered.losses.push(Loss {
            pid: Some(process.pid),
            kind: table.clone(),
            reason: "file_unreadable".to_owned(),
            count: Some(count),
            first_ns: process.started_ns,
            last_ns: time_ns,
        });
        if !counted.broken.contains_key(table) {
            gathered.problem(
                "table_file_missing",
                format!(
                    "`{table}` of process {} holds {found} rows, but {said} were sealed: a file is gone",
                    process.pid
                ),
            );
        }
    }
}

fn note_orphan(session: &Path, id: Option<ProcessId>, counted: &Counted, gathered: &mut Gathered) {
    // A folder that is not named after a process was not made by a guest: nothing to expect of it.
    let Some(id) = id else { return };
    let name = files::process_name(id);
    // One that is there and broken was told already.
    let told = session.join(PROCESSES_DIR).join(format!("{name}.json")).exists();
    if told || counted.rows.values().all(|&rows| rows == 0) {
        return;
    }
    gathered.problem(
        "process_file_missing",
        format!(
            "there are rows of process {}, but no `{PROCESSES_DIR}/{name}.json`: its losses are unknown",
            id.pid
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_survives_its_padding_and_a_torn_write_does_not() {
        let text = br#"{"received":{"kernels":12},"sealed":{"kernels":10}}"#;
        let progress = parse_progress(&[text, &b"  \n\0\0"[..]].concat()).unwrap();
        assert_eq!((progress.received["kernels"], progress.sealed["kernels"]), (12, 10));
        assert!(parse_progress(&text[..20]).is_none());
        assert!(parse_progress(b"").is_none());
    }
}
