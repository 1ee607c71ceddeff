//! Reductions of a whole array, and of rows.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kasmina::reduction::{Reduce, Segments};
use kasmina::{Buffer, Device, Error};
use kasmina_benches::{Size, devices, numbers, time};

const COLUMNS: usize = 1024;

fn reduce(criterion: &mut Criterion) {
    for (device, size) in devices() {
        let elements = match size {
            Size::Tiny => 1 << 14,
            Size::Small => 1 << 20,
            Size::Large => 1 << 28,
        };
        on(criterion, &device, elements).expect("the reductions run");
    }
}

fn on(criterion: &mut Criterion, device: &Device, elements: usize) -> Result<(), Error> {
    let values: Vec<f32> = numbers(elements).collect();
    let values = Buffer::from_slice(device, &values)?;
    let mut whole = Buffer::<f32>::zeroed(device, 1)?;
    let mut rows = Buffer::<f32>::zeroed(device, elements / COLUMNS)?;
    let reduce = Reduce::new(device);

    let mut group = criterion.benchmark_group(format!("reduce/{}", device.name()));
    group.throughput(Throughput::Bytes((elements * size_of::<f32>()) as u64));
    let mut bench = |name: &str, run: &mut dyn FnMut() -> Result<(), Error>| {
        group.bench_function(BenchmarkId::new(name, elements), |bencher| {
            bencher
                .iter_custom(|calls| time(device, calls, &mut *run).expect("the reduction runs"));
        });
    };
    bench("sum f32 whole", &mut || reduce.sum_into(&values, &Segments::Whole, &mut whole));
    bench("max f32 whole", &mut || reduce.max_into(&values, &Segments::Whole, &mut whole));
    bench("variance f32 whole", &mut || {
        reduce.variance_into(&values, &Segments::Whole, &mut whole)
    });
    bench("sum f32 rows", &mut || reduce.sum_into(&values, &Segments::Rows(COLUMNS), &mut rows));
    group.finish();
    Ok(())
}

criterion_group! {
    name = benches;
    config = kasmina_benches::criterion();
    targets = reduce
}
criterion_main!(benches);
