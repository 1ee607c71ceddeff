//! Transfer entropy between two series, with and without surrogates.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kasmina::information::TransferEntropy;
use kasmina::{Device, Error};
use kasmina_benches::{Size, devices, numbers, time};
use ndarray::Array1;

const SURROGATES: u32 = 19;

fn transfer_entropy(criterion: &mut Criterion) {
    for (device, size) in devices() {
        let samples = match size {
            Size::Tiny => 200,
            Size::Small => 1000,
            Size::Large => 10_000,
        };
        for surrogates in [0, SURROGATES] {
            on(criterion, &device, samples, surrogates).expect("the estimate runs");
        }
    }
}

fn on(
    criterion: &mut Criterion,
    device: &Device,
    samples: usize,
    surrogates: u32,
) -> Result<(), Error> {
    let all: Array1<f64> = numbers(2 * samples).map(f64::from).collect();
    let (source, noise) = all.view().split_at(ndarray::Axis(0), samples);
    // The target follows the source by a step.
    let target = Array1::from_shape_fn(samples, |t| {
        noise[t] + if t > 0 { 0.5 * source[t - 1] } else { 0.0 }
    });
    let options = TransferEntropy::new().surrogates(surrogates);
    let mut prepared = options.prepare(device, target.view(), source, &[])?;

    let mut group = criterion.benchmark_group(format!("transfer_entropy/{}", device.name()));
    group.throughput(Throughput::Elements(prepared.pairs_of_points()));
    let name = format!("{surrogates} surrogates");
    group.bench_function(BenchmarkId::new(name, samples), |bencher| {
        bencher.iter_custom(|calls| {
            time(device, calls, || prepared.run()).expect("the estimate runs")
        });
    });
    group.finish();
    Ok(())
}

criterion_group! {
    name = benches;
    config = kasmina_benches::criterion();
    targets = transfer_entropy
}
criterion_main!(benches);
