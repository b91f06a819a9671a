//! The search for layers against models whose layers are known.

use proptest::prelude::*;

use super::*;
use crate::schema::columns::TableBuilder as _;
use crate::schema::tables::KernelsBuilder;
use crate::session::layer_names::Stacks;
use crate::session::synthetic::model::{Engine, Launched, Model};
use crate::session::synthetic::model_kernels;

fn model(engine: Engine) -> Model {
    Model {
        layers: 24,
        engine,
        foreign: 0,
        lost: 0,
        first_id: 1000,
    }
}

/// What the benchmark of vLLM does: rounds of one prefill and some decode steps.
fn rounds(count: usize, decode: usize, batches: &[u32]) -> Vec<(bool, u32)> {
    let round = |index: usize| {
        let batch = batches[index % batches.len()];
        std::iter::once((true, batch)).chain(std::iter::repeat_n((false, batch), decode))
    };
    (0..count).flat_map(round).collect()
}

fn batch(launched: &[Launched], path: impl Fn(&Launched) -> Option<String>) -> RecordBatch {
    let mut builder = KernelsBuilder::default();
    let paths: Vec<Option<String>> = launched.iter().map(path).collect();
    for (mut row, path) in model_kernels(7, launched, 1_000).zip(&paths) {
        row.nvtx_path = path.as_deref();
        builder.push(row);
    }
    let schema = KernelsBuilder::table().arrow_schema();
    RecordBatch::try_new(schema, builder.finish()).unwrap()
}

fn found(launched: &[Launched]) -> Vec<Option<u16>> {
    found_with(launched, |_| None)
}

/// The layers that structure gives, where kernels have these paths of ranges.
pub(super) fn found_with(launched: &[Launched], path: impl Fn(&Launched) -> Option<String>) -> Vec<Option<u16>> {
    let layer = |spot: Option<Spot>| match spot? {
        Spot::Layer(layer) => Some(layer),
        Spot::FinalNorm => None,
    };
    spots_with(launched, path).into_iter().map(layer).collect()
}

/// The places that structure gives.
pub(super) fn spots_with(launched: &[Launched], path: impl Fn(&Launched) -> Option<String>) -> Vec<Option<Spot>> {
    let batch = batch(launched, &path);
    let mut stacks = Stacks::default();
    launched.iter().filter_map(&path).for_each(|path| stacks.add(&path));
    let mut finder = Finder::new(PathParts::new(stacks));
    for from in (0..batch.num_rows()).step_by(5000) {
        finder
            .add(&batch.slice(from, 5000.min(batch.num_rows() - from)))
            .unwrap();
    }
    Lookup::new(finder.finish()).of(&batch).unwrap()
}

/// Kernels of layers, those given the right layer, and kernels outside of layers that were given one.
pub(super) fn judge(launched: &[Launched]) -> (usize, usize, usize) {
    let found = found(launched);
    let of_layers = launched.iter().filter(|kernel| kernel.layer.is_some()).count();
    let pairs = || launched.iter().zip(&found);
    let right = pairs()
        .filter(|(kernel, found)| kernel.layer.is_some() && kernel.layer == **found)
        .count();
    let outside = pairs().filter(|(kernel, found)| !kernel.is_foreign && kernel.layer.is_none() && found.is_some());
    (of_layers, right, outside.count())
}

#[test]
fn every_kernel_of_a_clean_run_is_right() {
    for engine in [Engine::Full, Engine::Piecewise, Engine::Eager] {
        let launched = model(engine).launch(&rounds(3, 16, &[4, 1]));
        let (of_layers, right, outside) = judge(&launched);
        assert_eq!((right, outside), (of_layers, 0), "{engine:?}: of {}", launched.len());
    }
}

#[test]
fn ids_may_wrap_in_the_middle() {
    for engine in [Engine::Full, Engine::Piecewise, Engine::Eager] {
        let mut model = model(engine);
        model.first_id = u32::MAX - 700;
        let launched = model.launch(&rounds(2, 10, &[4]));
        let (of_layers, right, outside) = judge(&launched);
        assert_eq!((right, outside), (of_layers, 0), "{engine:?}");
    }
}

#[test]
fn foreign_and_lost_kernels_cost_at_most_one_per_cent() {
    let (mut all, mut all_right) = (0, 0);
    for engine in [Engine::Full, Engine::Piecewise, Engine::Eager] {
        for foreign in [0, 20, 60] {
            for first_id in [1, 2, 3] {
                let mut model = model(engine);
                (model.foreign, model.lost, model.first_id) = (foreign, foreign / 2, first_id);
                let (of_layers, right, outside) = judge(&model.launch(&rounds(6, 16, &[4, 8, 1])));
                assert!(
                    100 * right >= 99 * of_layers,
                    "{engine:?}, {foreign}: {right} of {of_layers}"
                );
                assert!(
                    200 * outside <= of_layers,
                    "{engine:?}, {foreign}: {outside} outside of layers"
                );
                all += of_layers;
                all_right += right;
            }
        }
    }
    assert!(1000 * all_right >= 997 * all, "{all_right} of {all}");
}

#[test]
fn a_loop_has_no_layers() {
    // One repetition that comes once, and one that is far too long.
    for (times, passes) in [(50, 1), (600, 3)] {
        let mut launched = model(Engine::Eager).launch(&[(false, 4)]);
        launched.truncate(12);
        let one: Vec<Launched> = launched.clone();
        launched = (0..passes).flat_map(|_| (0..times).flat_map(|_| one.clone())).collect();
        for (id, kernel) in (1..).zip(&mut launched) {
            kernel.correlation_id = id;
        }
        assert!(found(&launched).iter().all(Option::is_none));
    }
    assert!(found(&[]).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn models_of_any_depth_are_right(
        layers in 3..80_u16,
        engine in prop::sample::select(vec![Engine::Full, Engine::Piecewise, Engine::Eager]),
        first_id in any::<u32>(),
        batches in prop::collection::vec(1..9_u32, 1..4),
    ) {
        let model = Model { layers, engine, foreign: 0, lost: 0, first_id };
        let (of_layers, right, outside) = judge(&model.launch(&rounds(4, 5, &batches)));
        prop_assert_eq!((right, outside), (of_layers, 0));
    }

    #[test]
    fn anything_can_be_looked_through(names in prop::collection::vec(0..5_u32, 0..400), graphs in any::<bool>()) {
        let launched: Vec<Launched> = (0..).zip(names).map(|(id, name)| Launched {
            name: format!("kernel_{name}"),
            correlation_id: id / 3,
            node: (graphs && name % 2 == 0).then_some((1, 1 << 32 | u64::from(id))),
            layer: None,
            is_foreign: false,
            step: 0,
            batch: 1,
            is_prefill: false,
        }).collect();
        prop_assert_eq!(found(&launched).len(), launched.len());
    }
}
