"""Batches of samples, and the factors that stand for them in the kernels."""

import torch


class Factors:
    """Factors of some samples: ``layers[layer][part]``.

    Parameters
    ----------
    layers : list of list of Factor
    version : int
        Of the plan they were made by: factors of two versions have no Gram.
    """

    def __init__(self, layers, version):
        self.layers = layers
        self.version = version

    def __len__(self):
        return len(self.layers[0][0])

    def _each(self, change):
        return Factors([[change(part) for part in parts] for parts in self.layers], self.version)

    def __getitem__(self, rows):
        return self._each(lambda part: part[rows])

    def room(self, n_columns, per_output):
        """Make room for kernels with m samples: a tensor of shape (H, L, n, m) or (1, L, n, m)."""
        first = self.layers[0][0]
        n_kernels = first.n_heads if per_output else 1
        return first.gradient_like((n_kernels, len(self.layers), len(self), n_columns))

    def combined(self, weights):
        """Factors of one head, a combination of all."""
        return self._each(lambda part: part.combined(weights))

    def empty(self, n):
        """Make room for the factors of n samples of the same kind."""
        return self._each(lambda part: part.empty(n))

    def put(self, rows, piece):
        """Copy the factors of some samples to their place."""
        for mine, others in zip(self.layers, piece.layers, strict=True):
            for part, other in zip(mine, others, strict=True):
                part[rows].copy_(other)

    @property
    def n_bytes(self):
        """Bytes of all factors that are there once, and of those that are there for each head."""
        parts = [part.n_bytes for parts in self.layers for part in parts]
        return tuple(sum(n_bytes) for n_bytes in zip(*parts, strict=True))

    def diagonals(self):
        """Squared gradient norms of each head, a tensor of shape (H, L, n)."""
        layers = [sum(part.diagonal() for part in parts) for parts in self.layers]
        return torch.stack(layers).permute(2, 0, 1)


class Batch:
    """Samples that `TangentKernels.prepare` has seen: with their factors, or *deferred*.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
        The samples, from which factors are made again where the plan has changed.
    factors : Factors or None
        None where all of them do not fit: those of a slice are then made whenever it is taken.

    Attributes
    ----------
    nbytes : int
        Bytes of the factors that are kept, 0 for a deferred batch.
    """

    def __init__(self, X, factors=None):
        self.X = X
        self.factors = factors

    def __len__(self):
        return len(self.X)

    def __getitem__(self, rows):
        return Batch(self.X[rows], None if self.factors is None else self.factors[rows])

    @property
    def deferred(self):
        """True where factors are made whenever they are needed."""
        return self.factors is None

    @property
    def nbytes(self):
        """Bytes of the factors that are kept."""
        return 0 if self.factors is None else sum(self.factors.n_bytes)
