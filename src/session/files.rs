//! The table files of a session: `TABLE/PID-START/000001.parquet`. Names with a dot in front are unfinished and never
//! data.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;

use crate::schema::manifest::ProcessId;
use crate::session::SessionError;

/// One process's folder in one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessFolder {
    pub(crate) path: PathBuf,
    /// From the folder's name; `None` where something else than a guest made it.
    pub(crate) process: Option<ProcessId>,
}

/// Folders of a table, by process. A table that is not there has none.
pub(crate) fn process_folders(session: &Path, table: &str) -> io::Result<Vec<ProcessFolder>> {
    let mut folders: Vec<_> = entries(&session.join(table))?
        .into_iter()
        .filter(|path| !is_hidden(path) && path.is_dir())
        .map(|path| ProcessFolder {
            process: path.file_name().and_then(parse_process),
            path,
        })
        .collect();
    folders.sort_by(|a, b| (a.process, &a.path).cmp(&(b.process, &b.path)));
    Ok(folders)
}

/// Finished segments of a folder, in the order in which they were written.
pub(crate) fn segments(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<_> = entries(folder)?
        .into_iter()
        .filter(|path| !is_hidden(path) && path.extension().is_some_and(|extension| extension == "parquet"))
        .collect();
    files.sort();
    Ok(files)
}

/// Unfinished segments of a folder.
pub(crate) fn unfinished(folder: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(entries(folder)?
        .into_iter()
        .filter(|path| is_hidden(path) && path.is_file())
        .collect())
}

/// A file and what its footer says, which lies inside the file.
pub(crate) fn open(path: &Path) -> Result<(File, ArrowReaderMetadata), ParquetError> {
    let file = File::open(path)?;
    let metadata = guarded(|| ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()))?;
    check_ranges(&metadata, file.metadata()?.len())?;
    Ok((file, metadata))
}

/// The crate takes a footer's word for where columns are.
fn check_ranges(metadata: &ArrowReaderMetadata, file_bytes: u64) -> Result<(), ParquetError> {
    for column in metadata
        .metadata()
        .row_groups()
        .iter()
        .flat_map(|group| group.columns())
    {
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let end = start
            .checked_add(column.compressed_size())
            .and_then(|end| u64::try_from(end).ok());
        if start < 0 || column.compressed_size() < 0 || end.is_none_or(|end| end > file_bytes) {
            return Err(ParquetError::General(format!(
                "column `{}` lies outside the file",
                column.column_path()
            )));
        }
    }
    Ok(())
}

/// The crate may panic on a damaged file; that is an error like another.
pub(crate) fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ParquetError::General("it can't be decoded".to_owned())))
}

/// Rows of a file, from its footer.
pub(crate) fn row_count(path: &Path) -> Result<u64, ParquetError> {
    let (_, metadata) = open(path)?;
    let rows = metadata.metadata().file_metadata().num_rows();
    u64::try_from(rows).map_err(|_| ParquetError::General(format!("the footer says {rows} rows")))
}

/// Rows of a table, from its files' footers.
pub(crate) fn table_rows(session: &Path, table: &str) -> Result<u64, SessionError> {
    let mut rows = 0;
    for folder in process_folders(session, table).map_err(SessionError::io("read", session.join(table)))? {
        for path in segments(&folder.path).map_err(SessionError::io("read", &folder.path))? {
            rows += row_count(&path).map_err(SessionError::parquet(&path))?;
        }
    }
    Ok(rows)
}

/// `4711-86213`, as guests name their folders and files.
pub fn parse_process(name: &OsStr) -> Option<ProcessId> {
    let (pid, start_ticks) = name.to_str()?.split_once('-')?;
    Some(ProcessId {
        pid: pid.parse().ok()?,
        start_ticks: start_ticks.parse().ok()?,
    })
}

/// The inverse of [`parse_process`].
pub fn process_name(id: ProcessId) -> String {
    format!("{}-{}", id.pid, id.start_ticks)
}

/// Whether the last part of the path begins with a dot.
pub(crate) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."))
}

/// Bytes of all files below a folder, unfinished ones too. What goes away meanwhile counts as nothing.
pub(crate) fn disk_bytes(folder: &Path) -> u64 {
    let Ok(children) = entries(folder) else { return 0 };
    children
        .iter()
        .map(|path| match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => disk_bytes(path),
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => 0,
        })
        .sum()
}

/// What a folder holds; nothing where there is no such folder.
pub(crate) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_names_go_both_ways() {
        let id = ProcessId {
            pid: 4711,
            start_ticks: 86213,
        };
        assert_eq!(parse_process(OsStr::new(&process_name(id))), Some(id));
        for wrong in [
            "4711",
            "4711-",
            "-1",
            "a-b",
            "1-2-3",
            OsStr::from_bytes(b"1-\xff").to_string_lossy().as_ref(),
        ] {
            assert_eq!(parse_process(OsStr::new(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn only_finished_segments_are_data() {
        let session = tempfile::tempdir().unwrap();
        let folder = session.path().join("kernels/7-9");
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(session.path().join("kernels/.10-11.tmp")).unwrap();
        for name in [
            "000002.parquet",
            "000001.parquet",
            ".000003.parquet",
            ".000004.parquet.tmp",
            "notes.txt",
        ] {
            fs::write(folder.join(name), "12").unwrap();
        }
        let folders = process_folders(session.path(), "kernels").unwrap();
        assert_eq!(
            folders,
            [ProcessFolder {
                path: folder.clone(),
                process: Some(ProcessId { pid: 7, start_ticks: 9 })
            }]
        );
        assert_eq!(
            segments(&folder).unwrap(),
            [folder.join("000001.parquet"), folder.join("000002.parquet")]
        );
        assert_eq!(unfinished(&folder).unwrap().len(), 2);
        assert_eq!(disk_bytes(session.path()), 10);
        assert!(process_folders(session.path(), "memcpys").unwrap().is_empty());
    }
}
