"""Tiles on their way from a GPU to host memory, while the next ones are computed."""

from collections import deque

import torch


class Transfer:
    """Two pinned buffers that take turns: the GPU fills one while the other is emptied.

    When the ``with`` block is left without an error, every tile has been delivered.

    Parameters
    ----------
    device : torch.device
        Where the tiles come from. On the CPU the same is done step by step.
    """

    def __init__(self, device):
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._spare = [torch.empty(0), torch.empty(0)]
        self._under_way: deque = deque()

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        while self._under_way and error is None:
            self._deliver_oldest()

    def send(self, tile, deliver):
        """Start to copy a tile; ``deliver`` is called with the copy once it is there."""
        if not self._spare:
            self._deliver_oldest()
        buffer = self._spare.pop()
        if buffer.numel() < tile.numel() or buffer.dtype != tile.dtype:
            pinned = self._stream is not None
            buffer = torch.empty(tile.numel(), dtype=tile.dtype, pin_memory=pinned)
        copy = buffer[: tile.numel()].view(tile.shape)
        copy.copy_(tile, non_blocking=True)
        arrived = self._stream.record_event() if self._stream is not None else None
        self._under_way.append((buffer, copy, arrived, deliver))

    def _deliver_oldest(self):
        buffer, copy, arrived, deliver = self._under_way.popleft()
        if arrived is not None:
            arrived.synchronize()
        deliver(copy)
        self._spare.append(buffer)
