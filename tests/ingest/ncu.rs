//! The raw page that `ncu --csv --page raw` prints.

use std::ffi::OsStr;

use colonel::ingest::IngestError;
use colonel::ingest::ncu::Launches;
use colonel::session::Session;

use crate::support::{Fixture, stand_in, text};

const START_NS: i64 = 1_000_000;

/// What the stand-in prints of a report with `done` launches.
fn page(done: u32) -> String {
    page_with(done, "")
}

fn page_with(done: u32, fault: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("r.ncu-rep");
    std::fs::write(&report, format!("{{\"done\": {done}}}")).unwrap();
    let words = [OsStr::new("--import"), report.as_os_str(), OsStr::new("--csv")];
    String::from_utf8(stand_in("ncu.py", fault, &words).stdout).unwrap()
}

fn ingested(page: &str) -> Result<(Session, Launches, Fixture), IngestError> {
    let mut launches = Launches::default();
    let (fixture, session) = Fixture::new().fill("process", |ingest| {
        launches = ingest.ncu_csv(page, "what ncu printed", START_NS)?;
        Ok(())
    })?;
    Ok((session, launches, fixture))
}

#[test]
fn launches_become_kernels_one_after_the_other() {
    let (session, launches, _fixture) = ingested(&page(3)).unwrap();
    assert_eq!((launches.launches, launches.without_duration), (3, 0));
    let columns = [
        "pid",
        "start_ns",
        "end_ns",
        "short_name",
        "grid_x",
        "block_x",
        "registers_per_thread",
        "correlation_id",
    ];
    insta::assert_snapshot!(text(&session, "kernels", &columns), @r"
    4711 1000000 1002304 rms_norm_kernel 4 128 32 1
    4711 1002304 1010432 nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT 132 384 168 2
    4711 1010432 1012704 rms_norm_kernel 4 128 32 3
    ");
    let columns = ["static_shared_bytes", "dynamic_shared_bytes", "name"];
    insta::assert_snapshot!(text(&session, "kernels", &columns), @r"
    64 0 void vllm::rms_norm_kernel<float>(float*, int)
    0 213248 nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT
    64 0 void vllm::rms_norm_kernel<float>(float*, int)
    ");
    let window = &session.manifest().processes[0].windows[0];
    assert_eq!(
        (window.start_ns, window.end_ns),
        (START_NS, Some(START_NS + 2_304 + 8_128 + 2_272))
    );
}

#[test]
fn metrics_become_figures_with_their_units() {
    let (session, _, _fixture) = ingested(&page(3)).unwrap();
    let columns = ["correlation_id", "short_name", "metric", "value", "unit"];
    insta::assert_snapshot!(text(&session, "kernel_counters", &columns), @r"
    1 rms_norm_kernel dram__throughput.avg.pct_of_peak_sustained_elapsed 12.500 %
    1 rms_norm_kernel gpu__time_duration.sum 2304.000 ns
    1 rms_norm_kernel launch__registers_per_thread 32.000 register/thread
    1 rms_norm_kernel launch__shared_mem_per_block_dynamic 0.000 byte/block
    1 rms_norm_kernel launch__shared_mem_per_block_static 64.000 byte/block
    1 rms_norm_kernel sm__inst_executed_pipe_tensor.sum - inst
    2 nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT dram__throughput.avg.pct_of_peak_sustained_elapsed 65.130 %
    2 nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT gpu__time_duration.sum 8128.000 ns
    2 nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT launch__registers_per_thread 168.000 register/thread
    2 nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT launch__shared_mem_per_block_dynamic 213248.000 byte/block
    2 nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT launch__shared_mem_per_block_static 0.000 byte/block
    2 nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT sm__inst_executed_pipe_tensor.sum 4096.000 inst
    3 rms_norm_kernel dram__throughput.avg.pct_of_peak_sustained_elapsed 12.750 %
    3 rms_norm_kernel gpu__time_duration.sum 2272.000 ns
    3 rms_norm_kernel launch__registers_per_thread 32.000 register/thread
    3 rms_norm_kernel launch__shared_mem_per_block_dynamic 0.000 byte/block
    3 rms_norm_kernel launch__shared_mem_per_block_static 64.000 byte/block
    3 rms_norm_kernel sm__inst_executed_pipe_tensor.sum - inst
    ");
}

/// What was not measured is a null; a launch without a duration is counted as lost, its other figures are kept.
#[test]
fn launches_without_duration_are_lost_kernels() {
    let page = page(3).replace("8,128", "n/a");
    let (session, launches, _fixture) = ingested(&page).unwrap();
    assert_eq!((launches.launches, launches.without_duration), (3, 1));
    assert_eq!((session.rows("kernels"), session.rows("kernel_counters")), (2, 18));
    let loss = &session.manifest().losses[0];
    assert_eq!((loss.kind.as_str(), loss.count), ("kernels", Some(1)));
}

#[test]
fn a_duration_that_can_not_be_is_none() {
    for wrong in ["-5", "1e300"] {
        let (session, launches, _fixture) = ingested(&page(3).replacen("2,304", wrong, 1)).unwrap();
        assert_eq!((launches.launches, launches.without_duration), (3, 1), "{wrong}");
        assert!(
            text(&session, "kernels", &["start_ns", "end_ns"]).starts_with("1000000 1008128\n"),
            "{wrong}"
        );
    }
}

#[test]
fn warnings_and_the_programs_words_in_between_change_nothing() {
    let chatty = page_with(3, "chatty");
    assert!(
        chatty.matches("==WARNING==").count() == 3 && chatty.contains("a word of the"),
        "{chatty}"
    );
    let rows = |page: &str| {
        let (session, launches, _fixture) = ingested(page).unwrap();
        let kernels = text(&session, "kernels", &["start_ns", "end_ns", "name"]);
        (
            launches,
            kernels,
            text(&session, "kernel_counters", &["metric", "value"]),
        )
    };
    assert_eq!(rows(&chatty), rows(&page(3)));
}

#[test]
fn other_units_and_a_second_header_are_read() {
    let other = page(1).replace("\"ns\"", "\"us\"").replace("2,304", "2.304");
    let one = page(1).replace("gpu__time_duration.sum", "of_the_first");
    let metrics = |page: &str| ingested(page).unwrap().1.metrics;
    assert!(metrics(&format!("{one}{other}")).starts_with(&metrics(&one)));
    let both = format!("{}{}", page(1), other);
    let (session, launches, _fixture) = ingested(&both).unwrap();
    assert_eq!(launches.launches, 2);
    assert_eq!(launches.metrics, metrics(&page(1)), "each once");
    assert_eq!(
        text(&session, "kernels", &["start_ns", "end_ns"]),
        "1000000 1002304\n1002304 1004608\n"
    );
}

#[test]
fn a_page_without_launches_is_empty_and_what_is_no_page_is_refused() {
    let (session, launches, _fixture) = ingested(&page(0)).unwrap();
    assert_eq!((launches.launches, session.rows("kernels")), (0, 0));
    let error = ingested("\"0\",\"4711\"\n").err().unwrap();
    insta::assert_snapshot!(error, @r#"what ncu printed is no raw page of ncu: no line begins with "ID"; make one with `ncu --import REPORT.ncu-rep --csv --page raw`"#);
    let error = ingested("\"ID\",\"Process ID\"\n\"0\",\"4711\"\n").err().unwrap();
    insta::assert_snapshot!(error, @r#"what ncu printed is no raw page of ncu: launch 0 has no "Kernel Name"; make one with `ncu --import REPORT.ncu-rep --csv --page raw`"#);
}

/// What it printed of nodes of a decode graph of vLLM 0.26.0, shortened to six launches and fewer columns.
#[test]
fn nodes_of_a_real_graph_are_kernels() {
    let (session, launches, _fixture) = ingested(include_str!("../nsight/recorded/vllm_decode_ncu.csv")).unwrap();
    assert_eq!((launches.launches, launches.without_duration), (6, 0));
    let columns = ["start_ns", "end_ns", "short_name", "stream_id", "grid_x", "block_x"];
    insta::assert_snapshot!(text(&session, "kernels", &columns), @r"
    1000000 1004288 reshape_and_cache_flash_kernel 7 4 128
    1004288 1013888 device_kernel 7 132 256
    1013888 1017984 device_kernel 7 8 256
    1017984 1023968 nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT 7 4 384
    1023968 1027392 triton_per_fused_fused_add_rms_norm_0 7 4 32
    1027392 1037568 nvjet_sm90_tst_128x8_64x12_4x1_v_bz_TNT 7 4 384
    ");
}

/// What ncu 2025.3.1 printed on an H100.
#[test]
fn a_page_of_a_real_ncu_is_read() {
    let (session, launches, _fixture) = ingested(include_str!("../nsight/recorded/matmul_ncu.csv")).unwrap();
    assert_eq!((launches.launches, launches.without_duration), (2, 0));
    let columns = [
        "start_ns",
        "end_ns",
        "short_name",
        "grid_x",
        "block_x",
        "registers_per_thread",
        "dynamic_shared_bytes",
    ];
    insta::assert_snapshot!(text(&session, "kernels", &columns), @r"
    1000000 1016928 distribution_elementwise_grid_stride_kernel 1056 256 44 0
    1016928 1048448 nvjet_sm90_hsh_256x128_64x4_1x2_h_bz_coopA_NNT 2 384 168 213188
    ");
    let figures = text(
        &session,
        "kernel_counters",
        &["correlation_id", "metric", "value", "unit"],
    );
    let of_use: Vec<&str> = figures
        .lines()
        .filter(|line| line.contains("throughput.avg.pct_of_peak_sustained_elapsed"))
        .collect();
    insta::assert_snapshot!(of_use.join("\n"), @r"
    1 gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed 12.340 %
    1 gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed 0.020 %
    1 lts__throughput.avg.pct_of_peak_sustained_elapsed 16.210 %
    1 sm__throughput.avg.pct_of_peak_sustained_elapsed 63.630 %
    2 gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed 57.110 %
    2 gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed 7.970 %
    2 lts__throughput.avg.pct_of_peak_sustained_elapsed 33.320 %
    2 sm__throughput.avg.pct_of_peak_sustained_elapsed 73.310 %
    ");
}
