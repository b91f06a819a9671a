//! One stream has all the work.

use super::{part, percent};
use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::{Finding, Severity, figures};

/// Of a device's kernel time: the others are then as good as not used.
const LEAST_SHARE: f64 = 0.95;

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    let device = |(&(pid, device_id), device): (&(u32, u32), &crate::analysis::findings::evidence::OfDevice)| {
        let all = evidence.streams.iter();
        let mine = all.filter(|&(&stream, _)| (stream.0, stream.1) == (pid, device_id));
        let (streams, top) = (mine.clone().count(), mine.map(|(_, stream)| stream.all.ns).max()?);
        let (streams, top_ns, kernels_ns, busy_ns) = (streams as u64, top, device.all.ns, device.busy_ns);
        let share = part(top_ns, kernels_ns);
        if streams < 2 || share < LEAST_SHARE {
            return None;
        }
        Some(Finding {
            rule: "one_stream",
            severity: Severity::Low,
            share: 1.0 - share,
            title: format!(
                "one of {streams} streams has {} of the kernels' time (process {pid}, GPU {device_id})",
                percent(share)
            ),
            why: "Streams are there so that independent work overlaps; here next to nothing does.",
            next: "Where kernels leave the GPU half empty, put independent work on other streams: copies, a draft model, the \
                   next micro-batch, communication.",
            figures: figures![streams, top_ns, kernels_ns, busy_ns],
            kernels: Vec::new(),
            sql: format!(
                "with k as (\n  select *, greatest(0, end_ns - greatest(start_ns, coalesce(max(end_ns) over (order by start_ns\n    \
                 rows between unbounded preceding and 1 preceding), start_ns))) as busy\n  \
                 from kernels where pid = {pid} and device_id = {device_id}\n), s as (\n  \
                 select stream_id, sum(end_ns - start_ns) as ns from k group by stream_id\n)\n\
                 select (select count(*) from s) as streams, (select max(ns) from s) as top_ns,\n  \
                 sum(end_ns - start_ns) as kernels_ns, sum(busy) as busy_ns\nfrom k"
            ),
        })
    };
    evidence.devices.iter().filter_map(device).collect()
}
