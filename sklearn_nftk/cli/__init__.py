"""``python -m sklearn_nftk``: compare NFT-K with SVMs, or explain its decisions, on data given."""

from ._main import main

__all__ = ["main"]
