"""Runs this project's peer programs on the GPU and prints one JSON record a line.

    python3 benches/peers/run.py [--json FILE] [--only NAME]

Exit status: 0 when every result was right, 1 when one was wrong, 3 when there is no GPU to run on.
Needs PyTorch with CUDA and Triton; CuPy's rows are skipped without CuPy.
"""

import argparse
import sys
from pathlib import Path

import torch

PROGRAMS = [
    "device_copy",
    "reductions",
    "layer_forward",
    "layer_backward",
    "activation_norm",
    "linear",
    "active_inference",
]


def main() -> int:
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        print("no CUDA device: the peers run on a GPU only", file=sys.stderr)
        return 3

    # After the check: importing Triton kernels needs a driver.
    import harness

    lines, failed = [harness.print_record(harness.environment())], False
    copy_rate = harness.copy_bytes_per_us()
    for name in arguments.only or PROGRAMS:
        torch.manual_seed(0)
        for record in __import__(name).records(copy_rate):
            lines.append(harness.print_record(record))
            failed |= record["status"] == "fail"
        harness.release_memory()

    if arguments.json:
        arguments.json.write_text("".join(line + "\n" for line in lines))
    return 1 if failed else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures the peers of Kasmina's kernels.")
    parser.add_argument("--json", type=Path, help="write the records to this file as well")
    parser.add_argument("--only", action="append", choices=PROGRAMS, help="may be repeated")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
