//! Every CUPTI from 12.4 on: exact rows, and null where that version can't tell.

use std::collections::BTreeSet;

use crate::run::{Ended, decode};
use crate::session::Rows;

const STEPS: u64 = 100;
const KERNELS: u64 = 336;

/// The first version whose records have the priority of a launch.
const PRIORITY_SINCE: u32 = 130_100;

fn capture(version: &str) -> Ended {
    let line = format!("--steps {STEPS} --kernels {KERNELS} --graph");
    decode(&line).cupti(version).run().assert_code(0)
}

/// 100 steps of a graph of 336 kernels at this version: what must hold at every version.
fn assert_exact(version: &str) {
    let ended = capture(version);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(ended.count().kernels, STEPS * KERNELS);

    let kernels = session.table("kernels");
    assert_eq!(kernels.len(), STEPS * KERNELS);
    assert_sane(&kernels);
    let api_version = session.process().cupti.expect("attached").api_version;
    let priorities = kernels.numbers("priority");
    let known = api_version >= PRIORITY_SINCE;
    assert!(
        priorities.iter().all(|priority| priority.is_some() == known),
        "a priority is known from 13.1 on, never guessed (API {api_version})"
    );

    assert_eq!(session.count("memcpys"), STEPS);
    assert_eq!(session.count("memsets"), STEPS);
    let synchronizations = session.table("synchronizations").texts("sync_kind");
    assert_eq!(
        synchronizations.len() as u64,
        STEPS + 1,
        "one a step and one at the end"
    );
    assert!(synchronizations.iter().all(|kind| kind == "stream"));
}

fn assert_sane(kernels: &Rows) {
    let (starts, ends) = (kernels.all("start_ns"), kernels.all("end_ns"));
    assert!(starts.iter().zip(&ends).all(|(start, end)| start < end));

    let graphs = kernels.all("graph_id");
    let nodes = kernels.all("graph_node_id");
    assert!(graphs.iter().zip(&nodes).all(|(graph, node)| node >> 32 == *graph));
    assert_eq!(BTreeSet::from_iter(&nodes).len() as u64, KERNELS, "a node a kernel");
    let launches = kernels.tally("correlation_id");
    assert_eq!(launches.len() as u64, STEPS, "a graph launch has one id");
    assert!(launches.values().all(|kernels| *kernels == KERNELS));

    let mangled = kernels.texts("mangled_name");
    let (names, shorts) = (kernels.texts("name"), kernels.texts("short_name"));
    let flash = mangled.iter().position(|name| name.starts_with("_ZN5flash24")).unwrap();
    assert!(
        names[flash].starts_with("void flash::flash_fwd_splitkv_kernel<"),
        "{}",
        names[flash]
    );
    assert_eq!(shorts[flash], "flash_fwd_splitkv_kernel");
    let side = |name: &str| kernels.all(name)[flash];
    assert_eq!([side("grid_x"), side("grid_y"), side("grid_z")], [1, 16, 8]);
    assert_eq!([side("block_x"), side("block_y"), side("block_z")], [128, 1, 1]);
    assert_eq!(side("dynamic_shared_bytes"), 81_920);

    let product = mangled
        .iter()
        .position(|name| name == "nvjet_sm90_tst_128x8_64x12_2x1_v_bz_TNT")
        .unwrap();
    assert_eq!(names[product], mangled[product], "a name that is not mangled stays");
    assert_eq!(
        [kernels.all("grid_x")[product], kernels.all("cluster_x")[product]],
        [304, 2]
    );
    assert!(
        kernels
            .all("registers_per_thread")
            .iter()
            .all(|count| (16..=255).contains(count))
    );
    assert_eq!(kernels.tally("device_id").into_keys().collect::<Vec<_>>(), [0]);
    assert_eq!(kernels.tally("window").into_keys().collect::<Vec<_>>(), [1]);
}

macro_rules! exact_at {
    ($( $test:ident: $version:literal; )*) => { $(
        #[test]
        fn $test() {
            assert_exact($version);
        }
    )* };
}

exact_at! {
    rows_are_exact_at_cupti_12_4: "12.4";
    rows_are_exact_at_cupti_12_8: "12.8";
    rows_are_exact_at_cupti_12_9: "12.9";
    rows_are_exact_at_cupti_13_0: "13.0";
    rows_are_exact_at_cupti_13_1: "13.1";
    rows_are_exact_at_cupti_13_2: "13.2";
    rows_are_exact_at_cupti_13_3: "13.3";
    rows_are_exact_at_cupti_13_4: "13.4";
    rows_are_exact_at_cupti_13_5: "13.5";
}
