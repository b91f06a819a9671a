//! What a device did at each moment: stretches of time in which the same kernels ran, each a column of the fit.

use rustc_hash::FxHashMap;

/// A kernel or a copy at work, of the kind that `unit` numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) unit: u32,
}

/// A stretch of time, and the column of the fit that it counts for. Between stretches the device was idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) column: u32,
}

/// An unknown of the fit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Column {
    /// Nothing ran.
    Idle,
    /// What ran too rarely to be told apart.
    Rest,
    /// A part of a unit's runs, while it ran alone.
    Alone(u32, u32),
    /// Several at once: what they did together is no sum of what each does alone.
    Together(Box<[u32]>),
}

/// A kernel is not the same from its start to its end: it fills the GPU, and its last blocks leave it half empty. So its runs
/// are cut into parts of about this length, each an unknown of its own, as many as these at most.
const PART_NS: i64 = 4_000;
const MOST_PARTS: i64 = 12;

/// Parts that each unit's runs are cut into: longer ones where there would be more in all than `most`, or less than `least_ns`
/// of time in each.
fn parts(runs: &[Run], units: usize, most: usize, least_ns: i64) -> Vec<u32> {
    let mut totals = vec![(0_i64, 0_i64); units];
    for run in runs {
        let (count, ns) = &mut totals[run.unit as usize];
        (*count, *ns) = (*count + 1, ns.saturating_add(run.end - run.start));
    }
    let of_length = |length: i64| -> Vec<u32> {
        let of_unit = |&(count, ns): &(i64, i64)| {
            let parts = (ns / count.max(1) / length + 1).min(ns / least_ns.max(1));
            parts.clamp(1, MOST_PARTS) as u32
        };
        totals.iter().map(of_unit).collect()
    };
    let mut length = PART_NS;
    loop {
        let parts = of_length(length);
        if parts.iter().sum::<u32>() as usize <= most || parts.iter().all(|parts| *parts == 1) {
            return parts;
        }
        length *= 2;
    }
}

/// Column of [`Column::Idle`], and of [`Column::Rest`].
pub(super) const IDLE: u32 = 0;
const REST: u32 = 1;

/// All of a device.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    pub(super) stretches: Vec<Stretch>,
    pub(super) columns: Vec<Column>,
    /// Parts of each unit.
    pub(super) parts: Vec<u32>,
    /// Time of each unit, and that of it in which nothing else ran.
    pub(super) busy_ns: Vec<i64>,
    pub(super) alone_ns: Vec<i64>,
}

impl Timeline {
    /// Of runs in any order. Columns are the `most` states that took most time, `least_ns` at least.
    pub(super) fn new(mut runs: Vec<Run>, units: usize, most: usize, least_ns: i64) -> Self {
        runs.sort_unstable_by_key(|run| (run.start, run.end, run.unit));
        let mut states = States::default();
        let mut timeline = Self {
            busy_ns: vec![0; units],
            alone_ns: vec![0; units],
            parts: parts(&runs, units, most, least_ns),
            ..Self::default()
        };
        sweep(&runs, |start, end, active| {
            for run in active {
                timeline.busy_ns[run.unit as usize] += end - start;
            }
            let [alone] = active else {
                let mut units: Vec<u32> = active.iter().map(|run| run.unit).collect();
                units.sort_unstable();
                let column = states.add(Column::Together(units.into()), end - start);
                timeline.stretches.push(Stretch { start, end, column });
                return;
            };
            timeline.alone_ns[alone.unit as usize] += end - start;
            let parts = i64::from(timeline.parts[alone.unit as usize]);
            for part in 0..parts {
                let border = |part: i64| alone.start + (alone.end - alone.start) * part / parts;
                let (start, end) = (border(part).max(start), border(part + 1).min(end));
                if end > start {
                    let column = states.add(Column::Alone(alone.unit, part as u32), end - start);
                    timeline.stretches.push(Stretch { start, end, column });
                }
            }
        });
        let column_of = states.columns(most, least_ns, &mut timeline.columns);
        for stretch in &mut timeline.stretches {
            stretch.column = column_of.get(stretch.column as usize).copied().unwrap_or(REST);
        }
        timeline
    }
}

/// What ran at the same time, with how long.
#[derive(Debug, Default)]
struct States {
    numbers: FxHashMap<Column, u32>,
    time_ns: Vec<i64>,
}

/// States that are told apart while time is added up; others count for the rest.
const MOST_STATES: usize = 50_000;

impl States {
    fn add(&mut self, state: Column, length: i64) -> u32 {
        if let Some(&number) = self.numbers.get(&state) {
            self.time_ns[number as usize] += length;
            return number;
        }
        if self.time_ns.len() == MOST_STATES {
            return u32::MAX;
        }
        let number = u32::try_from(self.time_ns.len()).unwrap_or(u32::MAX);
        self.numbers.insert(state, number);
        self.time_ns.push(length);
        number
    }

    /// Fills the columns, and gives that of each state.
    fn columns(self, most: usize, least_ns: i64, columns: &mut Vec<Column>) -> Vec<u32> {
        let mut column_of = vec![REST; self.time_ns.len()];
        let mut states: Vec<(Column, u32)> = self.numbers.into_iter().collect();
        states.sort_by_key(|(_, number)| (std::cmp::Reverse(self.time_ns[*number as usize]), *number));
        columns.extend([Column::Idle, Column::Rest]);
        for (state, number) in states.into_iter().take(most) {
            if self.time_ns[number as usize] < least_ns {
                break;
            }
            column_of[number as usize] = u32::try_from(columns.len()).unwrap_or(REST);
            columns.push(state);
        }
        column_of
    }
}

/// Calls `take` for each stretch with the runs that it is in. Runs are in order of start.
fn sweep(runs: &[Run], mut take: impl FnMut(i64, i64, &[Run])) {
    let mut active: Vec<Run> = Vec::new();
    let mut now = i64::MIN;
    let mut advance = |active: &mut Vec<Run>, to: i64| {
        while let Some(first_end) = active.iter().map(|run| run.end).min() {
            let until = first_end.min(to);
            if until > now {
                take(now, until, active);
            }
            now = now.max(until);
            if first_end > to {
                return;
            }
            active.retain(|run| run.end > first_end);
        }
        now = to;
    };
    for run in runs.iter().filter(|run| run.end > run.start) {
        advance(&mut active, run.start);
        active.push(*run);
    }
    advance(&mut active, i64::MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: i64, end: i64, unit: u32) -> Run {
        Run { start, end, unit }
    }

    fn stretches(runs: &[Run]) -> Vec<(i64, i64, Vec<u32>)> {
        let mut all = Vec::new();
        sweep(runs, |start, end, active| {
            let mut units: Vec<u32> = active.iter().map(|run| run.unit).collect();
            units.sort_unstable();
            all.push((start, end, units));
        });
        all
    }

    #[test]
    fn time_falls_into_stretches_of_the_same_units() {
        let all = stretches(&[run(0, 10, 1), run(4, 12, 0), run(20, 30, 2), run(30, 31, 2)]);
        let expected = [
            (0, 4, vec![1]),
            (4, 10, vec![0, 1]),
            (10, 12, vec![0]),
            (20, 30, vec![2]),
            (30, 31, vec![2]),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_kernel_beside_itself_is_not_alone() {
        let all = stretches(&[run(0, 10, 1), run(2, 8, 1), run(3, 3, 0)]);
        assert_eq!(all, [(0, 2, vec![1]), (2, 8, vec![1, 1]), (8, 10, vec![1])]);
    }

    #[test]
    fn a_long_kernel_has_parts() {
        let timeline = Timeline::new(
            vec![run(0, 9_000, 0), run(10_000, 19_000, 0), run(9_000, 10_000, 1)],
            2,
            8,
            0,
        );
        assert_eq!(timeline.parts, [3, 1]);
        let first: Vec<(i64, i64)> = timeline.stretches[..4]
            .iter()
            .map(|part| (part.start, part.end))
            .collect();
        assert_eq!(first, [(0, 3_000), (3_000, 6_000), (6_000, 9_000), (9_000, 10_000)]);
        assert_eq!(timeline.stretches[0].column, timeline.stretches[4].column);
        let few = Timeline::new(vec![run(0, 900_000, 0), run(0, 900_000, 1)], 2, 5, 0);
        assert_eq!(few.parts, [2, 2], "no more than there is room for");
    }

    #[test]
    fn what_is_rare_has_no_column_of_its_own() {
        let timeline = Timeline::new(vec![run(0, 100, 0), run(100, 103, 1), run(90, 100, 2)], 3, 8, 5);
        assert_eq!(
            timeline.columns,
            [
                Column::Idle,
                Column::Rest,
                Column::Alone(0, 0),
                Column::Together([0, 2].into())
            ]
        );
        assert_eq!((timeline.busy_ns[0], timeline.alone_ns[0]), (100, 90));
        assert_eq!(timeline.stretches.last().map(|stretch| stretch.column), Some(REST));
    }
}
