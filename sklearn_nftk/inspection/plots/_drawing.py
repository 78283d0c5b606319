"""Shared by the Displays: colours, heat maps, names that fit, marks of interchangeable layers."""

import math
import textwrap
from functools import lru_cache
from string import ascii_lowercase

import numpy as np

from ...utils._row_ids import id_text

# The ends of the diverging map PuOr of ColorBrewer, which colour-blind readers can tell apart.
DIVERGING = "PuOr"
FOR, AGAINST, NEUTRAL = "#5e3c99", "#e66101", "0.45"

MINUS, NO_BREAK = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"

# Sizes of text, in points.
_SMALLEST_NAME = 6.0
_SMALL_NAME = 8.0  # names that do not fit at this size are turned
_NUMBER_SIZES = (9, 8, 7)
_NOTE_SIZE = 9
# Characters of an id: names of rows must leave room for the rest.
_LONGEST_ID = 20
# Height of a line, of the size of its font.
_LINE = 1.25


def mark_layers(layer_names, groups):
    """Names of the layers, those of each group of interchangeable ones with a letter."""
    letters = {layer: _letter(i) for i, group in enumerate(groups) for layer in group}
    return [
        f"{name} ({letters[layer]})" if layer in letters else name
        for layer, name in enumerate(layer_names)
    ]


def marks_note(groups, threshold):
    """Meaning of the letters of `mark_layers`; empty where there are none."""
    if not groups:
        return ""
    letters = [f"({_letter(i)})" for i in range(len(groups))]
    named = ", ".join(letters) if len(groups) < 4 else f"(a) to {letters[-1]}"
    return f"{named}: centred alignment ≥ {threshold:g}, their weights cannot be told apart"


def _letter(index):
    repeats, index = divmod(index, len(ascii_lowercase))
    return ascii_lowercase[index] * (repeats + 1)


def sample_name(row_id):
    """Name of a sample that was asked about."""
    return f"sample {_short_id(row_id)}"


def example_name(row_id):
    """Name of a training example."""
    text = _short_id(row_id)
    return f"#{text}" if text.isdigit() else text


def _short_id(row_id):
    text = " ".join(id_text(row_id).split())
    if len(text) > _LONGEST_ID:
        half = _LONGEST_ID // 2  # names are often told apart by their ends
        text = f"{text[:half]}…{text[1 - half :]}"
    return text.replace("$", r"\$")  # no formulas


# -- pieces of figures ----------------------------------------------------------------------------


def new_axes(ax, width, height):
    """The axes to draw on: the user's, or those of a new figure of this size in inches."""
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax


def new_figure(ax, width, height):
    """A figure for several axes: a new one, or a part of the user's in place of his axes."""
    import matplotlib.pyplot as plt

    if ax is None:
        return plt.figure(figsize=(width, height), layout="constrained")
    if ax.get_subplotspec() is None:
        raise ValueError("ax must be one of a grid, as plt.subplots() makes them.")
    figure = ax.figure.add_subfigure(ax.get_subplotspec())
    ax.remove()
    return figure


def heat_map(ax, values, row_names, column_names, **colours):
    """Draw rows by columns of coloured cells, each with its name; returns the image."""
    image = ax.imshow(values, aspect="auto", interpolation="nearest", **colours)
    # Turned, until `fit_names` finds room: side by side, long names could leave none for the axes.
    ax.set_xticks(range(len(column_names)), column_names, rotation=90)
    ax.set_yticks(range(len(row_names)), row_names)
    return image


def names_height(names, width):
    """Inches for names below columns that share so many inches."""
    widest = _widest(names, _SMALL_NAME) / 72
    return widest if widest > width / len(names) else 0.1


def fit_names(*axes):
    """Shrink, turn and at last leave out the names at these x or y axes until none touch.

    Only the finished layout shows how much room there is, so this comes last; it leaves the figure
    laid out, for `fit_titles` and `write_numbers`.
    """
    _lay_out(axes[0].axes)
    for axis in axes:
        labels = axis.get_ticklabels()
        if not labels:
            continue
        names, size = [label.get_text() for label in labels], labels[0].get_fontsize()
        room = 0.92 * 72 / axis.axes.figure.dpi * _pitch(axis)
        upright = axis.axis_name == "x" and _widest(names, _SMALL_NAME) <= room
        if upright:
            axis.set_tick_params(rotation=0)
        needed = _widest(names, size) if upright else _LINE * size
        smaller = float(np.clip(size * room / needed, _SMALLEST_NAME, size))
        step = math.ceil(needed * smaller / size / room - 1e-6)
        fitting = min(size, size * room * step / needed)
        if upright or step > 1 or fitting < size:
            axis.set_ticks(axis.get_ticklocs()[::step], names[::step], fontsize=fitting)
            _lay_out(axis.axes)  # layouts are most of the time that pictures take


def fit_titles(axes):
    """Shrink and at last shorten the titles of panels side by side until none touch.

    The figure must have been laid out, as `fit_names` leaves it.
    """
    room = 72 / axes[0].figure.dpi * min(ax.get_window_extent().width for ax in axes)
    titles, size = [ax.get_title().split("\n") for ax in axes], axes[0].title.get_fontsize()
    smaller = size * room / max(_widest(lines, size) for lines in titles)
    size = max(_SMALLEST_NAME, min(size, smaller))
    for ax, lines in zip(axes, titles, strict=True):
        # Widths grow with sizes by steps; the gap between the panels takes the difference.
        short = [_shortened(line, 1.05 * room, size) for line in lines]
        ax.set_title("\n".join(short), fontsize=size)


def write_numbers(image, notes=None):
    """Write its value into each cell, and below it a note, where they fit; all or none.

    The figure must have been laid out, as `fit_names` leaves it. Returns True where the notes
    were written.
    """
    ax, values = image.axes, image.get_array()
    points = 72 / ax.figure.dpi
    width, height = 0.82 * points * _pitch(ax.xaxis), points * _pitch(ax.yaxis)
    numbers = np.vectorize("{:.2f}".format)(values)

    def fitting(texts, lines):
        for size in _NUMBER_SIZES:
            if _widest(texts, size) <= width and lines * _LINE * size <= height:
                return size
        return None

    size, has_notes = fitting(numbers, 1), False
    if notes is not None and (shared := fitting(notes, 2)) is not None:
        size, has_notes = min(size, shared), True
    if size is None:
        return False
    for (row, column), value in np.ndenumerate(values):
        style = {"color": _ink(image, value), "ha": "center"}
        va = "bottom" if has_notes else "center"
        ax.text(column, row, numbers[row, column], va=va, fontsize=size, **style)
        if has_notes:
            ax.text(column, row, notes[row, column], va="top", fontsize=size - 1, **style)
    return has_notes


def label_columns(ax, label, note):
    """Label the x axis, with a note below in lines that do not reach beyond the figure."""
    _lay_out(ax)
    box, figure = ax.get_window_extent(), ax.figure.bbox
    centre = (box.x0 + box.x1) / 2
    inches = 2 * min(centre - figure.x0, figure.x1 - centre) / ax.figure.dpi
    lines = [label, _wrapped(note, inches, _NOTE_SIZE)] if note else [label]
    ax.set_xlabel("\n".join(lines), size=_NOTE_SIZE)


def fit_lines(figure, lines, size):
    """Join lines that are not empty, broken where they would reach beyond the finished figure."""
    if figure is not figure.figure:  # only the layout gives parts of figures their width
        _lay_out(figure)
    inches = figure.bbox.width / figure.dpi
    return "\n".join(_wrapped(line, inches, size) for line in lines if line)


def _wrapped(text, inches, size):
    share = 0.95 * 72 * inches / _widest([text], size)
    return textwrap.fill(text, max(20, int(share * len(text))))


def numbers(*values, sign=""):
    """Write numbers with the same decimals, two or more, so that sums can be checked.

    Minus signs are true ones; sign "+" writes those of positive numbers too.
    """
    largest = float(np.max(np.abs(values))) or 1.0
    kind = f".{max(2, 1 - math.floor(math.log10(largest)))}f"
    if not 1e-3 <= largest < 1e6:
        kind = ".2e"
    return [f"{value:{sign}{kind}}".replace("-", MINUS) for value in values]


def _lay_out(artist):
    """Lay the figure out, after which positions on it are known."""
    artist.figure.figure.draw_without_rendering()


def _pitch(axis):
    """Pixels between the positions 0 and 1 of an axis."""
    ends = axis.axes.transData.transform([(0, 0), (1, 1)])
    return abs(ends[1] - ends[0])["xy".index(axis.axis_name)]


def _widest(texts, size):
    """Width of the widest of these texts, in points."""
    longest = sorted(np.ravel(texts), key=len)[-3:]  # characters differ in width
    return size * max((_ems(str(text)) for text in longest if text.strip()), default=1 / size)


@lru_cache(maxsize=4096)
def _ems(text):
    """Width of a text in units of its font size."""
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size=1).get_extents().width


def _shortened(line, room, size):
    """A line of at most so many points, with an ellipsis for its middle if need be."""
    short, kept = line, len(line)
    while kept and _widest([short], size) > room:
        kept -= 1
        # Names are often told apart by their ends.
        short = line[: (kept + 1) // 2] + "…" + line[len(line) - kept // 2 :]
    return short


def _ink(image, value):
    """Black or white, whichever can be read on the colour of the value."""
    red, green, blue, _ = image.cmap(image.norm(value))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
