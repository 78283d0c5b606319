"""What other packages and well-known formulas attribute margins of a network to.

Each function takes trained networks and a task of `_datamodels`, and returns attributions of the
margins of the test samples to the training examples, shape (n_test, n_train), summed over the
networks; larger is more in favour of the true class. ``traker`` and ``kronfluence`` are asked
where they are installed.
"""

import copy
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils.data import DataLoader, TensorDataset

_BATCH = 100


def _dataset(X, y):
    return TensorDataset(torch.as_tensor(X), torch.as_tensor(y))


def _margin(logits, y):
    """Log-odds of the true class of one sample, or the output of a regression."""
    if logits.numel() == 1:
        return logits.sum()
    own = torch.arange(logits.shape[-1]) == y
    others = logits.masked_fill(own, -torch.inf)
    return (logits * own).sum() - others.logsumexp(dim=-1)


# -- formulas -------------------------------------------------------------------------------------


def per_sample_gradients(network, X, y):
    """Gradients of the margins by all parameters, (n, n_parameters)."""
    parameters = dict(network.named_parameters())

    def margin(parameters, x, label):
        return _margin(functional_call(network, parameters, (x[None],))[0], label)

    parts = []
    for x, labels in DataLoader(_dataset(X, y), _BATCH):
        gradients = vmap(grad(margin), in_dims=(None, 0, 0))(parameters, x, labels)
        parts.append(torch.cat([g.flatten(1) for g in gradients.values()], dim=1).detach())
    return torch.cat(parts).numpy()


def residuals(outputs, y):
    """Derivative of the log-likelihood of each example by its margin, or its residual."""
    if y.dtype.kind != "i":
        return y[:, 0] - outputs[:, 0]
    probabilities = torch.softmax(torch.as_tensor(outputs), dim=1).numpy()
    return 1 - probabilities[np.arange(len(y)), y]


def _outputs(network, X):
    with torch.no_grad():
        return network(torch.as_tensor(X)).double().numpy()


def gradient_product(networks, task):
    """Inner products of gradients, times residuals (TracIn at the end of training)."""
    total = 0
    for network in networks:
        train, test = (
            per_sample_gradients(network, *of)
            for of in ((task.X, task.y), (task.X_test, task.y_test))
        )
        total = total + test @ train.T * residuals(_outputs(network, task.X), task.y)
    return total


def exact_trak(networks, task, dampings, out_of_fold=None):
    """TRAK without projections, ``k_x' (K + damping tr(K) / n)^-1 Q`` for each damping, a dict.

    Sums over networks of both factors, as in Park et al. (ICML 2023): attributions without Q are
    averaged, and so are the residuals Q; `out_of_fold` (n,) are better ones where the networks fit
    their examples perfectly.
    """
    features, weights = dict.fromkeys(dampings, 0), 0
    for network in networks:
        train, test = (
            per_sample_gradients(network, *of)
            for of in ((task.X, task.y), (task.X_test, task.y_test))
        )
        K, across = (train @ train.T).astype(float), (test @ train.T).astype(float)
        values, vectors = np.linalg.eigh(K)
        scale = values.mean()
        for damping in dampings:
            inverse = vectors / (values.clip(0) + damping * scale) @ vectors.T
            features[damping] = features[damping] + across @ inverse
        weights = weights + residuals(_outputs(network, task.X), task.y)
    weights = weights if out_of_fold is None else out_of_fold
    return {damping: feature * weights for damping, feature in features.items()}


def representation_similarity(networks, task):
    """Cosines of the last hidden layer, negative for examples of other classes."""
    total = 0
    for network in networks:
        train, test = (
            _outputs(nn.Sequential(*list(network)[:-1]), X) for X in (task.X, task.X_test)
        )
        train, test = (Z / np.linalg.norm(Z, axis=1, keepdims=True) for Z in (train, test))
        total = total + test @ train.T
    if not task.is_classification:
        return total * np.sign(task.y[:, 0] - task.y.mean())
    return np.where(task.y == task.y_test[:, None], total, -total)


# -- packages -------------------------------------------------------------------------------------


def traker(networks, task, proj_dim):
    """TRAK by ``traker`` (classification)."""
    from trak import TRAKer
    from trak.projectors import BasicProjector, ProjectionType

    n_parameters = sum(p.numel() for p in networks[0].parameters())
    projector = BasicProjector(
        grad_dim=n_parameters, proj_dim=proj_dim, seed=0, proj_type=ProjectionType.rademacher,
        device="cpu", block_size=min(100, proj_dim), dtype=torch.float32, model_id=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tracer = TRAKer(
            model=networks[0], task="image_classification", train_set_size=len(task.y),
            save_dir=folder, device="cpu", projector=projector, proj_dim=proj_dim,
            use_half_precision=False, logging_level=logging.ERROR,
        )  # fmt: skip
        for number, network in enumerate(networks):
            tracer.load_checkpoint(network.state_dict(), model_id=number)
            for batch in DataLoader(_dataset(task.X, task.y), _BATCH):
                tracer.featurize(batch=batch, num_samples=len(batch[0]))
        tracer.finalize_features()
        for number, network in enumerate(networks):
            tracer.start_scoring_checkpoint(
                "test", network.state_dict(), model_id=number, num_targets=len(task.y_test)
            )
            for batch in DataLoader(_dataset(task.X_test, task.y_test), _BATCH):
                tracer.score(batch=batch, num_samples=len(batch[0]))
        return np.array(tracer.finalize_scores(exp_name="test")).T.astype(float)


def kronfluence(networks, task, dampings):
    """EK-FAC by ``kronfluence`` for each damping (None is the heuristic), a dict."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    classes = task.is_classification

    class Margins(Task):
        def compute_train_loss(self, batch, model, sample=False):
            outputs = model(batch[0])
            if not classes:
                y = batch[1]
                if sample:
                    y = torch.normal(outputs.detach(), 0.5**0.5)
                return nn.functional.mse_loss(outputs, y, reduction="sum")
            y = batch[1]
            if sample:
                with torch.no_grad():
                    y = torch.multinomial(torch.softmax(outputs, dim=1), 1).flatten()
            return nn.functional.cross_entropy(outputs, y, reduction="sum")

        def compute_measurement(self, batch, model):
            outputs = model(batch[0])
            return -sum(_margin(o, y) for o, y in zip(outputs, batch[1], strict=True))

    totals = dict.fromkeys(dampings, 0)
    for seed, network in enumerate(networks):
        torch.manual_seed(seed)
        model = prepare_model(copy.deepcopy(network), Margins())
        with tempfile.TemporaryDirectory() as folder:
            analyzer = Analyzer(
                "margins", model, Margins(), cpu=True, output_dir=str(Path(folder)),
                disable_tqdm=True, disable_model_save=True, log_level=logging.ERROR,
            )  # fmt: skip
            train, test = _dataset(task.X, task.y), _dataset(task.X_test, task.y_test)
            analyzer.fit_all_factors(
                "ekfac", train, per_device_batch_size=_BATCH, factor_args=FactorArguments("ekfac")
            )
            for damping in dampings:
                name = f"damping {damping}"
                analyzer.compute_pairwise_scores(
                    name, "ekfac", test, train, _BATCH, per_device_train_batch_size=_BATCH,
                    score_args=ScoreArguments(damping_factor=damping),
                )  # fmt: skip
                scores = analyzer.load_pairwise_scores(name)["all_modules"]
                totals[damping] = totals[damping] + scores.double().numpy()
    return totals
