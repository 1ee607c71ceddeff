//! Belief steps and whole inferences of Gaussian models.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kasmina::information::ActiveInference;
use kasmina::information::active_inference::{GaussianModel, InferenceOptions};
use kasmina::types::DType;
use kasmina::{Device, Error};
use kasmina_benches::{Size, devices, numbers, time};
use ndarray::{Array1, Array2};

fn active_inference(criterion: &mut Criterion) {
    for (device, size) in devices() {
        // Models, observations, states; steps of a whole inference.
        let (shapes, steps): (&[[usize; 3]], usize) = match size {
            Size::Tiny => (&[[1, 16, 16]], 2),
            Size::Small => (&[[1, 256, 256], [16, 64, 64]], 100),
            Size::Large => (&[[1, 4096, 4096], [256, 64, 64]], 100),
        };
        for &shape in shapes {
            for jacobian in [DType::F64, DType::F32] {
                on(criterion, &device, shape, jacobian, steps).expect("the inferences run");
            }
        }
    }
}

/// A model whose curvature does not grow with its size.
fn model(observations: usize, states: usize) -> Result<GaussianModel, Error> {
    let scale = 1.0 / ((observations + states) as f64).sqrt();
    let jacobian: Vec<f64> =
        numbers(observations * states).map(|j| scale * (f64::from(j) - 0.5)).collect();
    let jacobian = Array2::from_shape_fn((observations, states), |(i, j)| jacobian[i * states + j]);
    let observation: Array1<f64> = numbers(observations).map(f64::from).collect();
    Ok(GaussianModel::builder(jacobian).observation(observation).build()?)
}

fn on(
    criterion: &mut Criterion,
    device: &Device,
    [models, observations, states]: [usize; 3],
    jacobian: DType,
    steps: usize,
) -> Result<(), Error> {
    let batch = vec![model(observations, states)?; models];
    let options = InferenceOptions { jacobian, ..InferenceOptions::default() };
    let mut inference = ActiveInference::new(device, &batch, options)?;

    let mut group = criterion.benchmark_group(format!("active_inference/{}", device.name()));
    let shape = format!("{models}x{observations}x{states}");
    let matrix = (models * observations * states * jacobian.size_bytes()) as u64;
    group.throughput(Throughput::Bytes(matrix));
    group.bench_function(BenchmarkId::new(format!("step {jacobian}"), &shape), |bencher| {
        bencher
            .iter_custom(|calls| time(device, calls, || inference.step()).expect("the step runs"));
    });
    group.throughput(Throughput::Bytes(steps as u64 * matrix));
    let name = format!("{steps} steps {jacobian}");
    group.bench_function(BenchmarkId::new(name, &shape), |bencher| {
        bencher.iter_custom(|calls| {
            time(device, calls, || inference.queue_inference(None, steps))
                .expect("the inference runs")
        });
    });
    group.finish();
    Ok(())
}

criterion_group! {
    name = benches;
    config = kasmina_benches::criterion();
    targets = active_inference
}
criterion_main!(benches);
