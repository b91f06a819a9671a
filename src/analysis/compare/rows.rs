//! The rows of the comparison, and the difference in all.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bootstrap::{Per, Sample, Spread, not_by_chance};
use super::cells::Cell;
use super::change::{Change, Verdict};
use super::gather::{KindSteps, RowTotals, Side};
use super::matching::{Match, Matcher, Pair};
use super::sides::{Plan, Unit, in_order};
use super::{By, Comparison};
use crate::analysis::durations::DurationCounts;

/// What a row comes to in one session: launches of a kernel or in a layer, or steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Launches {
    /// How many.
    pub count: u64,
    /// Sum of their durations, ns.
    pub total_ns: i64,
    /// Their mean, ns.
    pub mean_ns: f64,
    /// Their median, of a layer that of its time a step, ns; null where a layer is in no step.
    pub median_ns: Option<i64>,
}

/// A kernel, layer or kind of step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparedRow {
    /// Demangled name, layer, or kind of step; empty for kernels without a name, and for what has no layer.
    pub name: String,
    /// Its name in the second session, where that is another.
    pub name_b: Option<String>,
    /// How both were matched.
    #[serde(rename = "match")]
    pub how: Match,
    /// In the first session; null where it has none.
    pub a: Option<Launches>,
    /// In the second.
    pub b: Option<Launches>,
    /// Mean of the second over that of the first, less 1; null where one has none.
    pub mean_change: Option<f64>,
    /// Total of the second less that of the first, ns.
    pub total_difference_ns: i64,
    /// Part in the difference of the time in kernels in all, ns: the row's own with steps, times the launches of the first
    /// session without.
    pub contribution_ns: Option<f64>,
    /// Time a step, or a launch.
    #[serde(flatten)]
    pub change: Change,
}

impl ComparedRow {
    fn new(name: String, name_b: Option<String>, how: Match, [a, b]: [Option<Launches>; 2]) -> Self {
        let total = |launches: Option<Launches>| launches.map_or(0, |launches| launches.total_ns);
        let means = a.zip(b).filter(|(a, _)| a.mean_ns > 0.0);
        Self {
            name_b: name_b.filter(|name_b| *name_b != name),
            name,
            how,
            a,
            b,
            mean_change: means.map(|(a, b)| b.mean_ns / a.mean_ns - 1.0),
            total_difference_ns: total(b).saturating_sub(total(a)),
            contribution_ns: None,
            change: Change::default(),
        }
    }
}

pub(crate) fn fill(comparison: &mut Comparison, sides: [&Side; 2], plan: &Plan) {
    let pairs = pairs(sides, comparison.by);
    let mut figures = Figures::new(sides, plan, &pairs);
    comparison.kernels_in_all = figures.kernels_in_all();
    comparison.steps_in_all = figures.steps_in_all;
    let mut rows = match comparison.by {
        By::Kernel | By::Layer => pairs
            .iter()
            .zip(figures.of_rows())
            .map(|(pair, change)| row(sides, plan, *pair, change, comparison.by))
            .collect(),
        By::Step => step_rows(sides, plan),
    };
    rows.retain(|row: &ComparedRow| row.a.is_some() || row.b.is_some());
    let total = |row: &ComparedRow| [row.a, row.b].into_iter().flatten().map(|of| of.total_ns).max();
    rows.sort_by(|x, y| {
        let weight = |row: &ComparedRow| row.contribution_ns.map_or(-1.0, f64::abs);
        weight(y)
            .total_cmp(&weight(x))
            .then_with(|| total(y).cmp(&total(x)))
            .then_with(|| (&x.name, &x.name_b).cmp(&(&y.name, &y.name_b)))
    });
    let equal = |row: &ComparedRow| {
        let (a, b) = row.a.zip(row.b)?;
        (a.count == b.count).then_some(a.count)
    };
    comparison.equal_launches = rows.iter().filter_map(equal).sum();
    comparison.rows = rows;
}

/// Which rows belong together.
fn pairs(sides: [&Side; 2], by: By) -> Vec<Pair> {
    let [a, b] = sides.map(|side| side.rows.iter().map(|row| row.text.as_str()).collect());
    let mut matcher = Matcher::new(a, b);
    if by == By::Kernel {
        // A step of the most frequent kind of each phase.
        let phases = sides[0].kinds.iter().map(|kind| kind.phase);
        let phases: std::collections::BTreeSet<_> = phases.collect();
        let frequent = |side: &'_ Side, phase| -> Option<Vec<u32>> {
            let kind = side.kinds_of(Some(phase)).max_by_key(|kind| kind.steps)?;
            Some(kind.sequence.clone())
        };
        let sequences: Vec<_> = phases
            .into_iter()
            .filter_map(|phase| Some([frequent(sides[0], phase)?, frequent(sides[1], phase)?]))
            .collect();
        let sequences: Vec<[&[u32]; 2]> = sequences.iter().map(|[a, b]| [&a[..], &b[..]]).collect();
        matcher.by_place(&sequences);
        matcher.by_function();
    }
    let mut pairs = matcher.finish();
    if by == By::Kernel {
        for pair in &mut pairs {
            if let (Match::Exact, Some(a), Some(b)) = (pair.how, pair.a, pair.b)
                && sides[0].rows[a].shape() != sides[1].rows[b].shape()
            {
                pair.how = Match::Reshaped;
            }
        }
    }
    pairs
}

/// Time of each pair in both sessions, and of all kernels together.
struct Figures {
    pairs: Vec<Pair>,
    unit: Unit,
    of_sides: [Vec<Spread>; 2],
    steps_in_all: Option<Change>,
}

impl Figures {
    fn new(sides: [&Side; 2], plan: &Plan, pairs: &[Pair]) -> Self {
        let with_variance = plan.why_no_interval.is_none();
        // Launches of the first session, that the sum of all kernels is made of where there are no steps.
        let weight = |pair: &Pair| match (plan.unit, pair.a, pair.b) {
            (Unit::Step, ..) => 1.0,
            (Unit::Launch, Some(a), Some(_)) => sides[0].rows[a].launches as f64,
            (Unit::Launch, ..) => 0.0,
        };
        let weights: Vec<f64> = pairs.iter().map(weight).collect();
        let mut lengths = [Spread::default(); 2];
        let of_sides = [0, 1].map(|side: usize| {
            let of_side = |pair: &Pair| if side == 0 { pair.a } else { pair.b };
            let mut places = vec![None; sides[side].rows.len()];
            for (place, pair) in pairs.iter().enumerate() {
                if let Some(row) = of_side(pair) {
                    places[row] = Some(place);
                }
            }
            let by_row = |cell: &Cell, add: &mut dyn FnMut(usize, i64, u64)| {
                for sum in &cell.rows {
                    if let Some(place) = places[sum.row as usize] {
                        add(place, sum.ns, sum.launches);
                    }
                }
            };
            match plan.unit {
                Unit::Launch => {
                    let mut sample = Sample::new(pairs.len(), Per::Launch);
                    let cells = sides[side].launch_cells();
                    if cells.is_empty() {
                        return means(&sides[side].rows, pairs, of_side, &weights);
                    }
                    sample.add(1.0, &cells, by_row);
                    sample.spreads(&weights, with_variance)
                }
                Unit::Step => {
                    let (mut sample, mut length) = (Sample::new(pairs.len(), Per::Step), Sample::new(1, Per::Step));
                    let steps: u64 = plan.compared().map(|phase| phase.a).sum();
                    for phase in plan.compared() {
                        let weight = phase.a as f64 / steps as f64;
                        let cells = sides[side].cells_of(phase.phase);
                        sample.add(weight, &cells, by_row);
                        length.add(weight, &cells, |cell, add| add(0, cell.length_ns, 0));
                    }
                    lengths[side] = length.spreads(&[1.0], with_variance)[0];
                    sample.spreads(&weights, with_variance)
                }
            }
        });
        let is_of_steps = plan.unit == Unit::Step;
        Self {
            pairs: pairs.to_vec(),
            unit: plan.unit,
            of_sides,
            steps_in_all: is_of_steps.then(|| Change::of_both(&lengths[0], &lengths[1]).0),
        }
    }

    fn kernels_in_all(&self) -> Change {
        let is_of_both = |pair: &Pair| pair.a.is_some() && pair.b.is_some();
        if self.unit == Unit::Launch && !self.pairs.iter().any(is_of_both) {
            return Change::default();
        }
        let last = |side: &Vec<Spread>| side.last().copied().unwrap_or_default();
        Change::of_both(&last(&self.of_sides[0]), &last(&self.of_sides[1])).0
    }

    /// In the order of pairs. The words hold for all rows together.
    fn of_rows(&mut self) -> Vec<Change> {
        let mut estimates = Vec::new();
        let changes = self.pairs.iter().enumerate().map(|(place, pair)| {
            let [a, b] = [&self.of_sides[0][place], &self.of_sides[1][place]];
            match (pair.a, pair.b) {
                (Some(_), Some(_)) => {
                    let (change, estimate) = Change::of_both(a, b);
                    estimates.extend(estimate.map(|estimate| (place, estimate)));
                    change
                }
                (a_row, _) if self.unit == Unit::Step => match a_row {
                    Some(_) => Change::of_one(Some(a.value), None),
                    None => Change::of_one(None, Some(b.value)),
                },
                (Some(_), _) => Change {
                    a_ns: Some(a.value),
                    ..Change::default()
                },
                (None, _) => Change {
                    b_ns: Some(b.value),
                    ..Change::default()
                },
            }
        });
        let mut changes: Vec<Change> = changes.collect();
        judge(&estimates, |place, verdict| changes[place].verdict = Some(verdict));
        changes
    }
}

/// Words that hold for all rows together.
fn judge(estimates: &[(usize, super::bootstrap::Estimate)], mut say: impl FnMut(usize, Verdict)) {
    let chance = |estimate: &super::bootstrap::Estimate| estimate.interval.map_or(1.0, |(_, _, chance)| chance);
    let chances: Vec<f64> = estimates.iter().map(|(_, estimate)| chance(estimate)).collect();
    for ((place, estimate), is_real) in estimates.iter().zip(not_by_chance(&chances)) {
        say(*place, Verdict::of(estimate, !is_real));
    }
}

/// Means of all launches, where their order says nothing.
fn means(rows: &[RowTotals], pairs: &[Pair], of_side: impl Fn(&Pair) -> Option<usize>, weights: &[f64]) -> Vec<Spread> {
    let mean = |pair: &Pair| {
        let row = of_side(pair).map(|row| &rows[row]);
        row.map_or(0.0, |row| row.total_ns as f64 / row.launches.max(1) as f64)
    };
    let mut values: Vec<f64> = pairs.iter().map(mean).collect();
    values.push(values.iter().zip(weights).map(|(value, weight)| value * weight).sum());
    let spread = |value| Spread {
        value,
        ..Spread::default()
    };
    values.into_iter().map(spread).collect()
}

fn row(sides: [&Side; 2], plan: &Plan, pair: Pair, change: Change, by: By) -> ComparedRow {
    let of = |side: usize, row: Option<usize>| row.map(|row| &sides[side].rows[row]);
    let (a, b) = (of(0, pair.a), of(1, pair.b));
    let launches = [a, b].map(|row| row.filter(|row| row.launches > 0).map(|row| totals(row, by)));
    let name = |row: Option<&RowTotals>| row.map(|row| row.text.clone());
    let mut compared = ComparedRow::new(
        name(a).or(name(b)).unwrap_or_default(),
        name(b).filter(|_| a.is_some()),
        pair.how,
        launches,
    );
    compared.contribution_ns = match (plan.unit, a) {
        (Unit::Step, _) => change.difference_ns,
        (Unit::Launch, Some(a)) => change.difference_ns.map(|difference| difference * a.launches as f64),
        (Unit::Launch, None) => None,
    };
    compared.change = change;
    compared
}

fn totals(row: &RowTotals, by: By) -> Launches {
    let durations = if by == By::Layer {
        &row.per_step
    } else {
        &row.kernels.durations
    };
    Launches {
        count: row.launches,
        total_ns: row.total_ns,
        mean_ns: row.total_ns as f64 / row.launches.max(1) as f64,
        median_ns: durations.stats().map(|stats| stats.median_ns),
    }
}

/// Kinds of steps, by what both sessions call them: phase and batch.
fn step_rows(sides: [&Side; 2], plan: &Plan) -> Vec<ComparedRow> {
    let mut kinds = BTreeMap::<_, [Vec<&KindSteps>; 2]>::new();
    for (place, side) in sides.iter().enumerate() {
        for kind in &side.kinds {
            kinds.entry((kind.phase, kind.batch)).or_default()[place].push(kind);
        }
    }
    let steps = |kinds: &[&KindSteps]| kinds.iter().map(|kind| kind.steps).sum::<u64>();
    let in_all: f64 = sides[0].steps().max(1) as f64;
    let mut rows = Vec::new();
    let mut estimates = Vec::new();
    for ((phase, batch), [a, b]) in kinds {
        let name = match batch {
            Some(batch) => format!("{}, batch {batch}", phase.word()),
            None => phase.word().to_owned(),
        };
        let how = match (a.is_empty(), b.is_empty()) {
            (false, false) => Match::Exact,
            (false, true) => Match::OnlyA,
            _ => Match::OnlyB,
        };
        let mut row = ComparedRow::new(name, None, how, [lengths(&a), lengths(&b)]);
        let is_enough = steps(&a).min(steps(&b)) >= super::bootstrap::LEAST_STEPS;
        let spread = |kinds: &[&KindSteps]| {
            let mut sample = Sample::new(1, Per::Step);
            let cells = in_order(kinds.iter().flat_map(|kind| kind.cells.iter().cloned()));
            sample.add(1.0, &cells, |cell, add| add(0, cell.length_ns, 0));
            sample.spreads(&[1.0], is_enough && plan.why_no_interval.is_none())[0]
        };
        row.change = match how {
            Match::OnlyA => Change::of_one(Some(spread(&a).value), None),
            Match::OnlyB => Change::of_one(None, Some(spread(&b).value)),
            _ => {
                let (change, estimate) = Change::of_both(&spread(&a), &spread(&b));
                estimates.extend(estimate.map(|estimate| (rows.len(), estimate)));
                change
            }
        };
        if how == Match::Exact {
            let share = steps(&a) as f64 / in_all;
            row.contribution_ns = row.change.difference_ns.map(|difference| difference * share);
        }
        rows.push(row);
    }
    judge(&estimates, |place, verdict| rows[place].change.verdict = Some(verdict));
    rows
}

fn lengths(kinds: &[&KindSteps]) -> Option<Launches> {
    let mut lengths = DurationCounts::default();
    kinds.iter().for_each(|kind| lengths.merge(&kind.lengths));
    lengths.stats().map(|stats| Launches {
        count: stats.count,
        total_ns: stats.total_ns,
        mean_ns: stats.mean_ns,
        median_ns: Some(stats.median_ns),
    })
}
