"""What is known of a batch of samples: its factors, kept, or computed when asked for."""

import torch


class Batch:
    """Factors of a batch: ``factors[layer][part]``."""

    def __init__(self, factors):
        self.factors = factors

    def __len__(self):
        return len(self.factors[0][0])

    def __getitem__(self, rows):
        return Batch([[part[rows] for part in parts] for parts in self.factors])

    @classmethod
    def concatenate(cls, batches):
        """Join batches of samples."""
        if len(batches) == 1:
            return batches[0]
        layers = zip(*(batch.factors for batch in batches), strict=True)
        return cls(
            [
                [type(parts[0]).concatenate(parts) for parts in zip(*layer, strict=True)]
                for layer in layers
            ]
        )

    @property
    def n_bytes(self):
        """Bytes of all factors."""
        return sum(part.n_bytes for parts in self.factors for part in parts)

    def diagonals(self):
        """Squared gradient norms of each head, a tensor of shape (H, L, n)."""
        layers = [sum(part.diagonal() for part in parts) for parts in self.factors]
        return torch.stack(layers).permute(2, 0, 1)


class DeferredBatch:
    """Stands for a batch whose factors do not fit: slices of it are computed when taken.

    Parameters
    ----------
    compute : callable
        From samples to a `Batch`.
    X : array or tensor of shape (n, ...)
    step : int
        How many samples are computed at once where all are gone through.
    """

    def __init__(self, compute, X, step):
        self.compute = compute
        self.X = X
        self.step = step

    def __len__(self):
        return len(self.X)

    def __getitem__(self, rows):
        return self.compute(self.X[rows])

    def diagonals(self):
        """Squared gradient norms of each head, a tensor of shape (H, L, n)."""
        starts = range(0, len(self), self.step)
        return torch.cat([self[start : start + self.step].diagonals() for start in starts], dim=2)
