"""Numbers of samples, heads and rows that are treated at once: all of them are decided here.

::

    samples of a pass     as many as the memory of a pass holds          pass_rows
    heads of a batch      all, if their factors fit beside each other    heads_at_once
    rows of a tile        wide products, three tiles in memory           tile_rows

The unit of all of it is the memory of one sample, measured on the first pass: bytes that are there
once (inputs of modules), and bytes that are there for each head (gradients at their outputs).
"""

from ..utils._device import free_memory

# Tiles are wide enough for the matrix products to run at full speed.
_TILE_ROWS = 1024
# A pass of more samples is no faster, nor is one that holds more on the CPU.
_PASS_ROWS = 1024
_PASS_BYTES = 2**26
# Many heads of few samples are slower than few heads of many samples.
_PASS_HEADS = 32


class Sizes:
    """Sizes for one network on one device; `measure` first.

    Parameters
    ----------
    device : torch.device
    itemsize : int
        Bytes of a kernel value.
    """

    def __init__(self, device, itemsize):
        self.device = device
        self.itemsize = itemsize
        self.of_factors = self.of_uses = (0, 0)

    def measure(self, n_samples, n_heads, factors, uses):
        """Learn the memory of a sample from a pass.

        Parameters
        ----------
        n_samples, n_heads : int
            Of the pass.
        factors : Factors
        uses : list of Use
        """
        of_uses = sum(u.inputs.nbytes for u in uses), sum(u.gradients.nbytes for u in uses)
        self.of_factors, self.of_uses = (
            (-(-once // n_samples), -(-each // (n_samples * n_heads)))
            for once, each in (factors.n_bytes, of_uses)
        )

    def factor_bytes(self, n_heads):
        """Bytes of the factors of one sample."""
        once, each = self.of_factors
        return max(1, once + n_heads * each)

    def heads_at_once(self, n_samples):
        """Of how many heads the factors of so many samples may be held, possibly 0."""
        once, each = self.of_factors
        affordable = free_memory(self.device) // max(1, n_samples) - once
        return max(0, min(_PASS_HEADS, affordable // max(1, each)))

    def pass_rows(self, n_heads):
        """Samples that go through the network together."""
        memory = free_memory(self.device) // 2
        if self.device.type == "cpu":
            memory = min(memory, _PASS_BYTES)
        once, each = self.of_uses
        # What modules that are not watched keep, and gradients on their way, are as much again.
        work = 3 * (once + each) + (n_heads - 1) * each + 2 * self.factor_bytes(n_heads)
        return int(max(1, min(_PASS_ROWS, memory // work)))

    def tile_rows(self, n_kernels, made_heads=0):
        """Rows and columns of a tile.

        Parameters
        ----------
        n_kernels : int
            Planes of a tile that are computed together: H per-output kernels, or 1.
        made_heads : int
            Heads of factors that are made slice by slice, for each tile again; 0 if they are kept.
        """
        memory = free_memory(self.device)
        # Three tiles are at work at once: the result, and the products it is made of.
        affordable = int((memory / (3 * n_kernels * self.itemsize)) ** 0.5)
        if made_heads:
            # Two slices of factors, each for a moment in pieces and whole.
            affordable = min(affordable, memory // (4 * self.factor_bytes(made_heads)))
        return max(1, min(_TILE_ROWS, affordable))

    def fits_on_device(self, n_bytes):
        """Decide if a result stays where it is computed until it is complete."""
        return self.device.type == "cpu" or n_bytes <= free_memory(self.device)
