"""The motion of the layers' kernels as a picture."""

import numpy as np

from ..inspection.plots._drawing import new_figure

# column of the frame -> label of its axis, and whether it spans orders of magnitude
QUANTITIES = {
    "kernel_velocity": ("kernel velocity\n(distance per epoch)", True),
    "kernel_distance": ("kernel distance\nfrom the first record", False),
    "alignment": ("centred alignment\nwith the targets", False),
    "effective_rank": ("effective rank", False),
    "weight": ("learned weight", False),
}
_TOTAL = "total"
_COLUMNS = 3  # of panels


class KernelTrajectoryDisplay:
    """Lines over the epochs, one for each layer: velocity, distance, alignment, rank, weight.

    Use `from_trajectory` to create it.

    Parameters
    ----------
    measurements : pandas.DataFrame
        As of :meth:`KernelTrajectory.frame`.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_quantities,)
    lines_ : ndarray of matplotlib Line2D, shape (n_quantities, n_layers + 1)
        In the order of the layers, the sum last; None where there is nothing to draw.
    figure_ : matplotlib Figure or SubFigure

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk.dynamics import KernelTrajectory, KernelTrajectoryDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> trajectory = KernelTrajectory(X[::5], y[::5])
    >>> network = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)
    ... ).double()
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> for epoch in range(5):
    ...     _ = trajectory.record(network, epoch)
    ...     optimizer.zero_grad()
    ...     loss = torch.nn.functional.cross_entropy(
    ...         network(torch.from_numpy(X)), torch.from_numpy(y)
    ...     )
    ...     loss.backward()
    ...     _ = optimizer.step()
    >>> KernelTrajectoryDisplay.from_trajectory(trajectory).frame().shape
    (15, 7)
    """

    def __init__(self, measurements):
        self.measurements = measurements

    @classmethod
    def from_trajectory(cls, trajectory):
        """Take the measurements of a trajectory.

        Parameters
        ----------
        trajectory : KernelTrajectory
            With at least one record.

        Returns
        -------
        KernelTrajectoryDisplay
        """
        return cls(trajectory.frame())

    def frame(self):
        """Return the numbers behind the picture.

        Returns
        -------
        pandas.DataFrame
            As of :meth:`KernelTrajectory.frame`.
        """
        return self.measurements.copy()

    def plot(self, ax=None, *, quantities=None, cmap="viridis"):
        """Draw one panel for each quantity, with one line for each layer.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            One of a grid, whose place the panels take. None makes a figure.
        quantities : list of str, default=None
            Of "kernel_velocity" (on a logarithmic scale), "kernel_distance", "alignment",
            "effective_rank" and "weight". None draws those that there are.
        cmap : str or Colormap, default="viridis"
            Of the layers, from the input to the output; their sum is a black dashed line.

        Returns
        -------
        KernelTrajectoryDisplay
            Itself.

        Raises
        ------
        ValueError
            For an unknown quantity.
        """
        import matplotlib as mpl

        if quantities is None:
            known = self.measurements[list(QUANTITIES)].notna().any()
            quantities = [name for name in QUANTITIES if known[name]]
        unknown = [name for name in quantities if name not in QUANTITIES]
        if unknown or not len(quantities):
            raise ValueError(f"quantities must be some of {list(QUANTITIES)}, got {quantities!r}.")
        n_columns = min(_COLUMNS, len(quantities))
        n_rows = -(-len(quantities) // n_columns)
        figure = new_figure(ax, width=3.2 * n_columns + 1.2, height=2.9 * n_rows)
        panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for spare in panels[len(quantities) :]:
            spare.remove()
        panels = panels[: len(quantities)]
        layers = [name for name in self.measurements["layer"].unique() if name != _TOTAL]
        # The lightest colours cannot be seen on white.
        colours = mpl.colormaps.get_cmap(cmap)(np.linspace(0, 0.85, len(layers)))
        styles = [{"color": colour} for colour in colours]
        styles.append({"color": "black", "linestyle": "--"})
        self.lines_ = np.array(
            [
                [
                    self._line(panel, quantity, layer, style)
                    for layer, style in zip([*layers, _TOTAL], styles, strict=True)
                ]
                for panel, quantity in zip(panels, quantities, strict=True)
            ],
            dtype=object,
        )
        handles = [next(filter(None, of_layer), None) for of_layer in self.lines_.T]
        handles = [line for line in handles if line is not None]
        figure.legend(handles=handles, loc="outside right upper", title="layer", fontsize="small")
        self.axes_, self.figure_ = panels, figure
        return self

    def _line(self, ax, quantity, layer, style):
        """Draw what is known of one layer; None if nothing is."""
        label, logarithmic = QUANTITIES[quantity]
        ax.set(xlabel="epoch", ylabel=label)
        rows = self.measurements[self.measurements["layer"] == layer]
        rows = rows[rows[quantity].notna()]
        if logarithmic:
            rows = rows[rows[quantity] > 0]
        if rows.empty:
            return None
        if logarithmic:
            ax.set_yscale("log")
        (line,) = ax.plot(
            rows["epoch"], rows[quantity], label=layer, marker=".", markersize=4, **style
        )
        return line
