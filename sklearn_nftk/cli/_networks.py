"""From ``--network`` to a network, and to the classifier that goes with it."""

import importlib
from collections import OrderedDict
from importlib.util import find_spec

from torch import nn, optim

from ..estimators import MultiLayerNTKClassifier
from ..networks import InfiniteMLP, default_network, is_trained
from ._data import UsageError

PRESETS = ("mlp", "cnn", "infinite")
# Of networks that are trained. Their layers differ, so that what alignment alone chooses is worth
# showing; shrinkage would mix it with uniform weights wherever these predict as well.
TRAINED = {"cv": 4, "shrinkage": 0.0}


def parse_network(text, dataset):
    """Turn ``--network`` into a network.

    Parameters
    ----------
    text : str or None
        One of ``PRESETS``, hidden layer sizes ("512,512"), or "package.module:name" of a module or
        function. None is "cnn" for images and "mlp" for other data.
    dataset : Dataset

    Raises
    ------
    UsageError
        If it is none of these, or a preset that does not go with the data.
    """
    if text is None:
        text = "mlp" if dataset.image_shape is None else "cnn"
    if text == "mlp":
        return default_network()
    if text == "infinite":
        return InfiniteMLP(depth=3)
    if text == "cnn":
        return _untrained_cnn(dataset)
    if ":" in text:
        module, _, attribute = text.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"--network {text}: {error}") from error
    try:
        sizes = tuple(int(size) for size in text.split(","))
        return default_network().set_params(hidden_layer_sizes=sizes)
    except ValueError as error:
        raise UsageError(
            f"--network {text}: give {', '.join(PRESETS)}, hidden layer sizes such as 512,512, or "
            "package.module:name"
        ) from error


def make_classifier(network, random_state):
    """The classifier on a network: cross-fitted where the network is trained."""
    options = TRAINED if is_trained(network) else {}
    return MultiLayerNTKClassifier(network, random_state=random_state, **options)


def small_cnn(image_shape, n_outputs):
    """Two convolutions and two linear layers, on pictures whose pixels come as features.

    Parameters
    ----------
    image_shape : tuple of two ints
        Height and width, of which n_features is the product.
    n_outputs : int

    Returns
    -------
    torch.nn.Sequential
        Maps (n, n_features) to (n, n_outputs).
    """
    height, width = image_shape
    layers = {
        "image": nn.Unflatten(1, (1, height, width)),
        "conv1": nn.Conv2d(1, 8, 3, padding=1),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(8, 16, 3, padding=1),
        "relu2": nn.ReLU(),
        "pool": nn.MaxPool2d(2),
        "flat": nn.Flatten(),
        "dense": nn.Linear(16 * (height // 2) * (width // 2), 32),
        "relu3": nn.ReLU(),
        "output": nn.Linear(32, n_outputs),
    }
    return nn.Sequential(OrderedDict(layers))


def _untrained_cnn(dataset):
    if dataset.image_shape is None:
        raise UsageError(f"--network cnn: {dataset.name} is no data of images; choose another")
    if find_spec("skorch") is None:
        raise UsageError(
            "--network cnn is trained with skorch: pip install 'sklearn-nftk[train]', or choose "
            "another such as --network mlp"
        )
    from skorch import NeuralNetClassifier

    return NeuralNetClassifier(
        small_cnn,
        module__image_shape=dataset.image_shape,
        module__n_outputs=len(set(dataset.y)),
        criterion=nn.CrossEntropyLoss,
        optimizer=optim.Adam,
        lr=5e-3,
        max_epochs=20,
        batch_size=128,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
