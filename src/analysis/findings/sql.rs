//! The SQL that rules share, for DuckDB over the tables of docs/schema.md.

/// `steps`, as `colonel show --by step` cuts them: a pass over the numbered layers, and the border to the next pass at the
/// longest wait between both.
const STEPS: &str = "\
with k as (
  select *, try_cast(layer as uinteger) as l, row_number() over device as i
  from kernels window device as (partition by pid, device_id order by start_ns)
), waits as (
  select *, start_ns - max(end_ns) over (partition by pid, device_id order by i
    rows between unbounded preceding and 1 preceding) as wait
  from k
), passes as (
  select pid, device_id, i, lag(i) over device as last_i, l, lag(l) over device as last_l
  from k where l is not null window device as (partition by pid, device_id order by i)
), borders as (
  select w.pid, w.device_id, w.i from passes p join waits w on p.pid = w.pid and p.device_id = w.device_id
    and w.i > p.last_i and (w.i < p.i or (w.i = p.i and p.i = p.last_i + 1))
  where p.l + 1 < p.last_l
  qualify row_number() over (partition by p.pid, p.device_id, p.i order by w.wait desc, w.i) = 1
), numbered as (
  select w.*, count(b.i) over (partition by w.pid, w.device_id order by w.i) as step
  from waits w left join borders b on w.pid = b.pid and w.device_id = b.device_id and w.i = b.i
  where (w.pid, w.device_id) in (select (pid, device_id) from passes)
), gaps as (
  select *, start_ns - max(end_ns) over (partition by pid, device_id, step order by i
    rows between unbounded preceding and 1 preceding) as gap
  from numbered
), steps as (
  select pid, device_id, step, min(start_ns) as start_ns, max(end_ns) as end_ns, count(*) as kernels,
    count(*) filter (gap > 0) as gaps, coalesce(sum(gap) filter (gap > 0), 0) as gap_ns,
    case when count(distinct coalesce(graph_id::bigint, -1)) filter (l is not null) = 1
      then max(graph_id) filter (l is not null) end as graph_id,
    quantile_disc(grid_x, 0.5) filter (l is not null) as grid_x,
    case when first(\"window\" order by i) = lag(last(\"window\" order by i)) over (partition by pid, device_id order by step)
      then greatest(0, min(start_ns) - lag(max(end_ns)) over (partition by pid, device_id order by step)) end as wait_ns
  from gaps group by pid, device_id, step
)
";

/// A query over `steps`.
pub(crate) fn over_steps(query: &str) -> String {
    format!("{STEPS}{query}")
}

/// A query over `steps` and more common tables.
pub(crate) fn over_steps_with(tables: &str, query: &str) -> String {
    format!("{}, {tables}\n{query}", STEPS.trim_end())
}
