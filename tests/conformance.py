"""The promises of every source of layer kernels (`sklearn_nftk.kernels.KernelSource`).

A subclass of `SourceConformance` whose name begins with "Test" says how the source is made and for
which samples, and inherits the tests.
"""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context

from sklearn_nftk.kernels import KernelSource


class SourceConformance:
    """Facts that hold for every source."""

    n_kernels = 1  # H
    rtol = 1e-9

    def samples(self):
        """At least 8 samples, array-like."""
        return np.random.default_rng(0).standard_normal((23, 4))

    def make_source(self):
        raise NotImplementedError

    def refused(self):
        """Samples that `prepare` refuses, with what its message says."""
        X = self.samples()
        broken = X.copy()
        broken[3] = np.nan
        return [(broken, "NaN"), (X[:, :-1], r"\d")]

    @pytest.fixture
    def source(self):
        return self.make_source()

    @pytest.fixture
    def batch(self, source):
        return source.prepare(self.samples())

    def assert_equal(self, actual, expected):
        scale = np.abs(expected).max(initial=0)
        assert_allclose(actual, expected, rtol=self.rtol, atol=self.rtol * scale)

    def test_is_a_source(self, source, batch):
        assert isinstance(source, KernelSource)
        assert isinstance(source.dtype, np.dtype)
        assert all(isinstance(name, str) for name in source.layer_names)
        assert source.n_outputs is None or source.n_outputs >= 1
        assert len(batch) == len(self.samples())
        assert len(batch[2:5]) == 3
        assert getattr(batch, "nbytes", 0) >= 0

    def test_shapes_types_and_layout(self, source, batch):
        n, shape = len(batch), (self.n_kernels, len(source.layer_names))
        assert source.diag(batch).shape == (*shape, n)
        for planes, expected in [
            (source.block(batch), (*shape, n, n)),
            (source.gram(batch), (*shape, n, n)),
            (source.block(batch[:5], batch), (*shape, 5, n)),
        ]:
            assert planes.shape == expected
            assert planes.dtype == source.dtype
            assert all(plane.flags.c_contiguous for plane in planes.reshape(-1, *expected[2:]))

    def test_kernels_of_a_batch_are_symmetric_and_positive_semidefinite(self, source, batch):
        for planes in (source.block(batch), source.gram(batch)):
            assert_array_equal(planes, planes.swapaxes(-1, -2))
        values = np.linalg.eigvalsh(planes.astype(float))
        assert (values[..., 0] >= -max(1e-9, self.rtol) * values[..., -1]).all()

    def test_block_gram_tiles_and_diagonal_agree(self, source, batch):
        whole = source.gram(batch)
        self.assert_equal(source.block(batch), whole)
        self.assert_equal(source.block(batch, batch), whole)
        self.assert_equal(source.diag(batch), whole.diagonal(axis1=2, axis2=3))

    @pytest.mark.parametrize("working_memory", [1024, 0.005])
    def test_tiles_are_the_upper_half(self, source, batch, working_memory):
        whole = source.gram(batch)
        times = np.zeros(whole.shape[2:])
        with config_context(working_memory=working_memory):
            for rows, columns, tile in source.tiles(batch):
                assert rows.start <= columns.start
                assert tile.shape == (*whole.shape[:2], *times[rows, columns].shape)
                self.assert_equal(tile, whole[:, :, rows, columns])
                times[rows, columns] += 1
            self.assert_equal(source.gram(batch), whole)
            self.assert_equal(source.block(batch, batch[:7]), whole[..., :7])
        assert_array_equal(times + np.tril(times.T, -1) >= 1, True)
        assert times.max() == 1

    def test_slices_of_batches_and_other_batches(self, source, batch):
        whole = source.gram(batch)
        self.assert_equal(source.block(batch[2:6], batch[5:]), whole[:, :, 2:6, 5:])
        self.assert_equal(source.block(batch[2:6]), whole[:, :, 2:6, 2:6])
        self.assert_equal(source.diag(batch[2:6]), source.diag(batch)[..., 2:6])
        other = source.prepare(self.samples()[2:6])
        self.assert_equal(source.block(other, batch[6:]), whole[:, :, 2:6, 6:])

    def test_empty_slices(self, source, batch):
        shape = (self.n_kernels, len(source.layer_names))
        assert source.block(batch[:0], batch).shape == (*shape, 0, len(batch))
        assert source.block(batch, batch[:0]).shape == (*shape, len(batch), 0)
        assert source.diag(batch[:0]).shape == (*shape, 0)

    def test_prepare_refuses_what_it_cannot_take(self, source):
        for X, message in self.refused():
            with pytest.raises(ValueError, match=message):
                source.prepare(X)

    @pytest.mark.parametrize("method", ["gram", "tiles"])
    def test_progress_is_told_and_forgotten(self, source, batch, method):
        bars = []

        class Bar:
            def __init__(self, total, description):
                self.total, self.done, self.open = total, 0, False
                bars.append(self)

            def __enter__(self):
                self.open = True
                return self

            def __exit__(self, *exc_info):
                self.open = False

            def update(self, n=1):
                assert self.open
                self.done += n

        with config_context(working_memory=0.005):
            list(getattr(source, method)(batch, Bar))
            list(getattr(source, method)(batch))
        assert len(bars) == 1
        assert bars[0].done == bars[0].total > 0
        assert not bars[0].open

    def test_pickled_sources_serve(self, source, batch):
        whole, loaded = source.gram(batch), pickle.loads(pickle.dumps(source))
        assert loaded.layer_names == source.layer_names
        self.assert_equal(loaded.gram(loaded.prepare(self.samples())), whole)

    def test_threads_share_a_source(self, source, batch):
        whole, X = source.gram(batch), self.samples()
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(lambda: source.gram(source.prepare(X))) for _ in range(8)]
        for future in futures:
            self.assert_equal(future.result(), whole)

    def test_read_only_samples_are_taken(self, source):
        X = self.samples()
        if isinstance(X, np.ndarray):
            X.flags.writeable = False
        once = not torch.is_warn_always_enabled()
        torch.set_warn_always(True)
        try:
            source.block(source.prepare(X))
        finally:
            torch.set_warn_always(not once)
