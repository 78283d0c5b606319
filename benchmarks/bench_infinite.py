"""Kernels of infinitely wide networks beside other code, and how they grow.

All layer kernels of a ReLU network with three hidden layers, in float64, beside the total kernel
alone of neural-tangents (jitted, in float64 and in its default float32) and of scikit-ntk, where
they are installed. The recurrent kernel beside a plain double loop over pairs, and its growth in
the number of sequences and in their length. Times are the best of rounds in which the ways take
turns, the first (compilation) not counted; memory is the peak of a fresh process (Linux) above
what it held before, with the result.

Run: ``python benchmarks/bench_infinite.py``.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import sklearn
from _common import high_water_mark, keep

from sklearn_nftk.kernels import layer_kernels
from sklearn_nftk.networks import InfiniteMLP, InfiniteRNN

DEPTH = 3
WEIGHT, BIAS = 2.0, 0.1


def ours(X):
    return layer_kernels(InfiniteMLP(DEPTH, "relu", WEIGHT, BIAS), X, device="cpu")


def neural_tangents(precision):
    """Total kernel of neural-tangents, or None where it is not installed."""
    try:
        import jax
        from neural_tangents import stax
    except ImportError as error:
        print(f"neural-tangents is left out: {error}")
        return None

    layers = []
    for _ in range(DEPTH):
        layers += [stax.Dense(1, W_std=math.sqrt(WEIGHT), b_std=math.sqrt(BIAS)), stax.Relu()]
    *_, kernel = stax.serial(
        *layers, stax.Dense(1, W_std=math.sqrt(WEIGHT), b_std=math.sqrt(BIAS))
    )
    jitted = {}

    def total(X):
        jax.config.update("jax_enable_x64", precision == "float64")
        if precision not in jitted:
            jitted[precision] = jax.jit(lambda x: kernel(x, None, "ntk"))
        return np.asarray(jitted[precision](X.astype(precision)).block_until_ready())

    return total


def scikit_ntk():
    """Total kernel of scikit-ntk (its own scaling), or None where it is not installed."""
    try:
        from skntk import NeuralTangentKernel
    except ImportError as error:
        print(f"scikit-ntk is left out: {error}")
        return None
    return NeuralTangentKernel(depth=DEPTH, bias=BIAS)


def race(ways, rounds, *arguments):
    """Best seconds of each way over rounds in which they take turns, the first not counted."""
    best = dict.fromkeys(ways, np.inf)
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way(*arguments)
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def plain_pair(x, z, w=1.96, u=1.0, b=0.04, h=0.25):
    """Recurrent kernel of two univariate sequences of one layer, in plain Python numbers."""

    def dual(s, p, q):
        c = max(-1.0, min(1.0, s / math.sqrt(p * q)))
        angle = math.pi - math.acos(c)
        root = math.sqrt(1 - c * c)
        return math.sqrt(p * q) * (root + c * angle) / (2 * math.pi), angle / (2 * math.pi)

    def variances(s):
        sequence, state = [], h
        for value in s:
            sequence.append(w * state + u * value * value + b)
            state = sequence[-1] / 2
        return sequence

    p, q = variances(x), variances(z)
    size = min(len(x), len(z))
    recurrent = w * h if len(x) == len(z) else 0.0
    tangent = 0.0
    for step in range(-size, 0):
        S = recurrent + u * x[step] * z[step] + b
        V, slope = dual(S, p[step], q[step])
        tangent = slope * (S + w * tangent)
        recurrent, tangent = w * V, tangent
    return V + tangent


def double_loop(X):
    rows = [x.tolist() for x in X]
    K = np.empty((len(X), len(X)))
    for i, x in enumerate(rows):
        for j in range(i + 1):
            K[i, j] = K[j, i] = plain_pair(x, rows[j])
    return K


def recurrent(X):
    return layer_kernels(InfiniteRNN(), X, device="cpu")


def slope(sizes, seconds):
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def growth():
    """Seconds while the number of sequences, or their length, doubles."""
    rng = np.random.default_rng(0)
    seconds, slopes = [], {}
    for changed, sizes in [("n", (512, 1024, 2048)), ("T", (100, 200, 400, 800))]:
        times = []
        for size in sizes:
            shape = (size, 100) if changed == "n" else (300, size)
            X = rng.standard_normal(shape)
            times.append(race({"ours": recurrent}, 1, X)["ours"])
            seconds.append({"n": shape[0], "T": shape[1], "seconds": times[-1]})
            print("  n={n:5d} T={T:4d}  {seconds:.3f} s".format(**seconds[-1]), flush=True)
        slopes[changed] = slope(sizes, times)
        print(f"  slope in {changed}: {slopes[changed]:.2f}", flush=True)
    return {"seconds": seconds, "slopes": slopes}


WAYS = {
    "mlp": (ours, (4000, 784)),
    "rnn": (recurrent, (1000, 200)),
    "rnn-time": (lambda X: layer_kernels(InfiniteRNN(groups="time"), X), (200, 100)),
}


def peak(way):
    """MiB above what the process held before, measured in a fresh process."""
    run = subprocess.run(
        [sys.executable, __file__, "--memory-of", way], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def measure_memory(way):
    sklearn.set_config(working_memory=64)
    function, shape = WAYS[way]
    X = np.random.default_rng(0).standard_normal(shape)
    function(X[:3])  # libraries load on first use
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = high_water_mark()
    result = function(X)
    print(json.dumps({"peak": high_water_mark() - before, "result": result.nbytes / 2**20}))


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--n", type=int, default=4000)
    options.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.memory_of:
        measure_memory(arguments.memory_of)
        return
    X = np.random.default_rng(0).standard_normal((arguments.n, 784))
    ways = {
        "ours, every layer, float64": ours,
        "neural-tangents, total, float64": neural_tangents("float64"),
        "neural-tangents, total, float32": neural_tangents("float32"),
        "scikit-ntk, total, float64": scikit_ntk(),
    }
    ways = {name: way for name, way in ways.items() if way is not None}
    seconds = race(ways, 3, X)
    first = next(iter(seconds.values()))
    for name, value in seconds.items():
        print(f"{name:34s} {value:.3f} s, {value / first:.2f} x ours")
    agreement = {}
    if "neural-tangents, total, float64" in ways:
        total = ours(X[:500]).sum(axis=2)
        difference = np.abs(total - ways["neural-tangents, total, float64"](X[:500])).max()
        agreement["neural-tangents float64, n=500"] = float(difference / np.abs(total).max())
        print(f"largest relative difference of the totals: {difference / np.abs(total).max():.1e}")

    series = np.random.default_rng(0).standard_normal((200, 100))
    loop = race({"ours": recurrent, "double loop": double_loop}, 1, series)
    expected = double_loop(series)
    error = float(np.abs(recurrent(series).sum(axis=2) / expected - 1).max())
    print(f"rnn n=200 T=100: double loop / ours {loop['double loop'] / loop['ours']:.0f}, "
          f"largest relative difference {error:.1e}")  # fmt: skip
    grown = growth()
    memory = {way: peak(way) for way in WAYS}
    print(f"peak memory in MiB, with the result, working_memory=64: {memory}")
    keep(
        "infinite",
        {
            "mlp": {"n": arguments.n, "depth": DEPTH, "seconds": seconds, "agreement": agreement},
            "rnn": {"n": 200, "T": 100, "seconds": loop, "relative_difference": error},
            "growth": grown,
            "peak_MiB": memory,
        },
    )


if __name__ == "__main__":
    main()
