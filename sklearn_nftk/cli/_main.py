"""The command line: commands, their options, and errors in one line."""

import argparse
import sys
from pathlib import Path

from ._compare import DEFAULT_FIGURE, run_compare
from ._data import BUILT_IN
from ._explain import DEFAULT_PAGE, run_explain
from ._networks import PRESETS


def main(arguments=None):
    """Run the command; return the exit status, 2 for what the user can mend."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] not in ("compare", "explain", "-h", "--help"):
        arguments.insert(0, "compare")
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"python -m sklearn_nftk: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def build_parser():
    """Argument parser of both commands."""
    parser = argparse.ArgumentParser(
        prog="python -m sklearn_nftk",
        description="Layer-resolved neural tangent kernels. Without a command: compare.",
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--data",
        default="digits",
        metavar="NAME|FILE.csv",
        help=f"{', '.join(BUILT_IN)}, or a CSV file with a header (default: digits)",
    )
    shared.add_argument("--target", metavar="COLUMN", help="column of the CSV file to predict")
    shared.add_argument(
        "--network",
        metavar="PRESET|SIZES|MODULE:NAME",
        help=f"{', '.join(PRESETS)}; hidden layer sizes such as 512,512; or an importable torch "
        "module or function (default: cnn for images, mlp for other data; cnn is trained, by "
        "cross-fitting)",
    )
    shared.add_argument("--random-state", type=int, default=0, metavar="SEED", help="default: 0")
    commands = parser.add_subparsers(dest="command", metavar="{compare,explain}")
    compare = commands.add_parser(
        "compare",
        parents=[shared],
        help="accuracy and fit times beside SVMs",
        description="Cross-validated accuracy and fit times of NFT-K, SVC, a grid-searched SVC "
        "and, if it is trained, the network alone on the same folds; then what NFT-K of the first "
        "fold learned: the weights of each class and layer, or scores by layer where weights are "
        "uniform, and what was behind one decision.",
    )
    compare.add_argument("--cv", type=int, default=3, metavar="FOLDS", help="default: 3")
    compare.add_argument(
        "--figure",
        type=Path,
        metavar="FILE.png",
        help=f"where to draw the layers (default: {DEFAULT_FIGURE}, if matplotlib is installed)",
    )
    compare.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers here")
    compare.set_defaults(run=run_compare)
    explain = commands.add_parser(
        "explain",
        parents=[shared],
        help="a page about single decisions",
        description="Fits NFT-K on three quarters of the data and writes an HTML page about what "
        "its layers and training examples contributed to decisions on the rest: half of them "
        "wrong ones, where there are so many.",
    )
    explain.add_argument(
        "--out",
        type=Path,
        default=Path(DEFAULT_PAGE),
        metavar="FILE.html",
        help=f"default: {DEFAULT_PAGE}",
    )
    explain.add_argument(
        "--samples", type=int, default=4, metavar="N", help="how many decisions (default: 4)"
    )
    explain.add_argument(
        "--resamples",
        type=int,
        default=50,
        metavar="N",
        help="bootstrap resamples for the intervals of the weights, 0 for none (default: 50)",
    )
    explain.set_defaults(run=run_explain)
    return parser
