"""What the Displays share: colours, heat maps, names that fit, marks of interchangeable layers."""

import math
import textwrap
from string import ascii_lowercase

import numpy as np

# The ends of the diverging map PuOr of ColorBrewer, which colour-blind readers can tell apart.
DIVERGING = "PuOr"
FOR, AGAINST, NEUTRAL = "#5e3c99", "#e66101", "0.45"

# Sizes of text, in points.
_SMALLEST_NAME = 6.0
_NUMBER_SIZES = (9, 8, 7)
_NOTE_SIZE = 8
# Of the size of a font: the height of a line, and the mean width of a character in a text.
_LINE = 1.25
_CHARACTER = 0.55


def mark_layers(layer_names, groups):
    """Names of the layers, those of each group of interchangeable ones with a letter."""
    letters = {layer: _letter(i) for i, group in enumerate(groups) for layer in group}
    return [
        f"{name} ({letters[layer]})" if layer in letters else name
        for layer, name in enumerate(layer_names)
    ]


def marks_note(groups, threshold):
    """What the letters of `mark_layers` mean; empty where there are none."""
    if not groups:
        return ""
    letters = "(a)" if len(groups) == 1 else f"(a) to ({_letter(len(groups) - 1)})"
    within = "" if len(groups) == 1 else " within each group"
    return (
        f"{letters}: centred alignment ≥ {threshold:g}{within}, "
        "their weights cannot be told apart"
    )


def _letter(index):
    repeats, index = divmod(index, len(ascii_lowercase))
    return ascii_lowercase[index] * (repeats + 1)


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
    ax.set_xticks(range(len(column_names)), column_names)
    ax.set_yticks(range(len(row_names)), row_names)
    return image


def fit_names(*axes):
    """Turn, shrink and at last leave out the names at these x or y axes until none touch.

    Only the finished layout shows how much room there is, so this comes last.
    """
    for axis in axes:
        _settle(axis.axes)
        labels = axis.get_ticklabels()
        if not labels:
            continue
        boxes = [label.get_window_extent() for label in labels]
        room, size = _pitch(axis), labels[0].get_fontsize()
        if axis.axis_name == "x" and max(box.width for box in boxes) > 0.9 * room:
            axis.set_tick_params(rotation=90)
        # A turned name needs the height of a line, as one at the y axis does.
        if axis.axis_name == "y" or max(box.width for box in boxes) > 0.9 * room:
            line = 1.1 * max(box.height for box in boxes)
            smaller = float(np.clip(size * room / line, _SMALLEST_NAME, size))
            step = math.ceil(line * smaller / size / room - 1e-6)
            names = [label.get_text() for label in labels]
            axis.set_ticks(axis.get_ticklocs()[::step], names[::step], fontsize=smaller)


def write_numbers(image, notes=None):
    """Write its value into each cell, and below it a note, where they fit; all or none."""
    ax, values = image.axes, image.get_array()
    _settle(ax)
    points = 72 / ax.figure.dpi
    width, height = 0.92 * points * _pitch(ax.xaxis), points * _pitch(ax.yaxis)
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
        return
    for (row, column), value in np.ndenumerate(values):
        style = {"color": _ink(image, value), "ha": "center"}
        va = "bottom" if has_notes else "center"
        ax.text(column, row, numbers[row, column], va=va, fontsize=size, **style)
        if has_notes:
            ax.text(column, row, notes[row, column], va="top", fontsize=size - 1, **style)


def write_note(ax, text):
    """Write a line or more below the label of the x axis."""
    if text:
        _, inches = ax.figure.figure.get_size_inches()[::-1]
        ax.annotate(
            wrapped(text, inches, _NOTE_SIZE),
            xy=(0.5, 0),
            xycoords=ax.xaxis.label,
            xytext=(0, -3),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=_NOTE_SIZE,
            color=NEUTRAL,
        )


def wrapped(text, inches, size):
    """Break a text into lines of at most so many inches."""
    return textwrap.fill(text, max(20, int(72 * inches / (_CHARACTER * size))))


def number(value, sign=""):
    """Three digits, with a true minus sign; sign "+" shows it before positive ones too."""
    return f"{value:{sign}.3g}".replace("-", "−")


def _settle(ax):
    """Lay the figure out, after which positions on it are known."""
    ax.figure.figure.draw_without_rendering()


def _pitch(axis):
    """Pixels between the positions 0 and 1 of an axis."""
    ends = axis.axes.transData.transform([(0, 0), (1, 1)])
    return abs(ends[1] - ends[0])["xy".index(axis.axis_name)]


def _widest(texts, size):
    """Width of the widest of these texts, in points."""
    from matplotlib.textpath import TextPath

    longest = max(np.ravel(texts), key=len)
    return TextPath((0, 0), longest, size=size).get_extents().width


def _ink(image, value):
    """Black or white, whichever can be read on the colour of the value."""
    red, green, blue, _ = image.cmap(image.norm(value))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
