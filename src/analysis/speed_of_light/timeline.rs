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
/// Of its first and last moments: from a kernel's start to its first work, and from its last work to its end, it takes about a
/// microsecond. Kernels of less than two have no such parts.
const EDGE_NS: i64 = 1_000;

/// Which ends of a run are parts of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) first: bool,
    pub(super) last: bool,
}

impl Cut {
    /// No way is the right one, so all are tried: what they agree on does not depend on where runs are cut.
    pub(super) const ALL: [Self; 4] = [
        Self::ends(false, false),
        Self::ends(true, false),
        Self::ends(false, true),
        Self::ends(true, true),
    ];

    const fn ends(first: bool, last: bool) -> Self {
        Self { first, last }
    }

    /// Borders of a run's parts, 0 to 1, of runs of this mean length: parts of `length`, but none shorter than a `most`th.
    fn borders(self, mean: i64, length: i64, most: i64) -> Vec<f64> {
        let ends = i64::from(self.first) + i64::from(self.last);
        let edge = EDGE_NS.min(mean / 3);
        if ends > 0 && (mean < 2 * EDGE_NS || edge.saturating_mul(most) < mean) {
            return Self::ends(false, false).borders(mean, length, most);
        }
        let share = |is_apart: bool| if is_apart { edge as f64 / mean as f64 } else { 0.0 };
        let (start, end) = (share(self.first), 1.0 - share(self.last));
        let inner = ((mean - ends * edge) / length + 1)
            .min(most - ends)
            .clamp(1, MOST_PARTS);
        let mut borders = Vec::new();
        if self.first {
            borders.push(0.0);
        }
        borders.extend((0..=inner).map(|part| start + (end - start) * part as f64 / inner as f64));
        if self.last {
            borders.push(1.0);
        }
        borders
    }
}

/// Borders of the parts of each unit's runs: of longer parts where there would be more in all than `most`, or less than
/// `least_ns` of time in each.
fn borders(runs: &[Run], units: usize, cut: Cut, most: usize, least_ns: i64) -> Vec<Vec<f64>> {
    let mut totals = vec![(0_i64, 0_i64); units];
    for run in runs {
        let (count, ns) = &mut totals[run.unit as usize];
        (*count, *ns) = (*count + 1, ns.saturating_add(run.end - run.start));
    }
    let of_length = |length: i64| -> Vec<Vec<f64>> {
        let of_unit = |&(count, ns): &(i64, i64)| cut.borders(ns / count.max(1), length, ns / least_ns.max(1));
        totals.iter().map(of_unit).collect()
    };
    let count = |borders: &[Vec<f64>]| borders.iter().map(|of_unit| of_unit.len() - 1).sum::<usize>();
    let longest = totals.iter().map(|(count, ns)| ns / (*count).max(1)).max().unwrap_or(0);
    let mut length = PART_NS;
    while length <= longest.max(PART_NS) {
        let borders = of_length(length);
        if count(&borders) <= most {
            return borders;
        }
        length *= 2;
    }
    vec![vec![0.0, 1.0]; units]
}

/// Column of [`Column::Idle`], and of [`Column::Rest`].
pub(super) const IDLE: u32 = 0;
const REST: u32 = 1;

/// All of a device.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    pub(super) stretches: Vec<Stretch>,
    pub(super) columns: Vec<Column>,
    /// Borders of the parts of each unit's runs, 0 to 1.
    pub(super) borders: Vec<Vec<f64>>,
    /// Time of each unit, and that of it in which nothing else ran.
    pub(super) busy_ns: Vec<i64>,
    pub(super) alone_ns: Vec<i64>,
}

impl Timeline {
    /// Of runs in order of start. Columns are the `most` states that took most time, `least_ns` at least.
    pub(super) fn new(runs: &[Run], units: usize, cut: Cut, most: usize, least_ns: i64) -> Self {
        let mut states = States::default();
        let mut timeline = Self {
            busy_ns: vec![0; units],
            alone_ns: vec![0; units],
            borders: borders(runs, units, cut, most, least_ns),
            ..Self::default()
        };
        sweep(runs, |start, end, active| {
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
            let length = (alone.end - alone.start) as f64;
            let time = |border: f64| alone.start + (border * length).round() as i64;
            for (part, borders) in timeline.borders[alone.unit as usize].windows(2).enumerate() {
                let (start, end) = (time(borders[0]).max(start), time(borders[1]).min(end));
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

    const WHOLE: Cut = Cut::ALL[0];
    const ENDS: Cut = Cut::ALL[3];

    #[test]
    fn a_long_kernel_has_parts() {
        let runs = [run(0, 9_000, 0), run(9_000, 10_000, 1), run(10_000, 19_000, 0)];
        let timeline = Timeline::new(&runs, 2, WHOLE, 8, 0);
        let starts: Vec<i64> = timeline.stretches.iter().map(|part| part.start).collect();
        assert_eq!(starts, [0, 3_000, 6_000, 9_000, 10_000, 13_000, 16_000]);
        assert_eq!(timeline.stretches[0].column, timeline.stretches[4].column);
        let timeline = Timeline::new(&runs, 2, ENDS, 8, 0);
        let starts: Vec<i64> = timeline.stretches[..5].iter().map(|part| part.start).collect();
        assert_eq!(starts, [0, 1_000, 4_500, 8_000, 9_000]);
    }

    #[test]
    fn there_are_no_more_parts_than_there_is_room_and_time_for() {
        let long = [run(0, 900_000, 0), run(0, 900_000, 1)];
        let parts = |cut, most, least_ns| -> Vec<usize> {
            let borders = borders(&long, 2, cut, most, least_ns);
            borders.iter().map(|of_unit| of_unit.len() - 1).collect()
        };
        assert_eq!(parts(WHOLE, 5, 0), [2, 2]);
        assert_eq!(parts(WHOLE, 5, 900_000), [1, 1]);
        assert_eq!(parts(ENDS, 30, 0), [14, 14]);
        assert_eq!(parts(ENDS, 5, 0), [1, 1], "no room for ends");
        assert_eq!(parts(ENDS, 30, 450_000), [2, 2], "no time for them");
        let short = [run(0, 3_500, 0), run(4_000, 7_500, 0), run(8_000, 11_500, 0)];
        let of_short = |least_ns| borders(&short, 1, ENDS, 30, least_ns)[0].len() - 1;
        assert_eq!((of_short(2_000), of_short(4_000)), (3, 1), "an end has 3 us");
    }

    #[test]
    fn what_is_rare_has_no_column_of_its_own() {
        let timeline = Timeline::new(&[run(0, 100, 0), run(90, 100, 2), run(100, 103, 1)], 3, WHOLE, 8, 5);
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
