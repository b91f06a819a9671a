//! Speed of the capture path on one core: records a second through decode, tables and Parquet, and bytes a kernel.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use colonel::inject::pipeline::{Pipeline, graph_buffers};

/// One segment's worth: two seconds of a fast decode loop.
const KERNELS: usize = 1_000_000;
const NODES: usize = 336;
const API_VERSION: u32 = 130_001;

fn pipeline(criterion: &mut Criterion) {
    let buffers = graph_buffers(API_VERSION, NODES, KERNELS);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut filled = Pipeline::new(folder.path(), API_VERSION);
    buffers.iter().for_each(|buffer| filled.take(buffer));
    assert_eq!(filled.kernels(), KERNELS);
    filled.seal().expect("the segment is written");
    let bytes = std::fs::metadata(folder.path().join("kernels/1-1/000001.parquet"))
        .expect("sealed")
        .len();
    println!("bytes a kernel on disk: {:.2}", bytes as f64 / KERNELS as f64);

    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(KERNELS as u64)).sample_size(10);
    group.bench_function("decode to tables", |bencher| {
        let mut pipeline = Pipeline::new(folder.path(), API_VERSION);
        bencher.iter(|| {
            buffers.iter().for_each(|buffer| pipeline.take(buffer));
            pipeline.clear();
        });
    });
    group.bench_function("tables to Parquet", |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut pipeline = Pipeline::new(folder.path(), API_VERSION);
                buffers.iter().for_each(|buffer| pipeline.take(buffer));
                pipeline
            },
            |pipeline| pipeline.seal().expect("the segment is written"),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("decode, tables and Parquet", |bencher| {
        let mut pipeline = Pipeline::new(folder.path(), API_VERSION);
        bencher.iter(|| {
            buffers.iter().for_each(|buffer| pipeline.take(buffer));
            pipeline.seal().expect("the segment is written");
        });
    });
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
