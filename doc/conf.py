"""Configuration of the documentation."""

import os
import re

import sklearn_nftk

# Examples and the classes they fit are small; one progress style, no GPU surprises.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

project = "sklearn-nftk"
author = "the sklearn-nftk developers"
copyright = f"2026, {author}"
version = release = sklearn_nftk.__version__

extensions = [
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
autosummary_generate = True
numpydoc_show_class_members = False
exclude_patterns = ["_build", "examples"]
templates_path = ["templates"]

html_theme = "pydata_sphinx_theme"
html_title = f"{project} {version}"
html_theme_options = {
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "navigation_with_keys": False,
}

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",
    "abort_on_example_error": True,
    "doc_module": ("sklearn_nftk",),
    "backreferences_dir": None,
}


def _without_foreign_labels(app, what, name, obj, options, lines):
    """Inherited docstrings refer to labels of scikit-learn's own documentation."""
    lines[:] = [re.sub(r":ref:`([^`<]+?)\s*<[^`>]+>`", r"\1", line) for line in lines]
    lines[:] = [re.sub(r":term:`([^`<]+)`", r"\1", line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", _without_foreign_labels)
