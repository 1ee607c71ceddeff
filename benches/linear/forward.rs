//! A product of matrices with bias and GELU, and its gradients.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::{bf16, f16};
use kasmina::linear::{
    Activation, Layout, Linear, LinearGradients, LinearOptions, LinearResult, LinearShape, Operands,
};
use kasmina::{Buffer, Device, Error};
use kasmina_benches::{Size, devices, numbers, time};

fn linear(criterion: &mut Criterion) {
    for (device, size) in devices() {
        let edge = match size {
            Size::Tiny => 32,
            Size::Small => 256,
            Size::Large => 4096,
        };
        of::<f32>(criterion, &device, edge).expect("f32 runs");
        of::<f16>(criterion, &device, edge).expect("f16 runs");
        of::<bf16>(criterion, &device, edge).expect("bf16 runs");
    }
}

fn of<T: LinearResult>(
    criterion: &mut Criterion,
    device: &Device,
    edge: usize,
) -> Result<(), Error> {
    let values: Vec<T> = numbers(edge * edge).map(|v| T::nearest(v.into())).collect();
    let (a, b) = (Buffer::from_slice(device, &values)?, Buffer::from_slice(device, &values)?);
    let bias = Buffer::from_slice(device, &values[..edge])?;
    let zeros = || Buffer::<T>::zeroed(device, edge * edge);
    let (mut d, mut z) = (zeros()?, zeros()?);
    let options = LinearOptions { activation: Activation::GeluErf, ..Default::default() };
    let linear = Linear::new(device, options)?;
    let shape = LinearShape::new(Layout::NT, edge, edge, edge);
    let operands = Operands { bias: Some(&bias), ..Operands::new(&a, &b) };
    linear.forward(&shape, &operands, &mut d, Some(&mut z))?;

    let mut group = criterion.benchmark_group(format!("linear/{}", device.name()));
    // Operations, not elements.
    let operations = 2 * (edge as u64).pow(3);
    group.throughput(Throughput::Elements(operations));
    group.bench_function(BenchmarkId::new(format!("forward {}", T::DTYPE), edge), |bencher| {
        bencher.iter_custom(|calls| {
            time(device, calls, || linear.forward(&shape, &operands, &mut d, None).map(drop))
                .expect("the forward pass runs")
        });
    });
    let grad_output = zeros()?;
    let (mut of_z, mut of_a, mut of_b) = (zeros()?, zeros()?, zeros()?);
    let mut of_bias = Buffer::<T>::zeroed(device, edge)?;
    group.throughput(Throughput::Elements(2 * operations));
    group.bench_function(BenchmarkId::new(format!("backward {}", T::DTYPE), edge), |bencher| {
        bencher.iter_custom(|calls| {
            time(device, calls, || {
                let gradients = LinearGradients {
                    z: Some(&mut of_z),
                    a: Some(&mut of_a),
                    b: Some(&mut of_b),
                    bias: Some(&mut of_bias),
                };
                linear.backward(&shape, (&a, &b), Some(&z), &grad_output, gradients)
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
    targets = linear
}
criterion_main!(benches);
