//! GELU fused with layer norm, forward and backward.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::{bf16, f16};
use kasmina::kasmina::LayerElement;
use kasmina::normalization::{
    Activation, ActivationNorm, ActivationNormOptions, NormGradients, NormStatistics,
};
use kasmina::{Buffer, Device, Error};
use kasmina_benches::{Size, devices, numbers, time};

fn activation_norm(criterion: &mut Criterion) {
    for (device, size) in devices() {
        let shape = match size {
            Size::Tiny => [8, 640],
            Size::Small => [256, 1024],
            Size::Large => [16_384, 4096],
        };
        of::<f32>(criterion, &device, shape).expect("f32 runs");
        of::<f16>(criterion, &device, shape).expect("f16 runs");
        of::<bf16>(criterion, &device, shape).expect("bf16 runs");
    }
}

fn of<T: LayerElement>(
    criterion: &mut Criterion,
    device: &Device,
    [rows, cols]: [usize; 2],
) -> Result<(), Error> {
    let elements = rows * cols;
    let values: Vec<T> = numbers(elements).map(T::from_f32).collect();
    let x = Buffer::from_slice(device, &values)?;
    let gamma = Buffer::from_slice(device, &numbers(cols).collect::<Vec<_>>())?;
    let beta = Buffer::from_slice(device, &numbers(cols).collect::<Vec<_>>())?;
    let options = ActivationNormOptions { activation: Activation::GeluErf, ..Default::default() };
    let mut norm = ActivationNorm::<T>::new(device, rows, cols, options)?;
    let mut statistics = NormStatistics::new(device, rows)?;
    let mut gradients = NormGradients::new(device, cols, true, true)?;
    let (mut y, mut grad_input) =
        (Buffer::zeroed(device, elements)?, Buffer::zeroed(device, elements)?);
    let (gamma, beta) = (Some(&gamma), Some(&beta));

    let mut group = criterion.benchmark_group(format!("activation_norm/{}", device.name()));
    let shape = format!("{rows}x{cols}");
    group.throughput(Throughput::Bytes((2 * elements * size_of::<T>()) as u64));
    group.bench_function(BenchmarkId::new(format!("forward {}", T::DTYPE), &shape), |bencher| {
        bencher.iter_custom(|calls| {
            time(device, calls, || norm.forward(&x, gamma, beta, &mut y, &mut statistics))
                .expect("the forward pass runs")
        });
    });
    // The forward pass above may have been filtered out.
    norm.forward(&x, gamma, beta, &mut y, &mut statistics)?;
    group.throughput(Throughput::Bytes((3 * elements * size_of::<T>()) as u64));
    group.bench_function(BenchmarkId::new(format!("backward {}", T::DTYPE), &shape), |bencher| {
        bencher.iter_custom(|calls| {
            time(device, calls, || {
                norm.backward(&x, &y, gamma, beta, &statistics, &mut grad_input, &mut gradients)
            })
            .expect("the backward pass runs")
        });
    });
    group.finish();
    Ok(())
}

criterion_group! {
    name = benches;
    config = kasmina_benches::criterion();
    targets = activation_norm
}
criterion_main!(benches);
