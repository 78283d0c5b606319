"""The tree: which rooms there are, and that imports follow the way of the data."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGE = "sklearn_nftk"

# A module imports from its own room or from rooms above it in this list. A room is everything
# below its name; the longest name counts.
ROOMS = [
    "_version",
    "utils",
    "tangents",
    "closed_form",
    "kernel_networks",
    "networks",
    "kernels",
    "grams",
    "weights",
    "solvers",
    "learner",
    "kernel_networks._base",
    "kernel_networks._classifier",
    "kernel_networks._regressor",
    "kernel_networks.__init__",
    "estimators",
    "inspection",
    "inspection.plots",
    "inspection._explain",
    "inspection.__init__",
    "dynamics",
    "__init__",
    "cli",
    "__main__",
]
PRIVATE_SKLEARN = "utils._sklearn"
MOST_LINES = 400


def read_modules(root):
    """Abstract syntax trees of all modules below a folder, by dotted names relative to it."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted(root.rglob("*.py"))
    }


MODULES = read_modules(ROOT / PACKAGE)


def imported_names(name, tree):
    """Absolute dotted names of all that a module imports, inside its functions too."""
    here = [PACKAGE, *name.split(".")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def module_of(dotted, modules):
    """Module of the package in which an absolute name is looked up; None outside the package."""
    package, *parts = dotted.split(".")
    if package != PACKAGE:
        return None
    for length in range(len(parts), -1, -1):
        for name in (".".join(parts[:length]), ".".join([*parts[:length], "__init__"])):
            if name in modules:
                return name
    raise AssertionError(f"{dotted} is nowhere in the package")


def import_graph(modules):
    """Names of the modules that each module imports, itself left out."""
    return {
        name: {module_of(dotted, modules) for dotted in imported_names(name, tree)} - {None, name}
        for name, tree in modules.items()
    }


def circle(graph):
    """Names of modules that import each other in a circle, the first repeated; or None."""
    done = set()

    def visit(name, path):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        for imported in sorted(graph[name]):
            if found := visit(imported, [*path, name]):
                return found
        done.add(name)
        return None

    return next(filter(None, (visit(name, []) for name in graph)), None)


def room(name):
    """Index in ROOMS of the room of a module."""
    of_name = [place for place in ROOMS if name == place or name.startswith(place + ".")]
    assert of_name, f"{name} is in no room of the list"
    return ROOMS.index(max(of_name, key=len))


def running_back(graph):
    return [
        (name, imported)
        for name, imports in graph.items()
        for imported in sorted(imports)
        if room(imported) > room(name)
    ]


def private_names_of_sklearn(name, tree):
    dotted = list(imported_names(name, tree))
    dotted += [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return sorted({text for text in dotted if re.match(r"sklearn\.(\w+\.)*_[^_]", text)})


def test_no_modules_import_each_other_in_a_circle():
    assert circle(import_graph(MODULES)) is None


def test_no_import_runs_back():
    assert running_back(import_graph(MODULES)) == []


def test_every_room_of_the_list_is_there():
    assert {ROOMS[room(name)] for name in MODULES} == set(ROOMS)


def test_private_names_of_scikit_learn_are_imported_in_one_file():
    private = {name: private_names_of_sklearn(name, tree) for name, tree in MODULES.items()}
    assert [name for name, names in private.items() if names] == [PRIVATE_SKLEARN]


@pytest.mark.parametrize("folder", [PACKAGE, "benchmarks", "doc/examples"])
def test_modules_are_short(folder):
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert lengths
    assert {path.name: n for path, n in lengths.items() if n > MOST_LINES} == {}


def test_the_oldest_constraints_are_the_lower_bounds():
    project = (ROOT / "pyproject.toml").read_text()
    lists = project[project.index("\ndependencies = [") : project.index("\ndoc = [")]
    bounds = re.findall(r'"([\w-]+)>=([\d.]+)"', lists)
    pins = re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints-oldest.txt").read_text(), re.M)
    oldest = {name: Version(version) for name, version in pins}
    assert len(bounds) >= 15
    assert {name: Version(version) for name, version in bounds}.items() <= oldest.items()
    newest = (ROOT / "constraints.txt").read_text()
    assert not [name for name, _ in bounds if f"\n{name}==" not in newest]


def test_the_checks_see_what_they_are_for():
    modules = {
        "utils.__init__": ast.parse(""),
        "utils._a": ast.parse("def late():\n    from ..cli import main"),
        "cli.__init__": ast.parse("from ._main import main"),
        "cli._main": ast.parse("import sklearn_nftk.utils._a\nfrom ..utils import _a"),
    }
    graph = import_graph(modules)
    assert graph["cli._main"] == {"utils._a"}
    found = circle(graph)
    assert set(found) == {"utils._a", "cli.__init__", "cli._main"}
    assert all(later in graph[earlier] for earlier, later in pairwise(found))
    assert running_back(graph) == [("utils._a", "cli.__init__")]
    for code in (
        "from sklearn.base import _fit_context",
        "from sklearn.utils._param_validation import Interval",
        "import sklearn.utils._tags",
        "sklearn.base._fit_context()",
    ):
        assert private_names_of_sklearn("utils._a", ast.parse(code))
    public = ast.parse("from sklearn.base import clone\nfrom .._x import _y\nsklearn.__version__")
    assert not private_names_of_sklearn("utils._a", public)


# -- what lies outside the repository -------------------------------------------------------------

TEXTS = {".py", ".rst", ".md", ".toml", ".yml", ".yaml", ".txt", ".cfg", ".json"}
# Names of things that readers of the repository do not have.
OUTSIDE = re.compile(r"(?<![\w.:/])/(?:home|root|srv|tmp|usr|var)/|\bissue #?\d")
UPWARDS = re.compile(r"(?<![\w.])(?:\.\./)+[\w./-]*")


def published_texts():
    for folder in (PACKAGE, "doc", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            made = {"_build", "generated", "auto_examples", "__pycache__"} & set(path.parts)
            if path.suffix in TEXTS and not made:
                yield path
    yield from (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile"))


def outside_references(text, folder):
    """What a text in this folder refers to outside the repository."""
    upwards = (match.group() for match in UPWARDS.finditer(text))
    return [match.group() for match in OUTSIDE.finditer(text)] + [
        path
        for path in upwards
        if not (target := (folder / path).resolve()).is_relative_to(ROOT) or not target.exists()
    ]


def test_nothing_refers_to_files_outside_the_repository():
    found = {path.relative_to(ROOT): outside_references(path.read_text(), path.parent)
             for path in published_texts()}  # fmt: skip
    assert len(found) > 50
    assert {str(path): names for path, names in found.items() if names} == {}


def test_references_outside_are_seen():
    folder = ROOT / "benchmarks"
    for text in ("issue 12", 'Path("../elsewhere/data")', "../../elsewhere/file", "/home/me/data"):
        assert outside_references(text, folder)
    assert not outside_references("designed as in ../README.md and ../doc/index.rst", folder)
