"""Shared by the benchmarks: reading data, measuring memory, keeping results."""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import sklearn
import torch

RESULTS = Path(__file__).parent / "results"


def data_parser(description):
    """Argument parser of the benchmarks on data that the repository does not hold."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder with manifest.csv and the npz files it lists (benchmarks/README.md)",
    )
    return parser


def existing(path):
    """Return the path of a data file, or end the benchmark with a line that names it."""
    if not path.is_file():
        raise SystemExit(f"no such file: {path}; benchmarks/README.md tells what --data holds")
    return path


def listed_sets(folder, column, value):
    """Yield (row, npz file) of each set of the manifest that has this value in a column."""
    with existing(folder / "manifest.csv").open() as lines:
        for row in csv.DictReader(lines):
            if row[column] == value:
                yield row, np.load(existing(folder / row["file"]))


def uci_sets(folder, max_samples):
    """Yield (name, X, y, [(train, test), ...]) of the UCI sets, in the order of the manifest."""
    for row, data in listed_sets(folder, "subset", "uci90"):
        if int(row["n"]) <= max_samples:
            splits = [(data[f"cv{k}_train"], data[f"cv{k}_test"]) for k in range(4)]
            yield row["name"], data["X"].astype(np.float64), data["y"], splits


@contextmanager
def busy_loops(n):
    """Keep n cores busy by other processes."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def high_water_mark():
    """Peak memory of this process so far, in MiB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def keep(name, results):
    """Write results as JSON beside the benchmarks, with what they were measured on."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    versions = {"scikit-learn": sklearn.__version__, "torch": torch.__version__}
    environment = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": versions,
    }
    path.write_text(json.dumps({"environment": environment, **results}, indent=1) + "\n")
    print(f"written to {path}")
