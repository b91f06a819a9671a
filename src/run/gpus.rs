//! Which GPUs each process of a session used, for the closing lines.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt32Type};

use crate::session::Session;

/// Product names by pid; a GPU that a process saw but made no context on is left out. What can't be read is missing:
/// the figures matter more than the names.
pub(crate) fn gpus(session: &Session) -> BTreeMap<u32, Vec<String>> {
    let mut used: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for batch in session.scan("contexts", &["pid", "device_id"]).into_iter().flatten() {
        for (pid, device) in numbers(&batch, 0).into_iter().zip(numbers(&batch, 1)) {
            used.entry(pid).or_default().insert(device);
        }
    }
    let mut gpus: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for batch in session
        .scan("devices", &["pid", "device_id", "name"])
        .into_iter()
        .flatten()
    {
        let ids = numbers(&batch, 0).into_iter().zip(numbers(&batch, 1));
        for ((pid, device), name) in ids.zip(texts(&batch, 2)) {
            if used.get(&pid).is_none_or(|devices| devices.contains(&device)) {
                let names = gpus.entry(pid).or_default();
                let name = name.strip_prefix("NVIDIA ").unwrap_or(&name).to_owned();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    gpus
}

fn numbers(batch: &RecordBatch, column: usize) -> Vec<u32> {
    match batch.column(column).as_primitive_opt::<UInt32Type>() {
        Some(values) => values.iter().map(Option::unwrap_or_default).collect(),
        None => vec![0; batch.num_rows()],
    }
}

fn texts(batch: &RecordBatch, column: usize) -> Vec<String> {
    let unknown = || vec!["unknown GPU".to_owned(); batch.num_rows()];
    let Some(values) = batch.column(column).as_dictionary_opt::<Int32Type>() else {
        return unknown();
    };
    let Some(names) = values.downcast_dict::<arrow_array::StringArray>() else {
        return unknown();
    };
    names
        .into_iter()
        .map(|name| name.unwrap_or("unknown GPU").to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::columns::TableBuilder;
    use crate::schema::tables::{ContextRow, ContextsBuilder, DeviceRow, DevicesBuilder};
    use crate::session::synthetic::{SyntheticGuest, h100};
    use crate::session::{NewSession, SessionWriter, SessionsDir};

    #[test]
    fn only_gpus_with_a_context_are_named() {
        let temp = tempfile::tempdir().unwrap();
        let sessions = SessionsDir::resolve(Some(temp.path())).unwrap();
        let writer = SessionWriter::create(&sessions, NewSession::default()).unwrap();
        let mut guest = SyntheticGuest::new(writer.path(), 4711);
        let mut devices = DevicesBuilder::default();
        devices.push(h100(4711));
        devices.push(DeviceRow {
            device_id: 1,
            name: "NVIDIA L4",
            ..h100(4711)
        });
        guest.seal(&mut devices).unwrap();
        let session = Session::load(writer.path()).unwrap();
        assert_eq!(gpus(&session)[&4711].len(), 2, "without contexts nobody can tell");

        let mut contexts = ContextsBuilder::default();
        contexts.push(ContextRow {
            pid: 4711,
            context_id: 1,
            device_id: 1,
            null_stream_id: 7,
        });
        guest.seal(&mut contexts).unwrap();
        assert_eq!(gpus(&session)[&4711], ["L4"]);
    }
}
