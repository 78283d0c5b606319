"""What is known of a batch of samples: its factors, kept, or computed when asked for."""

import torch


class Batch:
    """Factors of a batch: ``factors[layer][part]``."""

    def __init__(self, factors):
        self.factors = factors

    def __len__(self):
        return len(self.factors[0][0])

    def _each(self, change):
        return Batch([[change(part) for part in parts] for parts in self.factors])

    def __getitem__(self, rows):
        return self._each(lambda part: part[rows])

    @classmethod
    def joined(cls, pieces, n):
        """Join pieces, of `n` samples together, as they come."""
        whole, start = None, 0
        for piece in pieces:
            if len(piece) == n:
                return piece
            if whole is None:
                whole = piece._each(lambda part: part.empty(n))
            rows = slice(start, start := start + len(piece))
            for mine, other in zip(whole.factors, piece.factors, strict=True):
                for part, piece_of_part in zip(mine, other, strict=True):
                    part[rows].copy_(piece_of_part)
        return whole

    @property
    def n_bytes(self):
        """Bytes of all factors that are there once, and of those that are there for each head."""
        parts = [part.n_bytes for parts in self.factors for part in parts]
        return tuple(sum(n_bytes) for n_bytes in zip(*parts, strict=True))

    def diagonals(self):
        """Squared gradient norms of each head, a tensor of shape (H, L, n)."""
        layers = [sum(part.diagonal() for part in parts) for parts in self.factors]
        return torch.stack(layers).permute(2, 0, 1)


class DeferredBatch:
    """Stands for a batch whose factors do not fit: slices of it are computed when taken.

    Parameters
    ----------
    compute : callable
        From samples and a slice of the heads to a `Batch`.
    X : array or tensor of shape (n, ...)
    heads : slice
        Those it stands for.
    """

    def __init__(self, compute, X, heads):
        self.compute = compute
        self.X = X
        self.heads = heads

    def __len__(self):
        return len(self.X)

    def __getitem__(self, rows):
        return self.compute(self.X[rows], self.heads)

    def take_heads(self, heads):
        """Stand for a slice of the heads."""
        return DeferredBatch(self.compute, self.X, heads)
