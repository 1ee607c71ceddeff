//! The comparisons of the executor's tests on a GPU, on larger shapes. Where there is no GPU they are
//! reported as ignored; with `KASMINA_REQUIRE_GPU=1` they fail instead.

use half::{bf16, f16};
use kasmina::Device;
use kasmina_tests::kasmina::blend_forward::{self as blend, Case};
use kasmina_tests::reduction::reduce::{self, Cut};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let required = std::env::var("KASMINA_REQUIRE_GPU").is_ok_and(|value| value == "1");
    let device = Device::cuda(0).map_err(|why| why.to_string());
    let trial = |name: &str, run: fn(&Device)| {
        let device = device.clone();
        let ignored = device.is_err() && !required;
        Trial::test(name, move || {
            let device = device.map_err(Failed::from)?;
            run(&device);
            Ok(())
        })
        .with_ignored_flag(ignored)
    };
    let trials = vec![
        trial("blend_forward::ragged_shapes", blend_ragged_shapes),
        trial("blend_forward::chunk_sizes_at_the_edges", blend_chunk_sizes),
        trial("blend_forward::large", blend_large),
        trial("reduce::whole", reduce_whole),
        trial("reduce::ragged_segments", reduce_segments),
        trial("reduce::rows", reduce_rows),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn blend_every_dtype(device: &Device, case: Case) {
    blend::check::<f32>(device, case);
    blend::check::<f16>(device, case);
    blend::check::<bf16>(device, case);
}

fn blend_ragged_shapes(device: &Device) {
    let mut numbers = kasmina_tests::Numbers::new(2024);
    for seed in 0..40 {
        let case = Case {
            batch: 1 + numbers.below(300),
            num_seeds: 1 + numbers.below(40),
            chunk_size: 1 + numbers.below(300),
            seed,
            broken_inputs: seed % 3 == 0,
        };
        blend_every_dtype(device, case);
    }
}

fn blend_chunk_sizes(device: &Device) {
    for chunk_size in [1, 2, 3, 4, 8, 255, 256, 257, 1023, 1024, 1028, 2052, 4999, 5000] {
        let case = Case { batch: 37, num_seeds: 13, chunk_size, seed: 5, broken_inputs: true };
        blend_every_dtype(device, case);
    }
}

fn blend_large(device: &Device) {
    let case = Case { batch: 4096, num_seeds: 100, chunk_size: 64, seed: 9, broken_inputs: false };
    blend_every_dtype(device, case);
    blend_every_dtype(device, Case { batch: 1001, num_seeds: 3, chunk_size: 4096, ..case });
    blend_every_dtype(device, Case { batch: 1, num_seeds: 1000, ..case });
}

fn reduce_every_dtype(device: &Device, case: &reduce::Case) {
    reduce::check::<f32>(device, case);
    reduce::check::<f16>(device, case);
    reduce::check::<bf16>(device, case);
    reduce::check::<f64>(device, case);
    reduce::check::<i32>(device, case);
}

fn reduce_whole(device: &Device) {
    for (len, nan) in
        [(0, false), (1, false), (31, true), (1000, false), (1_000_003, true), (5_000_001, false)]
    {
        let case = reduce::Case { len, cut: Cut::Whole, seed: len as u64, nan };
        reduce_every_dtype(device, &case);
    }
}

fn reduce_segments(device: &Device) {
    let mut numbers = kasmina_tests::Numbers::new(7);
    for (len, places) in [(5000, 300), (400_000, 40), (3_000_000, 5), (100, 2000)] {
        let cut = Cut::At((0..places).map(|_| numbers.below(len + 1)).collect());
        reduce_every_dtype(device, &reduce::Case { len, cut, seed: 3, nan: true });
    }
}

fn reduce_rows(device: &Device) {
    for (rows, columns) in [(1000, 3), (77, 1001), (5, 300_001), (3000, 64)] {
        let case =
            reduce::Case { len: rows * columns, cut: Cut::Rows(columns), seed: 1, nan: false };
        reduce_every_dtype(device, &case);
    }
}
