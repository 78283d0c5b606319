"""What benchmarks share: where they find real data, and how they keep their results."""

import argparse
import csv
import json
import os
import platform
from datetime import date
from pathlib import Path

import numpy as np
import sklearn
import torch

RESULTS = Path(__file__).parent / "results"


def parser(description):
    """Argument parser with the options every benchmark shares."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("NFTK_DATA", "../shared/data")),
        help="folder with manifest.csv and the npz files it lists (default: $NFTK_DATA)",
    )
    return made


def uci_sets(data_dir, max_samples):
    """Yield (name, X, y, [(train, test), ...]) of the UCI sets, smallest name first."""
    manifest = data_dir / "manifest.csv"
    if not manifest.exists():
        raise SystemExit(f"{manifest} is absent: give --data-dir or set NFTK_DATA.")
    with manifest.open() as rows:
        for row in csv.DictReader(rows):
            if row["subset"] == "uci90" and int(row["n"]) <= max_samples:
                data = np.load(data_dir / row["file"])
                splits = [(data[f"cv{k}_train"], data[f"cv{k}_test"]) for k in range(4)]
                yield row["name"], data["X"].astype(np.float64), data["y"], splits


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
