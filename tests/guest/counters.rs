//! Hardware counters: samples of the stand-in's GPU against what it is known to have done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use nix::sys::signal::Signal;
use sim_abi::truth::{DRAM_BYTES_PER_NS, Truth};

use colonel::schema::manifest::{ProcessState, Sampled};

use crate::hosts::host;
use crate::run::{Ended, Setup, decode, stand_ins};
use crate::session::Session;

const US: i128 = 1_000;

const LINE: &str = "--steps 60 --kernels 40 --graph --step-us 3000";

fn workload() -> Setup {
    decode(LINE).options("--counters=full --counters-interval 100us")
}

/// Start and end of each sample, in order; every metric has the same ones.
#[track_caller]
fn samples(session: &Session) -> Vec<(i128, i128)> {
    let rows = session.table("counters");
    let times = rows.all("start_ns").into_iter().zip(rows.all("end_ns"));
    let mut by_metric = BTreeMap::<String, Vec<(i128, i128)>>::new();
    for (metric, time) in rows.texts("metric").into_iter().zip(times) {
        by_metric.entry(metric).or_default().push(time);
    }
    let mut all: BTreeSet<Vec<(i128, i128)>> = by_metric.into_values().collect();
    let samples = all.pop_first().unwrap_or_default();
    assert!(all.is_empty(), "metrics have different samples");
    samples
}

/// Sum of a metric over all samples.
fn sum(session: &Session, metric: &str) -> f64 {
    let rows = session.table("counters");
    let of_metric = rows.texts("metric").into_iter().zip(rows.floats("value"));
    of_metric
        .filter(|(name, _)| name == metric)
        .filter_map(|(_, value)| value)
        .sum()
}

#[track_caller]
fn sampled(session: &Session) -> Sampled {
    let mut devices = session.process().counters;
    assert_eq!(devices.len(), 1, "{devices:?}");
    devices.remove(0)
}

/// The program and its records are what they are without counters, and the session says why there are none.
#[track_caller]
fn assert_said(ended: Ended, code: &str, parts: &[&str]) {
    let ended = ended.assert_code(0);
    let session = ended.session();
    assert_eq!(session.count("kernels"), ended.count().kernels);
    assert_eq!(session.count("counters"), 0);
    assert!(!session.path().join("samples").exists());
    let message = session.problem(code);
    for part in parts.iter().chain(&["the rest of the capture goes on"]) {
        assert!(message.contains(part), "no `{part}` in {message}");
    }
    assert!(ended.stderr().contains(&message), "{}", ended.stderr());
}

#[test]
fn samples_follow_each_other_and_add_up_to_what_the_kernels_did() {
    let ended = workload().run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    let samples = samples(&session);
    assert!(samples.iter().all(|(start, end)| end - start == 100 * US));
    assert!(samples.windows(2).all(|pair| pair[0].1 == pair[1].0), "a gap");

    let (first, last) = (samples[0].0, samples.last().unwrap().1);
    let kernels = session.table("kernels");
    let times = kernels.all("start_ns").into_iter().zip(kernels.all("end_ns"));
    let read: f64 = kernels
        .texts("mangled_name")
        .iter()
        .zip(times)
        .map(|(name, (start, end))| {
            let seen = (end.min(last) - start.max(first)).max(0) as f64;
            Truth::of_kernel(name).dram_read_pct / 100.0 * DRAM_BYTES_PER_NS * seen
        })
        .sum();
    let copies = session.table("memcpys").len() + session.table("memsets").len();
    let counted = sum(&session, "dram_read_bytes");
    assert!(counted > read, "{counted} bytes, of which kernels read {read}");
    // What copies and fills read, of some microseconds each.
    let of_copies = copies as f64 * 0.3 * DRAM_BYTES_PER_NS * 5e3;
    assert!(
        counted < read * 1.01 + of_copies,
        "{counted} bytes, of which kernels read {read}"
    );

    let device = sampled(&session);
    assert_eq!((device.chip.as_str(), device.interval_ns), ("GH100", 100_000));
    assert!(device.left_out.contains(&"nvlink_sent_bytes".to_owned()), "{device:?}");
    let evaluation = session.manifest().evaluation.unwrap();
    assert_eq!(evaluation.samples, samples.len() as u64);
    assert_eq!(evaluation.samples + evaluation.left_out, device.samples);
    assert!(!session.path().join("samples").exists(), "raw data are left");
}

/// What `colonel show --counters` says of each kernel, against what gpu-sim's GPU does while it runs.
#[test]
fn kernels_have_figures_that_hold_what_the_gpu_did() {
    let line = "--steps 400 --kernels 40 --graph --step-us 2000";
    let ended = decode(line).options("--counters").run().assert_code(0);
    let said = ended.colonel("show --counters --json");
    assert_eq!(said.code, Some(0), "{said:?}");
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let device = &json["speed_of_light"][0];
    let kernels = device["kernels"].as_array().unwrap();
    let mangled = mangled_names(&ended.session());
    let (mut told, mut held, mut error) = (0, 0, 0.0);
    for kernel in kernels {
        let truth = Truth::of_kernel(&mangled[kernel["name"].as_str().unwrap()]);
        let of_metric = |metric: &str| {
            let figures = kernel["figures"].as_array().unwrap().iter();
            figures
                .clone()
                .find(|figure| figure["metric"] == metric)
                .cloned()
                .unwrap()
        };
        for (metric, truth) in [
            ("dram_read_throughput", truth.dram_read_pct),
            ("dram_throughput", truth.dram_read_pct + truth.dram_write_pct),
            ("tensor_active", truth.tensor_pct),
            ("sm_active", truth.active_pct),
        ] {
            let figure = of_metric(metric);
            if let Some(value) = figure["value"].as_f64() {
                let bound = |name: &str| figure[name].as_f64().unwrap();
                told += 1;
                // A rounded count is off by a hair.
                held += i32::from(bound("low") <= truth + 0.01 && truth <= bound("high") + 0.01);
                error += (value - truth).abs();
            }
        }
    }
    assert!(
        told >= 2 * kernels.len(),
        "{told} figures of {} kernels: {device}",
        kernels.len()
    );
    assert!(f64::from(held) >= 0.85 * told as f64, "{held} of {told}: {device}");
    assert!(error / told as f64 <= 3.0, "{error} over {told}: {device}");
    let text = ended.colonel("show --counters").stdout;
    assert!(
        text.contains("speed of light by kernel") && text.contains("by layer"),
        "{text}"
    );
}

/// Of each demangled name.
fn mangled_names(session: &Session) -> BTreeMap<String, String> {
    let rows = session.table("kernels");
    rows.texts("name").into_iter().zip(rows.texts("mangled_name")).collect()
}

#[test]
fn counters_alone_take_no_record_and_never_subscribe() {
    let setup = workload().options("--mode counters");
    let calls = setup.path().join("calls");
    let ended = setup.env("COLONEL_SIM_CALLS", &calls).run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.count("kernels"), 0);
    assert!(samples(&session).len() > 500);
    assert_eq!((session.count("windows"), session.count("devices")), (1, 1));
    let process = session.process();
    assert_eq!((process.state, process.attached_ns), (ProcessState::Ended, None));
    assert!(process.windows[0].sealed_ns.is_some() && process.cupti.is_some());
    let calls = fs::read_to_string(calls).unwrap();
    let others = [
        "cuptiProfiler",
        "cuptiPmSampling",
        "cuptiDeviceGetChipName",
        "cuptiGetVersion",
        "cuptiGetTimestamp",
    ];
    let called = calls.lines().filter_map(|line| line.split(' ').nth(1));
    let strange: Vec<&str> = called
        .filter(|call| !others.iter().any(|other| call.starts_with(other)))
        .collect();
    assert_eq!(strange, [""; 0]);
}

#[test]
fn samples_lie_in_the_windows_and_have_their_numbers() {
    let line = "--steps 30 --kernels 24 --graph --windows 3 --outside 20 --step-us 3000";
    let ended = decode(line).options("--gate profiler --counters=dram,tensor_active --counters-interval 50us");
    let ended = ended.run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    let rows = session.table("counters");
    let metrics: BTreeSet<String> = rows.texts("metric").into_iter().collect();
    assert!(
        metrics.contains("tensor_active") && metrics.contains("dram_throughput"),
        "{metrics:?}"
    );
    assert!(!metrics.contains("sm_active"), "{metrics:?}");
    assert_eq!(rows.tally("window").len(), 3);
    let windows = session.process().windows;
    let starts = rows.all("start_ns").into_iter().zip(rows.all("end_ns"));
    for ((start, end), number) in starts.zip(rows.all("window")) {
        let window = &windows[usize::try_from(number - 1).unwrap()];
        let middle = i64::try_from((start + end) / 2).unwrap();
        assert!(
            window.start_ns <= middle && middle < window.end_ns.unwrap(),
            "{window:?} {middle}"
        );
        assert_eq!(end - start, 50 * US);
    }
}

#[test]
fn without_permission_the_rest_of_the_capture_goes_on() {
    let parts = ["administrators", "NVreg_RestrictProfilingToAdminUsers=0"];
    assert_said(
        workload().fault("counters=35").run(),
        "counters_need_permission",
        &parts,
    );
}

#[test]
fn busy_hardware_is_said() {
    for code in ["26", "7"] {
        let ended = workload().fault(&format!("counters={code}")).run();
        assert_said(
            ended,
            "counters_busy",
            &["another client holds the hardware counters", "dcgmi"],
        );
    }
}

#[test]
fn a_chip_or_a_cupti_without_counters_is_said() {
    let unknown = workload().fault("unknown-chip").run();
    assert_said(unknown, "counters_unknown_chip", &["does not know the chip"]);
    let old = workload().cupti("12.4").run();
    assert_said(old, "counters_need_newer_cupti", &["CUPTI API version 22", "12.6"]);
    let none = decode(LINE)
        .options("--counters=sm__throughput.avg.pct_of_peak_sustained_elapsed")
        .run();
    assert_said(none, "counters_unknown_chip", &["in one pass", "GH100"]);
}

#[test]
fn without_libnvperf_the_rest_of_the_capture_goes_on() {
    let setup = workload();
    let libraries = stand_ins(setup.path());
    let ended = setup
        .libraries(&libraries)
        .env("COLONEL_CUPTI", libraries.join("libcupti.so.13"))
        .run();
    assert_said(ended, "counters_need_nvperf", &["libnvperf_host.so"]);
}

#[test]
fn a_process_that_works_in_contexts_of_its_own_is_said() {
    let ended = host("contexts.c", "--counters").run().assert_code(5);
    let session = ended.session();
    assert_eq!((session.count("kernels"), session.count("counters")), (9, 0));
    assert!(session.problem("counters_no_context").contains("cuCtxCreate"));
}

#[test]
fn what_the_hardware_had_no_room_for_is_counted_and_the_interval_grows() {
    let ended = workload().fault("counters-room=25").run().assert_code(0);
    let session = ended.session();
    assert_eq!(session.count("kernels"), ended.count().kernels);
    let device = sampled(&session);
    assert!(device.interval_ns > 100_000 && device.lost_samples > 0, "{device:?}");
    assert!(session.problem("counters_slowed_down").contains("from 100 us"));
    let lost = session.lost("counters", "hardware_buffer_full");
    assert_eq!(lost, device.lost_samples * device.metrics.len() as u64);
    // A sample that is there and one that is lost is each of a stretch of time of its own.
    let samples = samples(&session);
    assert!(samples.windows(2).all(|pair| pair[0].1 <= pair[1].0), "an overlap");
}

/// An H100 gave CUPTI_ERROR_UNKNOWN as sampling was started again.
#[test]
fn a_device_that_does_not_start_again_is_taken_anew() {
    let setup = workload().fault("counters-room=25,counters-restarts=1");
    let ended = setup.run().assert_code(0);
    let session = ended.session();
    assert_eq!(session.count("kernels"), ended.count().kernels);
    let device = sampled(&session);
    assert!(device.interval_ns > 100_000 && device.lost_samples > 0, "{device:?}");
    assert!(session.problem("counters_slowed_down").contains("from 100 us"));
    // The last lengthening may come too late for samples of its own.
    let lengths: BTreeSet<i128> = samples(&session).iter().map(|(start, end)| end - start).collect();
    assert!(lengths.len() > 1, "{lengths:?}");
    assert!(
        *lengths.last().unwrap() <= i128::from(device.interval_ns),
        "{lengths:?}"
    );
}

#[test]
fn where_sampling_never_starts_again_what_came_before_is_kept() {
    let setup = workload().fault("counters-room=25,counters-starts=1");
    let ended = setup.run().assert_code(0);
    let session = ended.session();
    assert_eq!(session.count("kernels"), ended.count().kernels);
    let message = session.problem("counters_failed");
    assert!(message.contains("CUPTI_ERROR_UNKNOWN (999)"), "{message}");
    assert!(message.contains("the rest of the capture goes on"), "{message}");
    assert!(!samples(&session).is_empty());
}

#[test]
fn a_chip_without_a_timer_is_sampled_by_its_clock() {
    let ended = workload().fault("no-time-trigger").run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    let samples = samples(&session);
    assert!(samples.len() > 500);
    assert!(samples.iter().all(|(start, end)| end - start == 80 * US));
}

/// Taking a GPU took 0.6 s on the H100, and what ended meanwhile was torn down under our calls.
#[test]
fn a_program_that_ends_while_its_gpu_is_being_taken_ends_well() {
    let setup = decode("--steps 5 --kernels 8").options("--counters");
    let ended = setup.fault("slow-counters=600").run().assert_code(0);
    assert_eq!(ended.session().count("kernels"), ended.count().kernels);
}

#[test]
fn a_killed_process_leaves_the_samples_that_were_fetched() {
    let mut running = decode("--steps 1000000 --kernels 24 --graph --step-us 4000")
        .options("--counters")
        .start();
    let process = running.process("it samples", |process| {
        process.counters.iter().any(|device| device.samples > 0)
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    let killed_ns = i128::from(colonel::session::now_ns());
    running.signal(process.pid, Signal::SIGKILL);
    let ended = running.end().assert_code(137);
    let session = ended.session();
    let last = samples(&session).last().unwrap().1;
    // Stored every 100 ms; the rest is for a busy machine.
    assert!(
        killed_ns - last < 400_000 * US,
        "the last sample is {} ns old",
        killed_ns - last
    );
}

#[test]
fn each_forked_worker_samples_the_device_that_it_works_on() {
    let setup = decode("--steps 40 --kernels 24 --graph --step-us 3000 --fork").options("--counters");
    let ended = setup.run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    assert!(samples(&session).len() > 500);
    assert_eq!(sampled(&session).device_id, 0);
}

#[test]
fn what_a_run_leaves_undone_is_done_later() {
    let ended = workload().options("--no-analyze").run().assert_code(0);
    let session = ended.session();
    assert_eq!(session.count("counters"), 0);
    let said = ended.colonel("counters evaluate --keep-samples");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(samples(&session).len() > 500);
    assert_eq!(session.manifest().rows["counters"], session.count("counters"));
    let again = ended.colonel("counters evaluate");
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("has no raw samples"), "{again:?}");
}

#[test]
fn samples_of_a_killed_launcher_are_evaluated_later() {
    let mut running = decode("--steps 1000000 --kernels 24 --graph --step-us 4000")
        .options("--counters")
        .start();
    let process = running.process("it samples", |process| {
        process.counters.iter().any(|device| device.samples > 0)
    });
    running.kill_leader();
    let still = running.colonel("counters evaluate");
    assert_eq!(still.code, Some(1), "{still:?}");
    assert!(still.stderr.contains("still runs"), "{still:?}");
    running.signal(process.pid, Signal::SIGKILL);
    running.until("it is gone", |running| {
        let said = running.colonel("counters evaluate");
        (said.code == Some(0)).then_some(())
    });
    assert!(samples(&running.session()).len() > 500);
}
