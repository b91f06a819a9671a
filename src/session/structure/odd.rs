//! The search for layers on models that are not one stack of equal layers, launched kernel by kernel.

use super::tests::found_with;
use crate::session::synthetic::model::Launched;

/// Steps of a model whose layers are words, each letter a kernel; `n` is a norm. Around them lie three kernels on each side.
fn steps(model: &str, layers: &[&str], count: usize) -> Vec<Vec<Launched>> {
    steps_between(model, ("EFG", layers, "nLS"), count)
}

/// Steps with these kernels before and after the layers.
fn steps_between(model: &str, (before, layers, after): (&str, &[&str], &str), count: usize) -> Vec<Vec<Launched>> {
    let kernel = |letter: char, layer| Launched {
        name: match letter {
            'n' => "fused_add_rms_norm_kernel".to_owned(),
            letter => format!("{letter}{model}"),
        },
        correlation_id: 0,
        node: None,
        layer,
        is_foreign: false,
        step: 0,
        batch: 1,
        is_prefill: false,
    };
    let mut step: Vec<Launched> = before.chars().map(|letter| kernel(letter, None)).collect();
    for (layer, word) in (0..).zip(layers) {
        step.extend(word.chars().map(|letter| kernel(letter, Some(layer))));
    }
    step.extend(after.chars().map(|letter| kernel(letter, None)));
    vec![step; count]
}

fn launch(steps: impl IntoIterator<Item = Vec<Launched>>) -> Vec<Launched> {
    let mut launched: Vec<Launched> = steps.into_iter().flatten().collect();
    (1..)
        .zip(&mut launched)
        .for_each(|(id, kernel)| kernel.correlation_id = id);
    launched
}

/// Kernels with another layer than the model's.
fn wrong(launched: &[Launched], path: impl Fn(&Launched) -> Option<String>) -> usize {
    let found = found_with(launched, path);
    launched
        .iter()
        .zip(found)
        .filter(|(kernel, found)| kernel.layer != *found)
        .count()
}

fn attention_says(kernel: &Launched) -> Option<String> {
    let layer = kernel
        .layer
        .filter(|_| kernel.name.starts_with('a') || kernel.name.starts_with('m'))?;
    Some(format!("model.layers.{layer}.mixer"))
}

#[test]
fn the_layers_of_two_models_in_turn_are_counted_apart() {
    // As of a model and the small one that drafts for it.
    let (large, small) = (steps("large", &["nqraond"; 24], 8), steps("small", &["nqkaonud"; 6], 8));
    let launched = launch(large.into_iter().zip(small).flat_map(|(large, small)| [large, small]));
    assert_eq!(wrong(&launched, |_| None), 0);
    assert_eq!(wrong(&launched, attention_says), 0);
}

#[test]
fn two_models_at_the_same_time_have_only_the_layers_that_ranges_say() {
    let (one, other) = (
        launch(steps("one", &["nqraond"; 24], 6)),
        launch(steps("two", &["nqkaonud"; 20], 6)),
    );
    // Two of one, then three of the other: as threads may launch.
    let mut mixed = Vec::new();
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    for turn in 0.. {
        let before = mixed.len();
        mixed.extend(one.by_ref().take(1 + turn % 3));
        mixed.extend(other.by_ref().take(1 + turn % 4));
        if mixed.len() == before {
            break;
        }
    }
    let mixed = launch([mixed]);
    let found = found_with(&mixed, |_| None);
    assert!(found.iter().all(Option::is_none));
}

#[test]
fn layers_that_alternate_and_share_most_kernels_are_layers() {
    let launched = launch(steps("moe", &["nqraongud", "nqraontud"].repeat(12), 5));
    assert_eq!(wrong(&launched, |_| None), 0);
}

#[test]
fn layers_that_alternate_and_share_little_are_taken_in_twos_unless_ranges_tell() {
    let launched = launch(steps("hybrid", &["nqraond", "nxcmzygud"].repeat(12), 5));
    let found = found_with(&launched, |_| None);
    for (kernel, found) in launched.iter().zip(found) {
        assert_eq!(found, kernel.layer.map(|layer| layer / 2), "{}", kernel.name);
    }
    assert_eq!(wrong(&launched, attention_says), 0);
}

#[test]
fn steps_with_few_kernels_between_them_are_steps() {
    let layer = "nqraonud";
    for (before, after) in [
        ("E", ""),
        ("", "L"),
        ("E", "L"),
        ("E", "nL"),
        ("", "nL"),
        ("", "nLS"),
        // A variant of the last kernel of a layer, as a fill is of an addition.
        ("D", "L"),
        ("EF", "nLS"),
        ("EFG", "nLS"),
    ] {
        for layers in [3, 12, 24] {
            let layers = vec![layer; layers];
            let launched = launch(steps_between("", (before, &layers, after), 8));
            let seam = format!("`{after}` and `{before}` between {} layers", layers.len());
            assert_eq!(wrong(&launched, |_| None), 0, "{seam}");
            // A window may open and close anywhere: the layer that it cuts may be without number, and of three layers two
            // are none.
            let most = if layers.len() == 3 { 6 } else { 2 } * layer.len();
            for first in [1, 3, 5, 6, 8, 13] {
                let part = launch([launched[first..launched.len() - 2 * first].to_vec()]);
                let wrong = wrong(&part, |_| None);
                assert!(wrong <= most, "{seam}, without {first}: {wrong} of {}", part.len());
            }
        }
    }
}

#[test]
fn prefill_and_decode_with_few_kernels_between_them_are_steps() {
    let (prefill, decode) = (["nxraontyz"; 24], ["nqraonud"; 24]);
    for (before, after) in [("E", "L"), ("", "L"), ("E", "nLS")] {
        for decodes in [1, 2, 7] {
            let prefill = steps_between("", (before, &prefill, after), 1);
            let decode = steps_between("", (before, &decode, after), decodes);
            let launched = launch([prefill, decode].concat().into_iter().cycle().take(4 * (1 + decodes)));
            let wrong = wrong(&launched, |_| None);
            assert_eq!(wrong, 0, "`{after}` and `{before}`, {decodes}");
        }
    }
}

#[test]
fn few_kernels_between_steps_are_seen_among_foreign_ones() {
    let mut launched = steps_between("", ("E", &["nqraonud"; 24], "nL"), 20).concat();
    // Every 61st kernel is of something else.
    for at in (0..launched.len()).step_by(61) {
        let mut foreign = launched[0].clone();
        foreign.name = "sampling".to_owned();
        launched.insert(at, foreign);
    }
    let launched = launch([launched]);
    let wrong = wrong(&launched, |_| None);
    assert!(100 * wrong <= 3 * launched.len(), "{wrong} of {}", launched.len());
}
