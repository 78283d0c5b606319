"""Layer Grams beside their floor and beside per-sample gradients by torch.func.

The floor of an MLP is the plain matrix products its Grams are made of, in full and in the same
process. The alternative forms the Jacobian of every sample with ``vmap(jacrev)``, as the PyTorch
tutorial on neural tangent kernels does, and contracts it layer by layer. Times are the best of a
few rounds in which the ways take turns; memory is the peak of a fresh process (Linux) above what
it held before. With ``--busy`` the Grams of the MLP alone are compared with their floor, quiet and
with two busy loops of equal priority beside both; ratios are the median over rounds.

Run: ``python benchmarks/bench_tangent_kernels.py [--busy]``.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import sklearn
import torch
from _common import busy_loops, high_water_mark, keep
from torch import nn
from torch.func import functional_call, jacrev, vmap

from sklearn_nftk.kernels import layer_kernels


def mlp(width=1024, depth=3, features=784):
    sizes = [features] + [width] * depth
    modules = []
    for fan_in, fan_out in pairwise(sizes):
        modules += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*modules, nn.Linear(width, 1))


def cnn(width=32):
    """Convolutions and a dense head, as image classifiers on 28 x 28 commonly have them."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(50 * width, 128), nn.ReLU(), nn.Linear(128, 1),
    )  # fmt: skip


def all_conv(width=32, depth=1):
    """Convolutions at full resolution under a mean: the passes themselves dominate."""
    inner = [
        m for _ in range(depth - 1) for m in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
    ]
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), *inner,
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 1),
    )  # fmt: skip


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.one, self.two = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm_one, self.norm_two = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x):
        h = torch.relu(self.norm_one(self.one(x)))
        return torch.relu(x + self.norm_two(self.two(h)))


def resnet(width=16, depth=2):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1), *(Block(width) for _ in range(depth)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1),
    )  # fmt: skip


class Encoder(nn.Module):
    def __init__(self, width=32, depth=1):
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.enter = nn.Linear(28, width)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.leave = nn.Linear(width, 1)

    def forward(self, x):
        return self.leave(self.layers(self.enter(x)).mean(1))


NETWORKS = {
    "mlp": mlp,
    "small-mlp": lambda: mlp(256, 2),
    "cnn": cnn,
    "all-conv": all_conv,
    "resnet": resnet,
    "encoder": Encoder,
}
SHAPES = {
    "mlp": (784,),
    "small-mlp": (784,),
    "cnn": (1, 28, 28),
    "all-conv": (1, 28, 28),
    "resnet": (1, 28, 28),
    "encoder": (28, 28),
}


def problem(kind, n, **sizes):
    torch.manual_seed(0)
    module = NETWORKS[kind](**sizes).eval()
    return module, torch.randn(n, *SHAPES[kind])


def ours(module, X):
    return layer_kernels(module, X.numpy(), device="cpu")


def per_sample(module, X):
    """The tutorial's way, one Gram for each module."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    buffers = dict(module.named_buffers())

    def outputs(parameters, x):
        return functional_call(module, (parameters, buffers), (x[None],))[0]

    jacobian = vmap(jacrev(outputs), (None, 0))
    left, right = jacobian(parameters, X), jacobian(parameters, X)
    kernels = {}
    for name in parameters:
        gram = torch.einsum("nof,mof->nm", left[name].flatten(2), right[name].flatten(2))
        owner = name.rpartition(".")[0]
        kernels[owner] = kernels[owner] + gram if owner in kernels else gram
    return torch.stack(list(kernels.values()), dim=-1).numpy()


def floor(module, X):
    """The plain matrix products of an MLP's Grams, in full."""
    n = len(X)
    for linear in (m for m in module if isinstance(m, nn.Linear)):
        for k in (linear.in_features, linear.out_features):
            factor = FACTORS.setdefault((n, k), torch.randn(n, k))
            factor @ factor.T


def neural_tangents(module, X):
    """The total kernel of the same MLP by neural-tangents, compiled once."""
    import jax

    if module not in COMPILED:
        import neural_tangents as nt

        parameters = [(m.weight.detach().numpy(), m.bias.detach().numpy())
                      for m in module if isinstance(m, nn.Linear)]  # fmt: skip

        def outputs(parameters, x):
            *hidden, (weight, bias) = parameters
            for w, b in hidden:
                x = jax.nn.relu(x @ w.T + b)
            return x @ weight.T + bias

        kernel = jax.jit(
            nt.empirical_ntk_fn(
                outputs, implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES
            )
        )
        COMPILED[module] = lambda X: kernel(X, None, parameters)
    return np.asarray(COMPILED[module](X.numpy()))


class Printed(dict):
    """Results that are printed as they come."""

    def __setitem__(self, name, value):
        print(f"{name:45s} {value:.3g}", flush=True)
        super().__setitem__(name, value)


FACTORS = {}  # made once, so that the floor is the products alone
COMPILED = {}
WAYS = {
    "ours": ours,
    "per_sample": per_sample,
    "floor": floor,
    "neural_tangents": neural_tangents,
}


def race(names, module, X, rounds):
    """Best seconds of each way over rounds in which they take turns, the first not counted."""
    best = dict.fromkeys(names, np.inf)
    for turn in range(rounds + 1):
        for name in names:
            start = time.perf_counter()
            WAYS[name](module, X)
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def median_ratio(names, module, X, rounds=5):
    """Median over rounds of the ratio of two ways' seconds, the first round not counted."""
    ratios = []
    for _ in range(rounds + 1):
        seconds = []
        for name in names:
            start = time.perf_counter()
            WAYS[name](module, X)
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return float(np.median(ratios[1:]))


def beside_busy_loops():
    """Of the Grams to their floor, quiet and busy, with all threads and with one."""
    module, X = problem("mlp", 4000)
    results = Printed()
    for n_threads in dict.fromkeys([torch.get_num_threads(), 1]):
        torch.set_num_threads(n_threads)
        for n_loops in (0, 2):
            name = f"mlp n=4000, ours / full products, {n_threads} threads, {n_loops} busy loops"
            with busy_loops(n_loops):
                results[name] = median_ratio(["ours", "floor"], module, X)
    return results


def peak(way, kind, n, working_memory=1024):
    """MiB above what the process held before, measured in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", way, kind, str(n), str(working_memory)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def measure_memory(way, kind, n, working_memory):
    sklearn.set_config(working_memory=float(working_memory))
    module, X = problem(kind, int(n))
    WAYS[way](module, X[:2])  # libraries load on first use
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = high_water_mark()
    WAYS[way](module, X)
    print(high_water_mark() - before)


def relative_error(module, X):
    exact = layer_kernels(module, X.numpy().astype(np.float64), device="cpu")
    single = ours(module, X)
    return float(np.abs(single - exact).max() / np.abs(exact).max())


def growth():
    """Seconds of ours while one size doubles."""
    rows = []
    for kind, widths in [("mlp", (256, 512)), ("all-conv", (16, 32)), ("resnet", (16, 32)),
                         ("encoder", (32, 64))]:  # fmt: skip
        base = {"n": 250, "width": widths[0], "depth": 1}
        for changed, value in [(None, None), ("n", 500), ("width", widths[1]), ("depth", 2)]:
            sizes = dict(base) | ({changed: value} if changed else {})
            module, X = problem(kind, sizes["n"], width=sizes["width"], depth=sizes["depth"])
            seconds = race(["ours"], module, X, rounds=2)["ours"]
            rows.append({"network": kind, **sizes, "seconds": seconds})
            print("  {network:8s} n={n:4d} width={width:4d} depth={depth}  {seconds:.3f} s"
                  .format(**rows[-1]), flush=True)  # fmt: skip
    return rows


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--memory-of", nargs=4, help=argparse.SUPPRESS)
    options.add_argument("--busy", action="store_true", help="beside two busy loops, and quiet")
    arguments = options.parse_args()
    if arguments.memory_of:
        measure_memory(*arguments.memory_of)
        return
    if arguments.busy:
        keep("tangent_kernels_busy", {"ratios": beside_busy_loops()})
        return
    results = Printed()

    module, X = problem("mlp", 4000)
    best = race(["ours", "floor"], module, X, rounds=20)
    results["mlp n=4000, ours / full products"] = best["ours"] / best["floor"]
    results["mlp n=1000, relative error of float32"] = relative_error(module, X[:1000])
    module, X = problem("mlp", 500)
    best = race(["ours", "per_sample"], module, X, rounds=2)
    results["mlp n=500, per-sample gradients / ours"] = best["per_sample"] / best["ours"]
    if importlib.util.find_spec("neural_tangents"):
        total = neural_tangents(module, X)
        assert np.allclose(ours(module, X).sum(axis=2), total, rtol=1e-3), "not the same kernel"
        best = race(["ours", "neural_tangents"], module, X, rounds=3)
        ratio = best["neural_tangents"] / best["ours"]
        results["mlp n=500, total kernel of neural-tangents / ours"] = ratio
    memory = {}
    for kind in ("cnn", "all-conv"):
        module, X = problem(kind, 1000)
        best = race(["ours", "per_sample"], module, X, rounds=6)
        name = f"{kind} n=1000"
        results[f"{name}, per-sample gradients / ours"] = best["per_sample"] / best["ours"]
        memory[kind] = {way: peak(way, kind, 1000) for way in ("ours", "per_sample")}
        ratio = memory[kind]["ours"] / memory[kind]["per_sample"]
        results[f"{name}, memory of ours / per-sample"] = ratio
    print(f"peak memory in MiB: {memory}")
    n = 20_000
    result = 3 * n**2 * 4 / 2**20
    for working_memory in (1024, 64):
        name = f"three-layer mlp n={n}, working_memory={working_memory}, memory / result"
        results[name] = peak("ours", "small-mlp", n, working_memory) / result
    print("growth:")
    keep(
        "tangent_kernels",
        {"ratios": results, "peak_MiB": memory, "growth": growth()},
    )


if __name__ == "__main__":
    main()
