//! The search for layers on kernels that vLLM launched on an H100, against the order that is known of its Qwen2: of each
//! layer input norm, qkv, rotation, the cache, attention, output, norm, gate and up, activation, down.

use std::path::Path;

use super::Spot;
use super::tests::{found_with, judge, spots_with};
use crate::session::synthetic::model::Launched;

const LAYERS: u16 = 24;

/// Kernels in order of start, with the layer that the known order gives each.
fn recorded(file: &Path) -> Vec<Launched> {
    let text = std::fs::read_to_string(file).unwrap();
    let (names, kernels) = text.split_once("\n\n").unwrap();
    let names: Vec<&str> = names.lines().filter(|line| !line.starts_with('#')).collect();
    let mut correlation_id = 0;
    let kernel = |line: &str| {
        let numbers: Vec<u32> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        correlation_id += numbers[1];
        Launched {
            name: names[numbers[0] as usize].to_owned(),
            correlation_id,
            node: numbers
                .get(2)
                .map(|&graph| (graph, u64::from(graph) << 32 | u64::from(numbers[3]))),
            layer: None,
            is_foreign: false,
            step: 0,
            batch: 1,
            is_prefill: false,
        }
    };
    let mut launched: Vec<Launched> = kernels.lines().map(kernel).collect();
    let order: Vec<(usize, Option<u16>)> = known_order(&launched).into_iter().enumerate().collect();
    order.into_iter().for_each(|(at, layer)| launched[at].layer = layer);
    launched
}

/// Each layer writes the cache once: it begins with the norm before that, and ends before the second norm after it. A
/// layer that does not go on where another ended is the first of a pass.
fn known_order(launched: &[Launched]) -> Vec<Option<u16>> {
    let is_norm = |at: &usize| launched[*at].name.contains("norm") || launched[*at].name.contains("rsqrt");
    let mut layers = vec![None; launched.len()];
    let (mut layer, mut last_end) = (0, 0);
    for cache in (0..launched.len()).filter(|&at| launched[at].name.starts_with("reshape_and_cache")) {
        let start = (0..cache).rev().find(is_norm).unwrap();
        let end = (cache..launched.len()).filter(is_norm).nth(1).unwrap();
        assert!(cache - start <= 4 && end - start <= 13, "{start}, {cache}, {end}");
        layer = if start == last_end { layer + 1 } else { 0 };
        layers[start..end].fill(Some(layer));
        last_end = end;
    }
    layers
}

fn all() -> Vec<(String, Vec<Launched>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/layers");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 5);
    let name = |file: &Path| file.file_stem().unwrap().to_string_lossy().into_owned();
    files.iter().map(|file| (name(file), recorded(file))).collect()
}

#[test]
fn every_kernel_of_vllm_is_right() {
    for (name, launched) in all() {
        let (of_layers, right, outside) = judge(&launched);
        let a_layer = if name == "vllm-0.20.2-v1-eager" { 13 } else { 12 };
        assert_eq!(of_layers, 5 * usize::from(LAYERS) * a_layer, "{name}");
        assert_eq!((right, outside), (of_layers, 0), "{name}");
    }
}

#[test]
fn the_norm_behind_the_last_layer_is_the_final_one() {
    for (name, launched) in all() {
        let spots = spots_with(&launched, |_| None);
        let norms: Vec<usize> = (0..spots.len())
            .filter(|&at| spots[at] == Some(Spot::FinalNorm))
            .collect();
        let is_behind = |at: &usize| launched[at - 1].layer == Some(LAYERS - 1) && launched[*at].layer.is_none();
        let behind: Vec<usize> = (1..launched.len()).filter(is_behind).collect();
        assert_eq!(norms, behind, "{name}");
        assert_eq!(norms.len(), 5, "{name}");
    }
}

#[test]
fn a_lost_record_changes_nothing_else() {
    for (name, launched) in all() {
        for lost in [30, 700, 1100] {
            let mut launched = launched.clone();
            launched.remove(lost);
            let (of_layers, right, outside) = judge(&launched);
            assert_eq!((right, outside), (of_layers, 0), "{name} without {lost}");
        }
    }
}

/// A window may open and close anywhere in a step. Of its first or last layer less than a half may be without number.
#[test]
fn steps_that_were_cut_count_from_the_end_that_is_there() {
    for (name, launched) in all() {
        for first in (0..260).step_by(37) {
            let part = &launched[first..launched.len() - first / 2];
            let (of_layers, right, outside) = judge(part);
            assert!(
                of_layers - right <= 12 && outside == 0,
                "{name} from {first}: {right} of {of_layers}"
            );
        }
    }
}

/// One layer that ranges name in a step that was cut says where the others are: they are not moved once more.
#[test]
fn one_named_layer_numbers_a_cut_step() {
    for (name, launched) in all() {
        let launched = &launched[100..];
        let last = launched
            .iter()
            .position(|kernel| kernel.layer == Some(LAYERS - 1))
            .unwrap();
        let first_step = launched[last].correlation_id;
        let one = |kernel: &Launched| {
            let is_it = kernel.layer == Some(15) && kernel.correlation_id <= first_step;
            is_it.then(|| "model.layers.15".to_owned())
        };
        let found = found_with(launched, one);
        let wrong = launched
            .iter()
            .zip(found)
            .filter(|(kernel, found)| found.is_some() && kernel.layer != *found);
        assert_eq!(wrong.count(), 0, "{name}");
    }
}

/// In compiled code ranges may name the attention of each layer and nothing else.
#[test]
fn ranges_around_attention_number_all_kernels() {
    for (name, launched) in all() {
        let attention = |kernel: &Launched| {
            let layer = kernel.layer.filter(|_| kernel.name.starts_with("device_kernel"))?;
            Some(format!("model.layers.{layer}.self_attn.attn"))
        };
        // Also where one step is all there is, and this one was cut: without ranges there would be no layers.
        let last = launched
            .iter()
            .position(|kernel| kernel.layer == Some(LAYERS - 1))
            .unwrap();
        for kernels in [0..launched.len(), 0..200, 100..last + 20] {
            let launched = &launched[kernels.clone()];
            let found = found_with(launched, attention);
            let wrong = launched
                .iter()
                .zip(found)
                .filter(|(kernel, found)| kernel.layer != *found);
            let wrong = wrong.count();
            assert!(
                wrong <= if kernels.start == 0 { 0 } else { 12 },
                "{name} {kernels:?}: {wrong}"
            );
        }
    }
}

#[test]
fn ranges_win_over_what_structure_counts() {
    for (name, launched) in all() {
        let one_more = |kernel: &Launched| kernel.layer.map(|layer| layer + 1);
        let said = |kernel: &Launched| {
            let layer = one_more(kernel).filter(|layer| layer % 3 == 0)?;
            Some(format!("layer {layer}"))
        };
        let found = found_with(&launched, said);
        assert!(launched.iter().map(one_more).eq(found), "{name}");
    }
}
