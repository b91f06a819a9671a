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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Column {
    /// Nothing ran.
    Idle,
    /// What ran too rarely to be told apart.
    Rest,
    /// A unit that ran alone.
    Alone(u32),
    /// Several at once: what they did together is no sum of what each does alone.
    Together(Box<[u32]>),
}

/// Column of [`Column::Idle`], and of [`Column::Rest`].
pub(super) const IDLE: u32 = 0;
const REST: u32 = 1;

/// All of a device.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    pub(super) stretches: Vec<Stretch>,
    pub(super) columns: Vec<Column>,
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
            ..Self::default()
        };
        sweep(&runs, |start, end, active| {
            let length = end - start;
            for unit in active {
                timeline.busy_ns[*unit as usize] += length;
            }
            if let [unit] = active {
                timeline.alone_ns[*unit as usize] += length;
            }
            let column = states.add(active, length);
            timeline.stretches.push(Stretch { start, end, column });
        });
        let column_of = states.columns(most, least_ns, &mut timeline.columns);
        for stretch in &mut timeline.stretches {
            stretch.column = column_of.get(stretch.column as usize).copied().unwrap_or(REST);
        }
        timeline
    }
}

/// Sets of units that ran at the same time.
#[derive(Debug, Default)]
struct States {
    numbers: FxHashMap<Box<[u32]>, u32>,
    time_ns: Vec<i64>,
}

/// Sets that are told apart while time is added up; others count for the rest.
const MOST_STATES: usize = 50_000;

impl States {
    fn add(&mut self, active: &[u32], length: i64) -> u32 {
        if let Some(&number) = self.numbers.get(active) {
            self.time_ns[number as usize] += length;
            return number;
        }
        if self.time_ns.len() == MOST_STATES {
            return u32::MAX;
        }
        let number = u32::try_from(self.time_ns.len()).unwrap_or(u32::MAX);
        self.numbers.insert(active.into(), number);
        self.time_ns.push(length);
        number
    }

    /// Fills the columns, and gives that of each state.
    fn columns(self, most: usize, least_ns: i64, columns: &mut Vec<Column>) -> Vec<u32> {
        let mut column_of = vec![REST; self.time_ns.len()];
        let mut states: Vec<(Box<[u32]>, u32)> = self.numbers.into_iter().collect();
        states.sort_by_key(|(_, number)| (std::cmp::Reverse(self.time_ns[*number as usize]), *number));
        columns.extend([Column::Idle, Column::Rest]);
        for (units, number) in states.into_iter().take(most) {
            if self.time_ns[number as usize] < least_ns {
                break;
            }
            column_of[number as usize] = u32::try_from(columns.len()).unwrap_or(REST);
            columns.push(match &units[..] {
                [unit] => Column::Alone(*unit),
                _ => Column::Together(units),
            });
        }
        column_of
    }
}

/// Calls `take` for each stretch in which the same units ran, with their sorted numbers. Runs are in order of start.
fn sweep(runs: &[Run], mut take: impl FnMut(i64, i64, &[u32])) {
    let mut active: Vec<Run> = Vec::new();
    let mut units: Vec<u32> = Vec::new();
    let mut now = i64::MIN;
    let mut advance = |active: &mut Vec<Run>, to: i64| {
        while let Some(first_end) = active.iter().map(|run| run.end).min() {
            let until = first_end.min(to);
            if until > now {
                units.clear();
                units.extend(active.iter().map(|run| run.unit));
                units.sort_unstable();
                take(now, until, &units);
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
        sweep(runs, |start, end, units| all.push((start, end, units.to_vec())));
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
    fn what_is_rare_has_no_column_of_its_own() {
        let timeline = Timeline::new(vec![run(0, 100, 0), run(100, 103, 1), run(90, 100, 2)], 3, 8, 5);
        assert_eq!(
            timeline.columns,
            [
                Column::Idle,
                Column::Rest,
                Column::Alone(0),
                Column::Together([0, 2].into())
            ]
        );
        assert_eq!((timeline.busy_ns[0], timeline.alone_ns[0]), (100, 90));
        assert_eq!(timeline.stretches.last().map(|stretch| stretch.column), Some(REST));
    }
}
