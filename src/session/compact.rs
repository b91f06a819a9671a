//! Compaction: each process's segments of a table become one file, sorted by start. A reader sees the old or the new
//! folder whole, since the two are exchanged in one step, and never a row twice or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use parquet::errors::ParquetError;

use crate::schema::columns::Table;
use crate::schema::manifest::{Problem, Session as Manifest, SessionState};
use crate::schema::tables;
use crate::session::devices::Devices;
use crate::session::files::{self, ProcessFolder};
use crate::session::kernel_columns::KernelColumns;
use crate::session::scan::{Parts, folder_parts};
use crate::session::sorted::SortedScan;
use crate::session::table_writer::TableWriter;
use crate::session::writer::now_ns;
use crate::session::{Phase, ProgressSink, Session, SessionError};

/// New folders are made here, out of the way of `kernels/**/*.parquet`, and on the same file system.
const WORK_DIR: &str = ".compacting";

/// Compacts what can be, of all tables or of one; for the rest the manifest says why not.
pub(crate) fn compact(
    path: &Path,
    manifest: &mut Manifest,
    only: Option<&str>,
    progress: ProgressSink<'_>,
) -> Result<(), SessionError> {
    let session = Session::load(path)?;
    let devices = session.devices()?;
    let running = session.live_processes();
    let total: u64 = manifest.rows.values().sum();
    let mut done = 0;
    let mut failures = Vec::new();
    let is_meant = |table: &Table| only.is_none_or(|name| name == table.name);
    for table in tables::all().into_iter().filter(is_meant) {
        let read = SessionError::io("read", path.join(table.name));
        for folder in files::process_folders(path, table.name).map_err(read)? {
            if folder.process.is_some_and(|process| running.contains(&process)) {
                failures.push(format!("`{}`: its process still runs", folder.path.display()));
                continue;
            }
            let mut compaction = Compaction {
                session: path,
                table: &table,
                devices: &devices,
                written: 0,
            };
            let result = compaction.folder(&folder, &mut |rows| progress(Phase::Compacting, done + rows, total));
            done += compaction.written;
            if let Err(error) = result {
                failures.push(error.to_string());
            }
        }
    }
    let _ = fs::remove_dir_all(path.join(WORK_DIR));
    if failures.is_empty() {
        manifest.state = SessionState::Compacted;
        return Ok(());
    }
    let message = format!(
        "not every table was sorted and merged, the rest is as the guests wrote it: {}",
        failures.join("; ")
    );
    manifest.problems.push(Problem {
        code: "not_compacted".to_owned(),
        message,
        time_ns: now_ns(),
    });
    Ok(())
}

struct Compaction<'a> {
    session: &'a Path,
    table: &'a Table,
    devices: &'a Devices,
    written: u64,
}

impl Compaction<'_> {
    fn folder(&mut self, folder: &ProcessFolder, progress: &mut dyn FnMut(u64)) -> Result<(), SessionError> {
        let parts = folder_parts(folder).map_err(SessionError::io("read", &folder.path))?;
        if let Some(problem) = parts.problems.first() {
            return Err(SessionError::Kept {
                path: folder.path.clone(),
                reason: problem.message.clone(),
            });
        }
        if parts.parts.is_empty() {
            return Ok(());
        }
        self.refuse_unknown_columns(folder, &parts)?;
        let expected = parts.parts.iter().map(|part| part.rows()).sum();
        let new = self.make_work_folder(folder)?;
        let file = new.join("000001.parquet");
        // Nothing is written yet, but whoever wants to stop is heard.
        let mut columns = match self.table.name {
            "kernels" => {
                let looked = &mut || progress(0);
                Some(KernelColumns::new(
                    self.session,
                    folder.process,
                    &parts,
                    Some(self.devices),
                    looked,
                )?)
            }
            _ => None,
        };
        let result = self
            .write(&file, parts, columns.as_mut(), progress)
            .and_then(|()| check_rows(&file, &folder.path, expected));
        match result.and_then(|()| exchange(&new, &folder.path)) {
            // After the exchange this is the old folder.
            Ok(()) => fs::remove_dir_all(&new).map_err(SessionError::io("remove", new)),
            Err(error) => {
                let _ = fs::remove_dir_all(&new);
                Err(error)
            }
        }
    }

    /// A guest of another version may write columns that this build does not know: they are not ours to drop.
    fn refuse_unknown_columns(&self, folder: &ProcessFolder, parts: &Parts) -> Result<(), SessionError> {
        let mut last = None;
        for part in &parts.parts {
            if last.replace(part.path()) == Some(part.path()) {
                continue;
            }
            let (_, footer) = files::open(part.path()).map_err(SessionError::parquet(part.path()))?;
            let known = |name: &String| self.table.columns.iter().any(|column| column.name == name);
            if let Some(unknown) = footer
                .schema()
                .fields()
                .iter()
                .map(|field| field.name())
                .find(|name| !known(name))
            {
                let reason = format!("this colonel does not know its column `{unknown}`");
                return Err(SessionError::Kept {
                    path: folder.path.clone(),
                    reason,
                });
            }
        }
        Ok(())
    }

    fn make_work_folder(&self, folder: &ProcessFolder) -> Result<PathBuf, SessionError> {
        let name = folder.path.file_name().unwrap_or_default();
        let new = self.session.join(WORK_DIR).join(self.table.name).join(name);
        // A rest of a compaction that was killed: the table itself was not touched by it.
        if new.exists() {
            fs::remove_dir_all(&new).map_err(SessionError::io("remove", &new))?;
        }
        fs::create_dir_all(&new).map_err(SessionError::io("create", &new))?;
        Ok(new)
    }

    fn write(
        &mut self,
        path: &Path,
        parts: Parts,
        mut columns: Option<&mut KernelColumns>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), SessionError> {
        let failed = |error: ParquetError| SessionError::parquet(path)(error);
        let schema = self.table.arrow_schema();
        let file = File::create(path).map_err(SessionError::io("create", path))?;
        let mut writer = TableWriter::new(file, schema.clone()).map_err(failed)?;
        let mut rows = SortedScan::new(parts, schema);
        for batch in &mut rows {
            let batch: RecordBatch = batch.map_err(|error| failed(error.into()))?;
            let batch = match &mut columns {
                Some(columns) => columns.fill(&batch).map_err(|error| failed(error.into()))?,
                None => batch,
            };
            writer.write(&batch).map_err(failed)?;
            self.written += batch.num_rows() as u64;
            progress(self.written);
        }
        if let Some(problem) = rows.problems().first() {
            return Err(SessionError::Kept {
                path: path.to_owned(),
                reason: problem.message.clone(),
            });
        }
        let file = writer.finish().map_err(failed)?;
        file.sync_all().map_err(SessionError::io("write", path))
    }
}

fn check_rows(file: &Path, table: &Path, expected: u64) -> Result<(), SessionError> {
    let got = files::row_count(file).map_err(SessionError::parquet(file))?;
    if got != expected {
        return Err(SessionError::RowsDiffer {
            path: table.to_owned(),
            expected,
            got,
        });
    }
    Ok(())
}

/// Puts `new` in the place of `old` and `old` in the place of `new`, in one step, once `new` is on disk.
fn exchange(new: &Path, old: &Path) -> Result<(), SessionError> {
    File::open(new)
        .and_then(|folder| folder.sync_all())
        .map_err(SessionError::io("write", new))?;
    renameat2(AT_FDCWD, new, AT_FDCWD, old, RenameFlags::RENAME_EXCHANGE)
        .map_err(|error| SessionError::io("exchange", old)(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::columns::TableBuilder as _;
    use crate::schema::tables::KernelsBuilder;
    use crate::session::synthetic::{SyntheticGuest, kernel};

    #[test]
    fn a_file_with_other_than_the_expected_rows_is_refused() {
        let session = tempfile::tempdir().unwrap();
        let mut kernels = KernelsBuilder::default();
        kernels.push(kernel(7, "gemm", 1, 2));
        let file = SyntheticGuest::new(session.path(), 7).seal(&mut kernels).unwrap();
        check_rows(&file, session.path(), 1).unwrap();
        let error = check_rows(&file, session.path(), 2).unwrap_err();
        assert!(matches!(
            error,
            SessionError::RowsDiffer {
                expected: 2,
                got: 1,
                ..
            }
        ));
        assert!(
            error
                .to_string()
                .ends_with("gave 1 rows of 2; the table was left as it was")
        );
    }

    #[test]
    fn folders_are_exchanged_and_a_missing_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        fs::create_dir(&new).unwrap();
        fs::write(new.join("a"), "").unwrap();
        assert!(exchange(&new, &old).is_err());
        assert!(
            new.join("a").exists(),
            "it must not be moved where there is nothing to exchange it with"
        );
        fs::create_dir(&old).unwrap();
        exchange(&new, &old).unwrap();
        assert!(old.join("a").exists() && !new.join("a").exists());
    }
}
