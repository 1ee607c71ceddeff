"""What the peer programs share: timing, buffers, the comparison and the records.

A record is one line of JSON. Times are in microseconds of device time, between two events around one call
(`mode` "event") or around one replay of a CUDA graph of many calls, divided by their number ("graph").
Candidates take turns, sample by sample, so that clocks and temperature favour none of them.
"""

import ctypes
import functools
import gc
import json
import math
import statistics
import subprocess
from dataclasses import dataclass
from typing import Any, Callable

import torch

WARM_UP = 10
SAMPLES = 30
# Above this a graph of 50 calls would only take long: launches no longer count.
MANY_LAUNCHES_BELOW_US = 500.0
# Samples that the clocks are read with, as `kasmina bench` does; the others are not held up by it.
READINGS = 8
# NVML's bits for what holds a clock back, and their names. An idle GPU is none of them.
LIMITS = [
    "application clocks",
    "power cap",
    "hardware slowdown",
    "sync boost",
    "thermal slowdown",
    "hardware thermal slowdown",
    "power brake",
    "display clock",
]


@dataclass(frozen=True)
class Candidate:
    """One way to compute an operation; `run(i)` makes the i-th call, on the i-th set of buffers."""

    name: str
    run: Callable[[int], Any]
    # Whether graph replay is worth its time, where the measurement has any.
    graph: bool = True


@dataclass(frozen=True)
class Operation:
    """What all candidates of a measurement compute, and how far their results may be off."""

    name: str
    shape: tuple[int, ...]
    bytes_moved: int
    buffer_sets: int
    # Largest relative error of a candidate's result against float64.
    error_of: Callable[[Any], float]
    tolerance: float
    dtype: str = "f32"


def environment() -> dict[str, Any]:
    """The device and the versions that the times hold for."""
    device = torch.cuda.get_device_properties(0)
    return {
        "record": "environment",
        "device": device.name,
        "multiprocessors": device.multi_processor_count,
        "l2_bytes": device.L2_cache_size,
        "driver": output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "commit": output_of("git", "rev-parse", "HEAD"),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "triton": version_of("triton"),
        "cupy": version_of("cupy"),
    }


def buffer_sets(bytes_per_set: int) -> int:
    """How many sets to rotate so that more than three times the L2 lies between two uses of one."""
    l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    return 1 + 3 * l2_bytes // bytes_per_set


def copy_bytes_per_us() -> float:
    """Bytes read and written by PyTorch's device copy of 1 GiB: the ceiling of the same run."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    times = time_events([Candidate("copy", lambda i: target.copy_(source))])[0]["copy"]
    return 2 * source.nbytes / statistics.median(times)


def measure(
    operation: Operation, candidates: list[Candidate], copy_rate: float, graph: bool = False
) -> list[dict[str, Any]]:
    """Checks every candidate, then times those that pass; one record for each candidate and mode."""
    errors = {c.name: operation.error_of(c.run(0)) for c in candidates}
    passed = [c for c in candidates if errors[c.name] <= operation.tolerance]
    event_times, event_clocks = time_events(passed)

    records = []
    for candidate in candidates:
        common = {
            "record": "measurement",
            "operation": operation.name,
            "peer": candidate.name,
            "dtype": operation.dtype,
            "shape": operation.shape,
            "bytes": operation.bytes_moved,
            "buffer_sets": operation.buffer_sets,
            "max_rel_error": errors[candidate.name],
            "tolerance": operation.tolerance,
        }
        if candidate not in passed:
            records.append(common | {"status": "fail"})
            continue
        times = event_times[candidate.name]
        single = summary("event", times, operation.bytes_moved, copy_rate)
        records.append(common | single | clocks(event_clocks[candidate.name]))
        if graph and candidate.graph:
            launches = 50 if statistics.median(times) < MANY_LAUNCHES_BELOW_US else 5
            try:
                times, readings = time_graph(candidate, launches)
            except RuntimeError as why:
                # Not all that PyTorch does can be captured.
                skipped = {"status": "skipped", "mode": "graph", "reason": str(why)}
                records.append(common | skipped)
                continue
            replayed = summary("graph", times, operation.bytes_moved, copy_rate)
            records.append(common | replayed | clocks(readings) | {"launches": launches})
    return records


@dataclass(frozen=True)
class Reading:
    """The GPU at one moment."""

    sm_mhz: int
    power_w: float
    power_state: int
    limits: int


Times = list[float]
Readings = list[Reading]


class Meter:
    """Reads the GPU's clocks and power through NVML; answers nothing where there is none."""

    def __init__(self) -> None:
        self.device = ctypes.c_void_p()
        try:
            self.nvml = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            self.nvml = None
            return
        id = torch.cuda.get_device_properties(0)
        # As NVML writes it: domain, bus and device.
        pci = f"{id.pci_domain_id:08x}:{id.pci_bus_id:02x}:{id.pci_device_id:02x}.0".encode()
        if self.nvml.nvmlInit_v2() or self.nvml.nvmlDeviceGetHandleByPciBusId_v2(
            pci, ctypes.byref(self.device)
        ):
            self.nvml = None

    def read(self) -> Readings:
        if self.nvml is None:
            return []
        mhz, state = ctypes.c_uint(), ctypes.c_int()
        limits = ctypes.c_ulonglong()
        by = ctypes.byref
        failed = [
            self.nvml.nvmlDeviceGetClockInfo(self.device, 1, by(mhz)),
            self.nvml.nvmlDeviceGetPerformanceState(self.device, by(state)),
            self.nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self.device, by(limits)),
        ]
        power = self.power_w()
        if any(failed) or power is None:
            return []
        return [Reading(mhz.value, power, state.value, limits.value)]

    def power_w(self) -> float | None:
        """At the moment; of drivers that do not tell, the mean of a second."""
        # nvmlFieldValue_t: field, scope, timestamp, latency, type, status, value. Field 186 is the power at the moment,
        # type 1 an unsigned int.
        class Field(ctypes.Structure):
            _fields_ = [
                ("field", ctypes.c_uint),
                ("scope", ctypes.c_uint),
                ("timestamp", ctypes.c_longlong),
                ("latency", ctypes.c_longlong),
                ("type", ctypes.c_int),
                ("status", ctypes.c_int),
                ("value", ctypes.c_uint * 2),
            ]

        field = Field(field=186)
        status = self.nvml.nvmlDeviceGetFieldValues(self.device, 1, ctypes.byref(field))
        if (status, field.status, field.type) == (0, 0, 1):
            return field.value[0] * 1e-3
        mean = ctypes.c_uint()
        if self.nvml.nvmlDeviceGetPowerUsage(self.device, ctypes.byref(mean)):
            return None
        return mean.value * 1e-3


@functools.cache
def meter() -> Meter:
    """The meter of the run."""
    return Meter()


def is_read(sample: int) -> bool:
    """Whether the clocks are read with a sample."""
    apart = math.ceil(SAMPLES / READINGS)
    return sample % apart == apart // 2


def clocks(readings: Readings) -> dict[str, Any]:
    """Medians and extremes of readings, as the rows of `kasmina bench` have them."""
    if not readings:
        return {}
    mhz = [reading.sm_mhz for reading in readings]
    # Bit 0 is an idle GPU.
    held = [any(r.limits >> (1 + bit) & 1 for r in readings) for bit in range(len(LIMITS))]
    return {
        "clocks": {
            "readings": len(readings),
            "sm_mhz": sorted(mhz)[len(mhz) // 2],
            "sm_min_mhz": min(mhz),
            "sm_max_mhz": max(mhz),
            "power_w": statistics.median(reading.power_w for reading in readings),
            "power_state": f"P{max(reading.power_state for reading in readings)}",
            "limits": [name for name, is_held in zip(LIMITS, held) if is_held],
        }
    }


def time_events(candidates: list[Candidate]) -> tuple[dict[str, Times], dict[str, Readings]]:
    """Microseconds of each sample of each candidate, and readings of the clocks from some of them."""
    for candidate in candidates:
        for i in range(WARM_UP):
            candidate.run(i)
    times: dict[str, Times] = {c.name: [] for c in candidates}
    readings: dict[str, Readings] = {c.name: [] for c in candidates}
    for i in range(SAMPLES):
        for candidate in candidates:
            of = readings[candidate.name] if is_read(i) else None
            times[candidate.name].append(elapsed_us(lambda: candidate.run(i), of))
    return times, readings


def time_graph(candidate: Candidate, launches: int) -> tuple[Times, Readings]:
    """Microseconds a call, from replays of a graph of `launches` calls, and readings of the clocks."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for i in range(launches):
            candidate.run(i)
    for _ in range(WARM_UP):
        graph.replay()
    readings: Readings = []
    times = [
        elapsed_us(graph.replay, readings if is_read(i) else None) / launches for i in range(SAMPLES)
    ]
    return times, readings


def elapsed_us(call: Callable[[], Any], readings: Readings | None = None) -> float:
    """Device time between two events around `call`, on an idle device; the clocks are read while it is at work."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    if readings is not None:
        readings.extend(meter().read())
    end.synchronize()
    return start.elapsed_time(end) * 1e3


def summary(mode: str, times: list[float], bytes_moved: int, copy_rate: float) -> dict[str, Any]:
    """Median and spread, and the rate that the median means."""
    median = statistics.median(times)
    return {
        "status": "pass",
        "mode": mode,
        "samples": len(times),
        "median_us": median,
        "min_us": min(times),
        "max_us": max(times),
        "gb_per_s": bytes_moved / median * 1e-3,
        "percent_of_copy": 100 * bytes_moved / median / copy_rate,
    }


def relative_error(out: torch.Tensor, reference: torch.Tensor, scale: float) -> float:
    """Largest |out − ref| / max(|ref|, scale); infinite where it is not a number."""
    difference = (out.double() - reference).abs() / reference.abs().clamp(min=scale)
    largest = difference.max().item()
    return math.inf if math.isnan(largest) else largest


def release_memory() -> None:
    """Gives the buffers of the last measurement back to the device."""
    gc.collect()
    torch.cuda.empty_cache()


def print_record(record: dict[str, Any]) -> str:
    """Prints a record as a line of JSON and returns that line."""
    # An infinite error is no number in JSON.
    if math.isinf(record.get("max_rel_error", 0.0)):
        record = record | {"max_rel_error": None}
    line = json.dumps(record, allow_nan=False)
    print(line, flush=True)
    return line


def output_of(*command: str) -> str:
    """What a command prints, or that it could not be run."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()


def version_of(package: str) -> str | None:
    """The version of a package that may be missing."""
    try:
        return __import__(package).__version__
    except ImportError:
        return None
