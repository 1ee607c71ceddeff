//! The layer's backward pass, a seed of every third grafting.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::{bf16, f16};
use kasmina::kasmina::{BlendBackward, GradientBuffers, LayerElement, LayerState, SeedStates};
use kasmina::types::{BlueprintType, SeedLifecycle};
use kasmina::{Buffer, Device, Error};
use kasmina_benches::{Size, devices, numbers, time};

fn blend_backward(criterion: &mut Criterion) {
    for (device, size) in devices() {
        let shape = match size {
            Size::Tiny => [8, 10, 64],
            Size::Small => [256, 100, 64],
            Size::Large => [4096, 1000, 64],
        };
        of::<f32>(criterion, &device, shape).expect("f32 runs");
        of::<f16>(criterion, &device, shape).expect("f16 runs");
        of::<bf16>(criterion, &device, shape).expect("bf16 runs");
    }
}

fn of<T: LayerElement>(
    criterion: &mut Criterion,
    device: &Device,
    [batch, seeds, chunk]: [usize; 3],
) -> Result<(), Error> {
    let elements = batch * seeds * chunk;
    let input: Vec<T> = numbers(elements).map(T::from_f32).collect();
    let input = Buffer::from_slice(device, &input)?;
    let gradient: Vec<T> = numbers(elements + 1).skip(1).map(T::from_f32).collect();
    let grad_output = Buffer::from_slice(device, &gradient)?;
    let mut grad_input = Buffer::zeroed(device, elements)?;
    let state = LayerState::new(device, states(seeds, chunk))?;
    let mut gradients = GradientBuffers::new(device, &state)?;
    let mut backward = BlendBackward::<T>::new(device, batch, seeds, chunk)?;

    let mut group = criterion.benchmark_group(format!("blend_backward/{}", device.name()));
    group.throughput(Throughput::Bytes((3 * elements * size_of::<T>()) as u64));
    let id = BenchmarkId::new(T::DTYPE.name(), format!("{batch}x{seeds}x{chunk}"));
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|calls| {
            time(device, calls, || {
                backward.run(&state, &input, &grad_output, &mut grad_input, &mut gradients)
            })
            .expect("the first call ran")
        });
    });
    group.finish();
    Ok(())
}

fn states(seeds: usize, chunk: usize) -> SeedStates {
    let state = |seed: usize| {
        if seed.is_multiple_of(3) { SeedLifecycle::Grafting } else { SeedLifecycle::Dormant }
    };
    let types: Vec<u8> = BlueprintType::ALL.iter().map(|&kind| kind as u8).collect();
    SeedStates {
        lifecycle: (0..seeds).map(|seed| state(seed) as u8).collect(),
        blueprint_id: (0..seeds).map(|seed| (1 + seed % 4) as u16).collect(),
        alpha: vec![0.5; seeds],
        blueprint_weights: numbers(types.len() * chunk).collect(),
        blueprint_scales: vec![1.0; types.len()],
        blueprint_type: types,
        chunk_size: chunk,
    }
}

criterion_group! {
    name = benches;
    config = kasmina_benches::criterion();
    targets = blend_backward
}
criterion_main!(benches);
