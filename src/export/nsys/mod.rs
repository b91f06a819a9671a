//! SQLite with nsys's schema, so that `nsys stats` and scripts written for nsys's own exports run on a session.
//! As in those, times are ns since the session's start, `utcEpochNs` of `TARGET_INFO_SESSION_START_TIME`.

mod schema;

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, Statement, params};

use super::source::Gpu;
use super::{ExportError, Source, Target};
use crate::schema::columns::TableBuilder;
use crate::schema::tables::{
    ApiCallsBuilder, KernelsBuilder, MemcpysBuilder, MemsetsBuilder, NvtxRangesBuilder, SynchronizationsBuilder,
};
use schema::{COPY_KINDS, EventTable, MEMORY_KINDS, Names, RANGE_KINDS, SYNC_KINDS, number};

/// Writes the database.
pub fn nsys(source: &mut Source<'_>, target: &Target) -> Result<(), ExportError> {
    let mut connection = Connection::open(target.temporary())?;
    // Half a file is thrown away, so there is nothing to roll back to.
    connection.pragma_update(None, "journal_mode", "OFF")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    let base_ns = source.base_ns()?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(schema::ALWAYS)?;
    let mut texts = Texts::default();
    kernels(&transaction, source, &mut texts, base_ns)?;
    memory(&transaction, source, base_ns)?;
    host(&transaction, source, &mut texts, base_ns)?;
    source.refuse_empty()?;
    for (table, names) in [
        ("ENUM_CUDA_MEMCPY_OPER", COPY_KINDS),
        ("ENUM_CUDA_MEM_KIND", MEMORY_KINDS),
        ("ENUM_CUPTI_SYNC_TYPE", SYNC_KINDS),
        ("ENUM_NSYS_EVENT_TYPE", RANGE_KINDS),
    ] {
        write_names(&transaction, table, names)?;
    }
    about(&transaction, source, base_ns)?;
    texts.write(&transaction)?;
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn kernels(
    connection: &Connection,
    source: &mut Source<'_>,
    texts: &mut Texts,
    base_ns: i64,
) -> Result<(), ExportError> {
    each::<KernelsBuilder>(connection, source, &schema::KERNELS, |insert, row| {
        insert.execute(params![
            row.start_ns - base_ns,
            row.end_ns - base_ns,
            row.device_id,
            row.context_id,
            row.stream_id,
            row.correlation_id,
            global_pid(row.pid),
            texts.id(row.name),
            texts.id(row.short_name),
            texts.id(row.mangled_name),
            row.registers_per_thread,
            row.grid_x,
            row.grid_y,
            row.grid_z,
            row.block_x,
            row.block_y,
            row.block_z,
            row.static_shared_bytes,
            row.dynamic_shared_bytes,
            row.local_bytes_per_thread,
            // The schema wants both, CUPTI's records have them, a session has not.
            0,
            0,
            row.graph_node_id.map(u64::cast_signed),
            row.graph_id,
            row.cluster_x,
            row.cluster_y,
            row.cluster_z,
        ])
    })
}

fn memory(connection: &Connection, source: &mut Source<'_>, base_ns: i64) -> Result<(), ExportError> {
    each::<MemcpysBuilder>(connection, source, &schema::MEMCPYS, |insert, row| {
        insert.execute(params![
            row.start_ns - base_ns,
            row.end_ns - base_ns,
            row.device_id,
            row.context_id,
            row.stream_id,
            row.correlation_id,
            global_pid(row.pid),
            row.bytes.cast_signed(),
            number(COPY_KINDS, row.copy_kind),
            number(MEMORY_KINDS, row.src_kind),
            number(MEMORY_KINDS, row.dst_kind),
            row.src_device_id,
            row.dst_device_id,
            row.graph_node_id.map(u64::cast_signed),
        ])
    })?;
    each::<MemsetsBuilder>(connection, source, &schema::MEMSETS, |insert, row| {
        insert.execute(params![
            row.start_ns - base_ns,
            row.end_ns - base_ns,
            row.device_id,
            row.context_id,
            row.stream_id,
            row.correlation_id,
            global_pid(row.pid),
            row.value,
            row.bytes.cast_signed(),
            row.graph_node_id.map(u64::cast_signed),
            number(MEMORY_KINDS, row.memory_kind),
        ])
    })
}

fn host(connection: &Connection, source: &mut Source<'_>, texts: &mut Texts, base_ns: i64) -> Result<(), ExportError> {
    each::<SynchronizationsBuilder>(connection, source, &schema::SYNCHRONIZATIONS, |insert, row| {
        insert.execute(params![
            row.start_ns - base_ns,
            row.end_ns - base_ns,
            None::<u32>,
            row.context_id,
            row.stream_id,
            row.correlation_id,
            global_pid(row.pid),
            number(SYNC_KINDS, row.sync_kind),
            row.event_id,
        ])
    })?;
    each::<ApiCallsBuilder>(connection, source, &schema::CALLS, |insert, row| {
        insert.execute(params![
            row.start_ns - base_ns,
            row.end_ns - base_ns,
            i64::from(row.api == "driver"),
            global_tid(row.pid, row.thread_id),
            row.correlation_id,
            texts.id(row.name),
            row.return_value,
        ])
    })?;
    let (mut domains, mut event) = (Vec::<String>::new(), 0);
    each::<NvtxRangesBuilder>(connection, source, &schema::RANGES, |insert, row| {
        event += 1;
        let thread = global_tid(row.pid, row.thread_id);
        insert.execute(params![
            row.start_ns - base_ns,
            row.end_ns.map(|end| end - base_ns),
            number(RANGE_KINDS, row.kind),
            None::<&str>,
            thread,
            (row.kind == "start_end").then_some(thread),
            texts.id(row.name),
            domain_id(&mut domains, row.domain),
            event,
        ])
    })?;
    // nsys tells the names of domains as events of their own.
    let mut insert = None;
    for (index, domain) in domains.iter().enumerate() {
        const DOMAIN_CREATE: i64 = 75;
        let insert = match &mut insert {
            Some(insert) => insert,
            None => insert.insert(connection.prepare(&schema::RANGES.insert())?),
        };
        event += 1;
        let (text, none) = (texts.id(domain), None::<i64>);
        insert.execute(params![
            0,
            none,
            DOMAIN_CREATE,
            None::<&str>,
            none,
            none,
            text,
            index as i64 + 1,
            event
        ])?;
    }
    Ok(())
}

/// 0 is the default domain.
fn domain_id(domains: &mut Vec<String>, domain: Option<&str>) -> i64 {
    let Some(domain) = domain else { return 0 };
    let index = domains.iter().position(|known| known == domain).unwrap_or_else(|| {
        domains.push(domain.to_owned());
        domains.len() - 1
    });
    index as i64 + 1
}

/// The machine and the session.
fn about(connection: &Connection, source: &mut Source<'_>, base_ns: i64) -> Result<(), ExportError> {
    let manifest = source.session().manifest().clone();
    let mut insert = connection.prepare("INSERT INTO META_DATA_EXPORT VALUES (?, ?)")?;
    let version = schema::VERSION.split('.').collect::<Vec<_>>();
    for (name, value) in [
        ("EXPORT_SCHEMA_VERSION", schema::VERSION),
        ("EXPORT_SCHEMA_VERSION_MAJOR", version[0]),
        ("EXPORT_SCHEMA_VERSION_MINOR", version[1]),
        ("EXPORT_SCHEMA_VERSION_MICRO", version[2]),
        ("EXPORT_PRODUCT_NAME", "colonel"),
        ("EXPORT_PRODUCT_VERSION", crate::VERSION),
        ("EXPORT_SOURCE_SESSION", &manifest.id),
    ] {
        insert.execute([name, value])?;
    }
    connection.execute(
        "INSERT INTO TARGET_INFO_SESSION_START_TIME (utcEpochNs) VALUES (?)",
        [base_ns],
    )?;
    let end_ns = manifest.ended_ns.unwrap_or(base_ns).max(base_ns);
    connection.execute(
        "INSERT INTO ANALYSIS_DETAILS VALUES (0, ?, 0, ?)",
        [end_ns - base_ns, end_ns - base_ns],
    )?;
    let mut insert = connection.prepare("INSERT INTO PROCESSES VALUES (?, ?, ?)")?;
    for process in &manifest.processes {
        insert.execute(params![global_pid(process.pid), process.pid, process.exe])?;
    }
    let mut gpus = source.devices()?;
    gpus.sort_by_key(|gpu| (gpu.device_id, gpu.pid));
    // Scripts look a GPU up by the ordinal of its work, so the first of an ordinal has it as its id. Other processes may
    // call another GPU so: those come behind.
    let mut highest = gpus.last().map_or(0, |gpu| i64::from(gpu.device_id));
    let mut ids = BTreeMap::<(u32, Option<&str>), i64>::new();
    for gpu in &gpus {
        let is_first = !ids.keys().any(|&(ordinal, _)| ordinal == gpu.device_id);
        let key = (gpu.device_id, gpu.uuid.as_deref());
        let id = match ids.get(&key) {
            Some(&id) => id,
            None => {
                highest += i64::from(!is_first);
                let id = if is_first { gpu.device_id.into() } else { highest };
                ids.insert(key, id);
                write_gpu(connection, gpu, id)?;
                id
            }
        };
        connection.execute(
            "INSERT INTO TARGET_INFO_CUDA_DEVICE VALUES (?, ?, ?, ?, ?)",
            params![id, gpu.device_id, gpu.pid, gpu.uuid, gpu.sm_count],
        )?;
    }
    Ok(())
}

fn write_gpu(connection: &Connection, gpu: &Gpu, id: i64) -> Result<(), ExportError> {
    connection.execute(
        "INSERT INTO TARGET_INFO_GPU (vmId, id, name, isDiscrete, l2CacheSize, totalMemory, memoryBandwidth, clockRate, \
         smCount, uuid, cuDevice, maxShmemPerSm, maxRegistersPerSm, threadsPerWarp, maxWarpsPerSm, maxBlocksPerSm, \
         computeMajor, computeMinor) VALUES (0, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            id,
            gpu.name,
            gpu.l2_bytes.cast_signed(),
            gpu.memory_bytes.cast_signed(),
            gpu.memory_bandwidth_bytes_per_s.map(u64::cast_signed),
            u64::from(gpu.clock_khz).saturating_mul(1000).cast_signed(),
            gpu.sm_count,
            gpu.uuid,
            gpu.device_id,
            gpu.shared_bytes_per_sm,
            gpu.registers_per_sm,
            gpu.warp_size,
            gpu.max_threads_per_sm / gpu.warp_size.max(1),
            gpu.max_blocks_per_sm,
            gpu.compute.0,
            gpu.compute.1,
        ],
    )?;
    Ok(())
}

fn write_names(connection: &Connection, table: &str, names: Names) -> Result<(), ExportError> {
    let mut insert = connection.prepare(&format!("INSERT INTO {table} VALUES (?, ?, ?)"))?;
    for (number, _, name, label) in names {
        insert.execute(params![number, name, label])?;
    }
    Ok(())
}

/// Inserts each row of a table; nsys's table is made with the first.
fn each<B: TableBuilder>(
    connection: &Connection,
    source: &mut Source<'_>,
    table: &EventTable,
    mut insert: impl FnMut(&mut Statement<'_>, B::Row<'_>) -> rusqlite::Result<usize>,
) -> Result<(), ExportError> {
    let mut statement = None;
    source.each::<B>(|row| {
        let statement = match &mut statement {
            Some(statement) => statement,
            None => {
                connection.execute_batch(&table.create())?;
                statement.insert(connection.prepare(&table.insert())?)
            }
        };
        insert(statement, row)?;
        Ok(())
    })
}

/// Texts and their ids in `StringIds`.
#[derive(Default)]
struct Texts(HashMap<String, i64>);

impl Texts {
    fn id(&mut self, text: &str) -> i64 {
        if let Some(&id) = self.0.get(text) {
            return id;
        }
        let id = i64::try_from(self.0.len()).unwrap_or(i64::MAX);
        self.0.insert(text.to_owned(), id);
        id
    }

    fn write(&self, connection: &Connection) -> Result<(), ExportError> {
        let mut insert = connection.prepare("INSERT INTO StringIds VALUES (?, ?)")?;
        let mut texts: Vec<_> = self.0.iter().map(|(text, &id)| (id, text)).collect();
        texts.sort_unstable();
        for (id, text) in texts {
            insert.execute(params![id, text])?;
        }
        Ok(())
    }
}

/// nsys keeps host and virtual machine above the process; both are 0 here.
fn global_pid(pid: u32) -> i64 {
    i64::from(pid) << 24
}

fn global_tid(pid: u32, thread_id: u32) -> i64 {
    global_pid(pid) | i64::from(thread_id & 0xff_ffff)
}
