//! Products of a matrix and a vector, straight and transposed.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kasmina::linear::{Gemv, GemvShape};
use kasmina::{Buffer, Device, Error};
use kasmina_benches::{Size, devices, numbers, time};

fn gemv(criterion: &mut Criterion) {
    for (device, size) in devices() {
        let n = match size {
            Size::Tiny => 128,
            Size::Small => 1024,
            Size::Large => 16_384,
        };
        on(criterion, &device, n).expect("the products run");
    }
}

fn on(criterion: &mut Criterion, device: &Device, n: usize) -> Result<(), Error> {
    let values: Vec<f32> = numbers(n * n).collect();
    let matrix = Buffer::from_slice(device, &values)?;
    let x = Buffer::from_slice(device, &values[..n])?;
    let mut y = Buffer::<f32>::zeroed(device, n)?;
    let mut group = criterion.benchmark_group(format!("gemv/{}", device.name()));
    group.throughput(Throughput::Bytes((n * n * size_of::<f32>()) as u64));
    let straight = GemvShape::new(n, n);
    for (name, shape) in [("f32", straight), ("f32 transposed", straight.transposed())] {
        let mut gemv = Gemv::new(device, shape)?;
        let mut run = || gemv.run(1.0, &matrix, &x, 0.0, &mut y);
        group.bench_function(BenchmarkId::new(name, n), |bencher| {
            bencher.iter_custom(|calls| time(device, calls, &mut run).expect("the product runs"));
        });
    }
    group.finish();
    Ok(())
}

criterion_group! {
    name = benches;
    config = kasmina_benches::criterion();
    targets = gemv
}
criterion_main!(benches);
