//! The driver layer on a GPU.
//!
//! Without one each case is reported as ignored; with `KASMINA_REQUIRE_GPU=1` it fails instead.

use std::sync::atomic::Ordering;

use kasmina::driver::{
    CudaBuffer, CudaDevice, DriverError, Event, Function, Graph, Interleave, L2Promotion,
    LaunchConfig, MappedBuffer, MemoryPool, Module, OutOfBoundsFill, PinnedBuffer, Stream, Swizzle,
    TensorDataType, TensorMap, TensorMapSpec, launch,
};
use libtest_mimic::{Arguments, Failed, Trial};

/// `scale` multiplies element `i` of `{ u64 values; u32 len; f32 factor }`; `reverse_block` reverses each block's
/// elements of the same parameters through dynamic shared memory; `answer` adds one to the word at `{ u64 word }`.
const PTX: &str = r#"
.version 6.0
.target sm_70
.address_size 64

.extern .shared .align 16 .b8 staging[];

.visible .entry scale(.param .align 8 .b8 p[16])
{
    .reg .pred %past;
    .reg .b32 %r<6>;
    .reg .f32 %f<3>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [p];
    ld.param.u32 %r1, [p+8];
    ld.param.f32 %f1, [p+12];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %past, %r5, %r1;
    @%past bra DONE;
    mul.wide.u32 %rd2, %r5, 4;
    add.u64 %rd3, %rd1, %rd2;
    ld.global.f32 %f2, [%rd3];
    mul.f32 %f2, %f2, %f1;
    st.global.f32 [%rd3], %f2;
DONE:
    ret;
}

.visible .entry reverse_block(.param .align 8 .b8 p[16])
{
    .reg .b32 %r<10>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [p];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.u32 %r4, %r1, %r2, %r3;
    mul.wide.u32 %rd2, %r4, 4;
    add.u64 %rd3, %rd1, %rd2;
    ld.global.u32 %r5, [%rd3];
    mov.u32 %r6, staging;
    mad.lo.u32 %r7, %r3, 4, %r6;
    st.shared.u32 [%r7], %r5;
    bar.sync 0;
    sub.u32 %r8, %r2, %r3;
    sub.u32 %r8, %r8, 1;
    mad.lo.u32 %r9, %r8, 4, %r6;
    ld.shared.u32 %r5, [%r9];
    st.global.u32 [%rd3], %r5;
    ret;
}

.visible .entry answer(.param .align 8 .b8 p[8])
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [p];
    ld.volatile.global.u32 %r1, [%rd1];
    add.u32 %r1, %r1, 1;
    st.volatile.global.u32 [%rd1], %r1;
    ret;
}
"#;

/// `cluster_size` writes the blocks of its cluster to element `ctaid.x` of `{ u64 sizes }`.
const CLUSTER_PTX: &str = r#"
.version 7.8
.target sm_90
.address_size 64

.visible .entry cluster_size(.param .align 8 .b8 p[8])
{
    .reg .b32 %r<3>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [p];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %cluster_nctarank;
    mul.wide.u32 %rd2, %r1, 4;
    add.u64 %rd3, %rd1, %rd2;
    st.global.u32 [%rd3], %r2;
    ret;
}
"#;

#[derive(Clone, Copy)]
#[repr(C)]
struct ScaleParams {
    values: u64,
    len: u32,
    factor: f32,
}

type Case = fn(&Gpu) -> Result<(), Failed>;

const CASES: [(&str, Case); 18] = [
    ("copies_in_and_out", copies_in_and_out),
    ("copies_refuse_other_lengths", copies_refuse_other_lengths),
    ("fills_and_device_copies", fills_and_device_copies),
    ("empty_buffers", empty_buffers),
    ("pinned_copies_give_the_buffer_back", pinned_copies_give_the_buffer_back),
    ("mapped_memory_is_shared_with_a_kernel", mapped_memory_is_shared_with_a_kernel),
    ("streams_are_ordered_by_homes", streams_are_ordered_by_homes),
    ("events_time_and_order", events_time_and_order),
    ("the_pool_reuses_and_counts", the_pool_reuses_and_counts),
    ("a_graph_replays_and_keeps_its_buffers", a_graph_replays_and_keeps_its_buffers),
    ("a_failed_capture_leaves_the_stream_usable", a_failed_capture_leaves_the_stream_usable),
    ("context_wide_waits_spare_a_capture", context_wide_waits_spare_a_capture),
    ("dynamic_shared_memory_above_48_kib", dynamic_shared_memory_above_48_kib),
    ("attributes_and_occupancy", attributes_and_occupancy),
    ("module_errors_carry_the_compilers_log", module_errors_carry_the_compilers_log),
    ("launch_limits", launch_limits),
    ("a_cluster_launch", a_cluster_launch),
    ("a_tensor_map", a_tensor_map),
];

fn main() {
    let arguments = Arguments::from_args();
    let required = std::env::var("KASMINA_REQUIRE_GPU").is_ok_and(|value| value == "1");
    let missing = CudaDevice::enumerate().err();
    if let Some(missing) = &missing {
        eprintln!("no GPU for these tests: {missing}");
    }
    let ignored = missing.is_some() && !required;
    let trials = CASES.map(|(name, case)| {
        Trial::test(name, move || case(&Gpu::open()?)).with_ignored_flag(ignored)
    });
    libtest_mimic::run(&arguments, trials.into()).exit();
}

/// What each case begins with.
struct Gpu {
    device: CudaDevice,
    stream: Stream,
    module: Module,
}

impl Gpu {
    fn open() -> Result<Self, DriverError> {
        let device = CudaDevice::new(0)?;
        let (stream, module) = (Stream::new(&device)?, Module::load(&device, "driver_gpu", PTX)?);
        Ok(Self { device, stream, module })
    }

    fn ramp(&self, len: usize) -> Result<CudaBuffer<f32>, DriverError> {
        CudaBuffer::from_slice(&self.stream, &ramp(len))
    }

    fn scale(
        &self,
        values: &mut CudaBuffer<f32>,
        factor: f32,
        stream: &Stream,
    ) -> Result<(), DriverError> {
        let config = LaunchConfig::linear(values.len().div_ceil(128) as u32, 128);
        let params =
            ScaleParams { values: values.device_address(), len: values.len() as u32, factor };
        values.acquire(stream)?;
        // SAFETY: `scale` takes `ScaleParams`, touches `len` elements only, and the buffer is ordered with the stream.
        unsafe { launch(&self.module.function("scale")?, config, stream, &params) }?;
        values.release(stream)
    }
}

fn ramp(len: usize) -> Vec<f32> {
    (0..len).map(|i| i as f32).collect()
}

fn ensure(holds: bool, what: impl std::fmt::Display) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what.to_string().into()) }
}

fn equal<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Result<(), Failed> {
    ensure(got == expected, format_args!("got {got:?}, expected {expected:?}"))
}

fn copies_in_and_out(gpu: &Gpu) -> Result<(), Failed> {
    let buffer = gpu.ramp(1003)?;
    ensure(buffer.device_address() % 256 == 0, "the address is aligned to 256 bytes")?;
    equal(buffer.to_vec(&gpu.stream)?, ramp(1003))?;
    // Another thread, where no context is current yet.
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| buffer.to_vec(&gpu.stream)).join());
    equal(elsewhere.map_err(|_| "the thread panicked")??, ramp(1003))
}

fn copies_refuse_other_lengths(gpu: &Gpu) -> Result<(), Failed> {
    let mut buffer = gpu.ramp(4)?;
    let error = buffer.copy_from_slice(&[0.0; 5], &gpu.stream).err();
    ensure(
        matches!(error, Some(DriverError::Length { expected: 4, got: 5, .. })),
        format!("{error:?}"),
    )
}

fn fills_and_device_copies(gpu: &Gpu) -> Result<(), Failed> {
    let mut words = CudaBuffer::<u32>::zeroed(&gpu.stream, 77)?;
    equal(words.to_vec(&gpu.stream)?, vec![0; 77])?;
    words.fill_words(0x7fc0_1234, &gpu.stream)?;
    let mut copy = CudaBuffer::<u32>::uninit(&gpu.stream, 77)?;
    copy.copy_from_device(&words, &gpu.stream)?;
    words.fill_bytes(0xee, &gpu.stream)?;
    equal(copy.to_vec(&gpu.stream)?, vec![0x7fc0_1234; 77])?;
    equal(words.to_vec(&gpu.stream)?, vec![0xeeee_eeee; 77])?;
    let error = CudaBuffer::<u8>::zeroed(&gpu.stream, 3)?.fill_words(1, &gpu.stream).err();
    ensure(matches!(error, Some(DriverError::Granularity { bytes: 3, .. })), format!("{error:?}"))
}

fn empty_buffers(gpu: &Gpu) -> Result<(), Failed> {
    let mut empty = CudaBuffer::<f32>::zeroed(&gpu.stream, 0)?;
    empty.copy_from_slice(&[], &gpu.stream)?;
    equal(empty.to_vec(&gpu.stream)?, vec![])?;
    let pinned = PinnedBuffer::<f64>::zeroed(&gpu.device, 0)?;
    equal(pinned.len(), 0)?;
    equal(MemoryPool::new(&gpu.device).uninit::<u8>(&gpu.stream, 0)?.device_address(), 0)
}

fn pinned_copies_give_the_buffer_back(gpu: &Gpu) -> Result<(), Failed> {
    let pinned = PinnedBuffer::from_slice(&gpu.device, &ramp(1 << 20))?;
    let mut buffer = CudaBuffer::uninit(&gpu.stream, 1 << 20)?;
    let mut pinned = buffer.copy_from_pinned(pinned, &gpu.stream)?.wait()?;
    pinned.fill(-1.0);
    let pending = buffer.copy_to_pinned(pinned, &gpu.stream)?;
    // The device side stays alive with the copy.
    drop(buffer);
    equal(&pending.wait()?[..], &ramp(1 << 20)[..])
}

fn mapped_memory_is_shared_with_a_kernel(gpu: &Gpu) -> Result<(), Failed> {
    let mapped = MappedBuffer::<u32>::zeroed(&gpu.device, 4)?;
    mapped.write(2, 41);
    let word = mapped.device_address() + 8;
    // SAFETY: `answer` takes one address, of a live mapped word.
    unsafe {
        launch(&gpu.module.function("answer")?, LaunchConfig::linear(1, 1), &gpu.stream, &word)
    }?;
    gpu.stream.synchronize()?;
    equal((0..4).map(|i| mapped.read(i)).collect::<Vec<_>>(), vec![0, 0, 42, 0])?;
    equal(mapped.atomic(2).fetch_add(1, Ordering::SeqCst), 42)?;
    let wide = MappedBuffer::<[u64; 2]>::zeroed(&gpu.device, 2)?;
    wide.write(1, [3, u64::MAX]);
    equal((wide.read(0), wide.read(1)), ([0, 0], [3, u64::MAX]))
}

fn streams_are_ordered_by_homes(gpu: &Gpu) -> Result<(), Failed> {
    let others = [Stream::new(&gpu.device)?, Stream::with_priority(&gpu.device, -1)?];
    let mut buffer = gpu.ramp(1 << 22)?;
    for _ in 0..5 {
        for stream in &others {
            gpu.scale(&mut buffer, 2.0, stream)?;
        }
    }
    let expected: Vec<f32> = ramp(1 << 22).into_iter().map(|value| value * 1024.0).collect();
    equal(buffer.to_vec(&gpu.stream)? == expected, true)?;
    ensure(others[0].is_idle()?, "the home stream waited for the others")
}

fn events_time_and_order(gpu: &Gpu) -> Result<(), Failed> {
    let (start, end) = (Event::new(&gpu.device)?, Event::new(&gpu.device)?);
    let mut buffer = gpu.ramp(1 << 22)?;
    start.record(&gpu.stream)?;
    gpu.scale(&mut buffer, 2.0, &gpu.stream)?;
    end.record(&gpu.stream)?;
    let follower = Stream::new(&gpu.device)?;
    follower.wait_event(&end)?;
    follower.synchronize()?;
    ensure(end.is_complete()?, "the follower waited for the event")?;
    let elapsed_ms = end.elapsed_ms(&start)?;
    ensure(elapsed_ms > 0.0 && elapsed_ms < 1000.0, format_args!("{elapsed_ms} ms"))
}

fn the_pool_reuses_and_counts(gpu: &Gpu) -> Result<(), Failed> {
    let pool = MemoryPool::new(&gpu.device);
    let first = pool.from_slice(&gpu.stream, &ramp(5000))?;
    let address = first.device_address();
    drop(first);
    let mut second = pool.zeroed::<f32>(&gpu.stream, 4900)?;
    equal(second.device_address(), address)?;
    gpu.scale(&mut second, 3.0, &gpu.stream)?;
    drop(second);
    gpu.stream.synchronize()?;
    // The event of the free has passed, so another stream may have the block.
    let other = Stream::new(&gpu.device)?;
    let third = pool.uninit::<f32>(&other, 5000)?;
    equal(third.device_address(), address)?;
    let statistics = pool.statistics();
    equal((statistics.allocations, statistics.reuses, statistics.driver_allocations), (3, 2, 1))?;
    equal(statistics.in_use_bytes, statistics.reserved_bytes)?;
    drop(third);
    ensure(pool.trim() >= 20_000, "the cached block is given back")?;
    equal(pool.statistics().reserved_bytes, 0)?;
    let error = pool.uninit::<u8>(&gpu.stream, 1 << 44).err();
    ensure(matches!(error, Some(DriverError::OutOfMemory { .. })), format!("{error:?}"))
}

fn a_graph_replays_and_keeps_its_buffers(gpu: &Gpu) -> Result<(), Failed> {
    let pool = MemoryPool::new(&gpu.device);
    let mut source = gpu.ramp(1000)?;
    let mut result = CudaBuffer::<f32>::zeroed(&gpu.stream, 1000)?;
    let capture = |source: &mut CudaBuffer<f32>, result: &mut CudaBuffer<f32>, factor| {
        Graph::capture::<DriverError>(&gpu.stream, |stream| {
            let mut scratch = pool.uninit::<f32>(stream, 1000)?;
            scratch.copy_from_device(source, stream)?;
            gpu.scale(&mut scratch, factor, stream)?;
            result.copy_from_device(&scratch, stream)
        })
    };
    let graph = capture(&mut source, &mut result, 3.0)?;
    equal(graph.node_count()?, 3)?;
    equal(result.to_vec(&gpu.stream)?, vec![0.0; 1000])?;

    // The scratch buffer is gone from the program, but not from the pool: the graph holds it.
    equal(pool.statistics().in_use_bytes, 4096)?;
    let mut exec = graph.instantiate()?;
    let other = Stream::new(&gpu.device)?;
    for stream in [&gpu.stream, &other] {
        result.fill_bytes(0, stream)?;
        exec.launch(stream)?;
        equal(result.to_vec(&gpu.stream)?[999], 2997.0)?;
    }
    exec.update(&capture(&mut source, &mut result, 5.0)?)?;
    exec.launch(&gpu.stream)?;
    equal(result.to_vec(&gpu.stream)?[999], 4995.0)?;

    let different =
        Graph::capture::<DriverError>(&gpu.stream, |stream| result.fill_bytes(0, stream))?;
    let error = exec.update(&different).err();
    ensure(matches!(error, Some(DriverError::GraphUpdate { .. })), format!("{error:?}"))?;
    drop((graph, exec));
    equal(pool.statistics().in_use_bytes, 0)
}

fn a_failed_capture_leaves_the_stream_usable(gpu: &Gpu) -> Result<(), Failed> {
    let mut buffer = gpu.ramp(100)?;
    let error = Graph::capture::<DriverError>(&gpu.stream, |stream| {
        gpu.scale(&mut buffer, 2.0, stream)?;
        buffer.to_vec(stream).map(drop)
    });
    ensure(matches!(error, Err(DriverError::Capturing { .. })), "a copy that waits is refused")?;
    ensure(!gpu.stream.is_capturing(), "the capture has ended")?;
    gpu.scale(&mut buffer, 2.0, &gpu.stream)?;
    equal(buffer.to_vec(&gpu.stream)?[99], 198.0)
}

fn context_wide_waits_spare_a_capture(gpu: &Gpu) -> Result<(), Failed> {
    let mut buffer = gpu.ramp(100)?;
    let graph = Graph::capture::<DriverError>(&gpu.stream, |stream| {
        let refused = gpu.device.synchronize();
        assert!(matches!(refused, Err(DriverError::Capturing { .. })), "{refused:?}");
        // Unloading a module waits for the context, so it is put off.
        drop(Module::load(&gpu.device, "short-lived", PTX)?);
        drop(CudaBuffer::<f32>::uninit(stream, 1 << 20)?);
        gpu.scale(&mut buffer, 2.0, stream)
    })?;
    graph.instantiate()?.launch(&gpu.stream)?;
    equal(buffer.to_vec(&gpu.stream)?[99], 198.0)
}

fn dynamic_shared_memory_above_48_kib(gpu: &Gpu) -> Result<(), Failed> {
    let function = gpu.module.function("reverse_block")?;
    let buffer = gpu.ramp(512)?;
    let params = ScaleParams { values: buffer.device_address(), len: 512, factor: 0.0 };
    let dynamic_shared_bytes = gpu.device.info().shared_bytes_per_block_optin;
    ensure(dynamic_shared_bytes > 48 * 1024, format_args!("{dynamic_shared_bytes} bytes"))?;
    let config = LaunchConfig { dynamic_shared_bytes, ..LaunchConfig::linear(2, 256) };
    // SAFETY: `reverse_block` takes `ScaleParams`, needs 4 bytes of shared memory a thread, and touches 512 elements.
    unsafe { launch(&function, config, &gpu.stream, &params) }?;
    let values = buffer.to_vec(&gpu.stream)?;
    equal((values[0], values[255], values[256], values[511]), (255.0, 0.0, 511.0, 256.0))
}

fn attributes_and_occupancy(gpu: &Gpu) -> Result<(), Failed> {
    let (function, info) = (gpu.module.function("scale")?, gpu.device.info());
    let attributes = function.attributes();
    ensure(attributes.registers > 0 && attributes.registers < 64, format!("{attributes:?}"))?;
    equal(
        (attributes.local_bytes, attributes.static_shared_bytes, attributes.ptx_version),
        (0, 0, 70),
    )?;
    equal(
        attributes.binary_version,
        info.compute_capability.major * 10 + info.compute_capability.minor,
    )?;
    equal(
        function.max_active_blocks_per_sm(LaunchConfig::linear(1, 256))?,
        info.max_threads_per_sm / 256,
    )?;
    let hungry = LaunchConfig {
        dynamic_shared_bytes: info.shared_bytes_per_block_optin,
        ..LaunchConfig::linear(1, 256)
    };
    equal(function.max_active_blocks_per_sm(hungry)?, 1)?;
    let suggested = function.suggested_block(0)?;
    ensure(suggested.threads.is_multiple_of(info.warp_threads), format!("{suggested:?}"))?;
    ensure(suggested.min_blocks >= info.sm_count, format!("{suggested:?}"))?;
    equal(gpu.device.attribute(16)?.unsigned_abs(), info.sm_count)?;
    let memory = gpu.device.memory_info()?;
    ensure(
        memory.free_bytes <= memory.total_bytes && memory.total_bytes <= info.total_memory_bytes,
        "memory",
    )
}

fn module_errors_carry_the_compilers_log(gpu: &Gpu) -> Result<(), Failed> {
    let broken = PTX.replace("mul.f32 %f2", "mul.f33 %f2");
    let error = Module::load(&gpu.device, "broken", &broken).err();
    let Some(DriverError::ModuleLoad { module, log, .. }) = &error else {
        return Err(format!("{error:?}").into());
    };
    equal(module.as_str(), "broken")?;
    ensure(log.contains("f33"), format_args!("the log names the instruction: {log:?}"))?;

    let error = gpu.module.function("no_such_kernel").err();
    let expected =
        DriverError::MissingEntry { module: "driver_gpu".into(), entry: "no_such_kernel".into() };
    equal(error, Some(expected))?;
    let error = Module::load(&gpu.device, "nul", ".version 6.0\0").err();
    ensure(matches!(error, Some(DriverError::NulByte { .. })), format!("{error:?}"))
}

fn launch_limits(gpu: &Gpu) -> Result<(), Failed> {
    let function = gpu.module.function("scale")?;
    let refused = |config: LaunchConfig, what: &str| match config.check(&function) {
        Err(
            DriverError::LaunchConfig { what: got, .. }
            | DriverError::LaunchShape { what: got, .. },
        ) => equal(got, what),
        answer => Err(format!("{answer:?}").into()),
    };
    refused(LaunchConfig::linear(0, 32), "the grid")?;
    refused(LaunchConfig::linear(1, 2048), "block x in threads")?;
    refused(
        LaunchConfig { block: [64, 32, 1], ..LaunchConfig::linear(1, 1) },
        "threads of a block",
    )?;
    refused(
        LaunchConfig { grid: [1, 1 << 20, 1], ..LaunchConfig::linear(1, 1) },
        "grid y in blocks",
    )?;
    let dynamic_shared_bytes = 1 << 20;
    refused(
        LaunchConfig { dynamic_shared_bytes, ..LaunchConfig::linear(1, 1) },
        "dynamic shared memory in bytes",
    )?;

    // More blocks than are resident: the driver refuses it, and nothing runs.
    let mut buffer = gpu.ramp(1)?;
    let params = ScaleParams { values: buffer.device_address(), len: 1, factor: 2.0 };
    let config = LaunchConfig { cooperative: true, ..LaunchConfig::linear(1 << 20, 256) };
    // SAFETY: `scale` takes `ScaleParams` and touches one element.
    let error = unsafe { launch(&function, config, &gpu.stream, &params) }.err();
    let what = "blocks of a cooperative grid";
    ensure(
        matches!(&error, Some(DriverError::LaunchConfig { what: got, .. }) if *got == what),
        format!("{error:?}"),
    )?;
    let config = LaunchConfig { cooperative: true, ..LaunchConfig::linear(2, 256) };
    // SAFETY: as above.
    unsafe { launch(&function, config, &gpu.stream, &params) }?;
    gpu.scale(&mut buffer, 2.0, &gpu.stream)?;
    equal(buffer.to_vec(&gpu.stream)?, vec![0.0])
}

fn a_cluster_launch(gpu: &Gpu) -> Result<(), Failed> {
    let config = LaunchConfig { cluster: Some([2, 1, 1]), ..LaunchConfig::linear(8, 32) };
    if !gpu.device.info().cluster_launch {
        let error = config.check(&gpu.module.function("scale")?).err();
        return ensure(
            matches!(error, Some(DriverError::Unsupported { .. })),
            format!("{error:?}"),
        );
    }
    let module = Module::load(&gpu.device, "cluster", CLUSTER_PTX)?;
    let function = module.function("cluster_size")?;
    let sizes = CudaBuffer::<u32>::zeroed(&gpu.stream, 8)?;
    let run = |function: &Function, config| {
        // SAFETY: `cluster_size` takes one address, of an element for each of the 8 blocks.
        unsafe { launch(function, config, &gpu.stream, &sizes.device_address()) }
    };
    run(&function, config)?;
    equal(sizes.to_vec(&gpu.stream)?, vec![2; 8])?;
    run(&function, LaunchConfig { cooperative: true, cluster: Some([4, 1, 1]), ..config })?;
    equal(sizes.to_vec(&gpu.stream)?, vec![4; 8])?;
    ensure(function.max_active_clusters(config)? > 0, "some clusters fit the GPU")?;
    let error = run(&function, LaunchConfig { cluster: Some([3, 1, 1]), ..config }).err();
    ensure(matches!(error, Some(DriverError::LaunchShape { .. })), format!("{error:?}"))
}

fn a_tensor_map(gpu: &Gpu) -> Result<(), Failed> {
    let matrix = CudaBuffer::<u16>::zeroed(&gpu.stream, 256 * 128)?;
    let spec = TensorMapSpec {
        data_type: TensorDataType::Bf16,
        address: matrix.device_address(),
        dimensions: &[128, 256],
        strides_bytes: &[256],
        box_dimensions: &[64, 128],
        element_strides: &[1, 1],
        swizzle: Swizzle::Bytes128,
        interleave: Interleave::None,
        l2_promotion: L2Promotion::Bytes128,
        out_of_bounds_fill: OutOfBoundsFill::Zero,
    };
    match TensorMap::encode(&gpu.device, &spec) {
        Err(DriverError::Unsupported { .. }) => equal(gpu.device.info().tensor_maps, false),
        map => {
            let other = TensorMap::encode(
                &gpu.device,
                &TensorMapSpec { swizzle: Swizzle::None, ..spec.clone() },
            )?;
            ensure(map? != other, "the descriptor holds the swizzle")?;
            let error = TensorMap::encode(&gpu.device, &TensorMapSpec { address: 8, ..spec }).err();
            ensure(matches!(error, Some(DriverError::TensorMap(_))), format!("{error:?}"))
        }
    }
}
