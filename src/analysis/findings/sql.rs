//! The SQL that rules share, for DuckDB over the tables of docs/schema.md.

use crate::session::{Selection, draft_pattern};

/// `steps`, as `colonel show --by step` cuts them: a pass over the numbered layers, and the border to the next pass at the
/// longest wait between both, behind parts that lie after the layers and not behind one that lies before them.
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
), turns as (
  select p.pid, p.device_id, p.i, p.last_i, coalesce(max(k.i) filter (not {BEFORE}), p.last_i) as behind
  from passes p left join k on p.pid = k.pid and p.device_id = k.device_id and k.i > p.last_i and k.i < p.i
    and k.layer is not null
  where p.l + 1 < p.last_l group by p.pid, p.device_id, p.i, p.last_i
), ends as (
  select t.pid, t.device_id, t.i, t.behind, coalesce(min(k.i) filter ({BEFORE}), t.i) as upto
  from turns t left join k on t.pid = k.pid and t.device_id = k.device_id and k.i > t.last_i and k.i < t.i
    and k.layer is not null and k.i > t.behind
  group by t.pid, t.device_id, t.i, t.behind
), borders as (
  select w.pid, w.device_id, w.i from ends e join waits w on e.pid = w.pid and e.device_id = w.device_id
    and w.i > e.behind and w.i <= e.upto
  qualify row_number() over (partition by e.pid, e.device_id, e.i order by w.wait desc, w.i) = 1
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

/// Whether a named part lies before the layers, as `session::is_before_layers` says.
const BEFORE: &str =
    "(regexp_matches(k.layer, '([0-9]|^(embed_tokens|word_embeddings|embeddings|embedding|wte))$', 'i')
      and not regexp_matches(k.layer, '{DRAFT}'))";

fn steps() -> String {
    STEPS.replace("{BEFORE}", BEFORE).replace("{DRAFT}", &draft_pattern())
}

/// Tables that queries of rules are over.
const TABLES: [&str; 4] = ["kernels", "memcpys", "synchronizations", "counters"];

/// A rule's query over the rows of some windows only.
pub(crate) fn within(query: &str, selection: &Selection) -> String {
    let windows = selection.windows().iter();
    let windows: Vec<_> = windows.map(|(pid, window)| format!("({pid}, {window})")).collect();
    let windows = windows.join(", ");
    let mut query = query.to_owned();
    let mut selected = Vec::new();
    for table in TABLES {
        let from = format!("from {table}");
        if query.contains(&from) {
            query = query.replace(&from, &format!("from selected_{table}"));
            selected.push(format!(
                "selected_{table} as (\n  select * from {table} where (pid, \"window\") in ({windows})\n)"
            ));
        }
    }
    let selected = selected.join(", ");
    match query.strip_prefix("with ") {
        Some(rest) => format!("with {selected}, {rest}"),
        None => format!("with {selected}\n{query}"),
    }
}

/// A query over `steps`.
pub(crate) fn over_steps(query: &str) -> String {
    format!("{}{query}", steps())
}

/// A query over `steps` and more common tables.
pub(crate) fn over_steps_with(tables: &str, query: &str) -> String {
    format!("{}, {tables}\n{query}", steps().trim_end())
}
