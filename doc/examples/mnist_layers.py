"""
MNIST: what the layers of a convolutional network say
=====================================================

A small convolutional network is trained on 2000 handwritten digits; a kernel machine on its
tangent kernels, one for each layer, is compared with it, and decisions are explained.

The data are 5000 digits of MNIST, in the file ``mnist_5k.npz``: pixels ``X`` (n, 28, 28) between
0 and 255, and digits ``y``. Run from the root of the repository,
``python doc/examples/mnist_layers.py --data FOLDER`` prints the numbers of this page and writes
its figures.
"""

# sphinx_gallery_thumbnail_path = "images/mnist_weights.png"

# %%
# Train a network
# ---------------

import argparse
from collections import OrderedDict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier, MultipleKernelClassifier
from sklearn_nftk.inspection import (
    KernelAlignmentDisplay,
    LayerContributionsDisplay,
    LayerWeightsDisplay,
    TrainingContributionsDisplay,
    layer_ablation,
    weight_stability,
)
from sklearn_nftk.kernels import layer_kernels

FIGURES = Path("doc/images")
parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, required=True, help="folder with mnist_5k.npz")
data = np.load(parser.parse_args().data / "mnist_5k.npz")
X, y = data["X"][:, None] / 255, data["y"]
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=2000, test_size=1000, stratify=y, random_state=0
)

inputs, labels = torch.tensor(X_train), torch.tensor(y_train)


def trained(seed):
    """Return the network that training from this seed ends with."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 8, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            hidden=nn.Linear(256, 64),
            relu3=nn.ReLU(),
            output=nn.Linear(64, 10),
        )
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(20):
        for batch in torch.randperm(len(inputs)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return network


network = trained(seed=0)

# %%
# Compare
# -------
# All see the same 2000 images. The layer kernels of the trained network are computed once, and
# every weight method learns from them.

stack, rows = layer_kernels(network, X_train), layer_kernels(network, X_test, X_train)
with torch.no_grad():
    said = network(torch.tensor(X_test)).argmax(dim=1).numpy()
accuracy = {"the network itself": np.mean(said == y_test)}
for C in (1, 10, 100):
    svm = SVC(C=C).fit(X_train.reshape(2000, -1), y_train)
    accuracy[f"SVC on pixels, C={C}"] = svm.score(X_test.reshape(1000, -1), y_test)
machines = {
    "uniform": {"kernel_weights": "uniform"},
    "alignment (the default)": {},
    "alignment, shrinkage=0": {"shrinkage": 0.0},
    "margin": {"kernel_weights": "margin"},
    "sum (the plain NTK)": {"kernel_weights": "sum"},
}
for name, parameters in machines.items():
    machine = MultipleKernelClassifier(**parameters).fit(stack, y_train)
    accuracy[name] = machine.score(rows, y_test)
for name, value in accuracy.items():
    print(f"{name:24s} {value:.3f}")

# %%
# Accuracy on 1000 test images, whose standard error is about half a point:
#
# .. code-block:: none
#
#    the network itself       0.955
#    SVC on pixels, C=1       0.934
#    SVC on pixels, C=10      0.942
#    SVC on pixels, C=100     0.942
#    uniform                  0.974
#    alignment (the default)  0.974
#    alignment, shrinkage=0   0.973
#    margin                   0.970
#    sum (the plain NTK)      0.974
#
# The kernel machine beats the network its kernels come from, and how the layers are weighted makes
# no difference that 1000 images could show. The default says so itself: its leave-one-out errors
# leave uniform weights for every class.

# %%
# What the layers have in common
# ------------------------------

model = MultiLayerNTKClassifier(network).fit(X_train, y_train)
print("weights of the default:", np.unique(model.kernel_weights_))
KernelAlignmentDisplay.from_estimator(model).plot().figure_.savefig(
    FIGURES / "mnist_alignment.png", dpi=80
)

# %%
# .. image:: /images/mnist_alignment.png
#    :alt: centred alignment between the layers and with the classes
#
# Centred alignments of 0.75 to 0.88: no two layers are interchangeable (0.95 and above), but all
# have much in common. With most classes the layers hardly differ; the 4 is best known to ``conv1``
# (0.27 against 0.21 to 0.23), the 8 to the convolutions (0.15 against 0.05 to 0.08).

# %%
# Weights
# -------

aligned = MultiLayerNTKClassifier(network, shrinkage=0.0).fit(X_train, y_train)
stability = weight_stability(aligned, X_train, y_train, n_resamples=50, random_state=0)
other = MultiLayerNTKClassifier(trained(seed=1), shrinkage=0.0).fit(X_train, y_train)
margin = MultiLayerNTKClassifier(network, kernel_weights="margin").fit(X_train, y_train)
displays = {
    "alignment, shrinkage=0, with 95% intervals": LayerWeightsDisplay.from_estimator(
        aligned, stability=stability
    ),
    "the same for a network from another seed": LayerWeightsDisplay.from_estimator(other),
    "margin": LayerWeightsDisplay.from_estimator(margin),
}
figure, axes = plt.subplots(1, 3, figsize=(15, 6), layout="constrained")
for ax, (title, display) in zip(axes, displays.items(), strict=True):
    display.plot(ax)
    ax.set_title(title)
figure.savefig(FIGURES / "mnist_weights.png", dpi=70)

# %%
# .. image:: /images/mnist_weights.png
#    :alt: weights of the layers for each digit by two methods
#
# Small differences in alignment make large differences in weights. Alignment gives the 4 to
# ``conv1`` (0.89), with a narrow interval - and to the output layer in a network that differs by
# its seed alone. Margin gives every digit to ``conv2``. All are solutions of convex problems to
# high precision, but of different questions: alignment asks which kernel looks like the labels,
# margin which kernels fit them at the smallest norm, which favours flexible kernels whatever the
# task (:ref:`which_method` has the experiment). Intervals know how weights move with the sample;
# not how they move with the seed, nor which question was meant. None of it shows in the accuracy.

# %%
# Ablation
# --------

kept = layer_ablation(model, X_test, y_test)
again = layer_ablation(model, X_test, y_test, refit=True, training=(X_train, y_train))
print(f"with all layers {kept.score:.3f}")
print(f"{'layer':8s}  without  without, refitted  alone, refitted")
columns = (model.layer_names_, kept.without, again.without, again.alone)
for layer, *scores in zip(*columns, strict=True):
    print("{:8s}  {:7.3f}  {:17.3f}  {:15.3f}".format(layer, *scores))

# %%
# .. code-block:: none
#
#    with all layers 0.974
#    layer     without  without, refitted  alone, refitted
#    conv1       0.959              0.971            0.971
#    conv2       0.962              0.976            0.971
#    hidden      0.967              0.977            0.965
#    output      0.924              0.976            0.944
#
# *In this machine* the output layer matters most: without it, and all else as it was, 97.4 %
# become 92.4 %. But no layer is *needed*: refitted without any one of them the machine is as good
# as before, and either convolution alone reaches 97.1 %. A large drop with the coefficients kept
# says that a layer carries much of the sum, not that nothing else could.

# %%
# Four decisions
# --------------
# The first two test images that the machine classifies correctly, and the first two that it does
# not; what each layer said about the predicted class, and about the true one or the runner-up.

decisions = model.decision_function(X_test)
second, first = decisions.argsort(axis=1)[:, -2:].T
correct = first == y_test
other = np.where(correct, second, y_test)
shown = np.concatenate([np.flatnonzero(correct)[:2], np.flatnonzero(~correct)[:2]])
display = LayerContributionsDisplay.from_estimator(model, X_test[shown], y=y_test[shown])
figure, axes = plt.subplots(4, 2, figsize=(8, 11), width_ratios=[1, 4], layout="constrained")
pairs = np.column_stack([first, other])[shown]
for sample, (left, right) in enumerate(axes):
    left.imshow(X_test[shown[sample], 0], cmap="gray")
    left.set_axis_off()
    display.plot(right, sample=sample, decisions=pairs[sample])
figure.savefig(FIGURES / "mnist_contributions.png", dpi=80)
print(display.frame().loc[[(i, str(c)) for i in range(4) for c in pairs[i]]].round(2))

# %%
# .. image:: /images/mnist_contributions.png
#    :alt: four digits and the contributions of the layers to two decisions each
#
# .. code-block:: none
#
#                  conv1  conv2  hidden  output  mean decision  decision
#    sample class
#    0      6       0.23   0.27    0.37    0.28           -0.8      0.35
#           5      -0.00   0.22   -0.26    0.06           -0.8     -0.79
#    1      5       0.11   0.29   -0.15    0.41           -0.8     -0.13
#           8       0.25  -0.19    0.24    0.05           -0.8     -0.45
#    2      1       0.20   0.21    0.01    0.38           -0.8     -0.00
#           9      -0.02   0.11    0.03    0.20           -0.8     -0.49
#    3      2       0.15   0.23   -0.15    0.76           -0.8      0.19
#           3      -0.06   0.02    0.12   -0.09           -0.8     -0.81
#
# For the 6 all layers agree. For the 5 that lacks its bow ``hidden`` speaks against 5, and the
# class wins at a negative value: no class is claimed. The 9 with the thin loop is taken for a 1,
# mostly by the output layer (0.38 for 1, 0.20 for 9), with no confidence either. The 3 is the
# worse mistake: 0.76 of the output layer for 2, and hardly anything of any layer for 3.

# %%
# The training images without which the decision for the predicted class would be lower, and those
# without which it would be higher: by how much, exactly, for the same machine without the image.

for name, samples in [("correct", shown[:2]), ("wrong", shown[2:])]:
    display = TrainingContributionsDisplay.from_estimator(model, X_test[samples], labels=y_train)
    display.plot().figure_.savefig(FIGURES / f"mnist_training_{name}.png", dpi=80)

# %%
# .. image:: /images/mnist_training_correct.png
#    :alt: training images that raise and lower two correct decisions
#
# .. image:: /images/mnist_training_wrong.png
#    :alt: training images that raise and lower two wrong decisions
#
# Images that are written alike raise the decision: slim 6s for the 6, 5s without a bow for the 5,
# upright strokes for the 9 that is taken for a 1, 2s with an open loop for the 3. Neighbours lower
# it: 8s and a bold 6 the 5, 7s and a 3 the 2; and so do images of the class itself that are
# written otherwise. No single image matters much, 0.1 at most. What images contribute to the sum
# says less: contributions add up to +2291 and -2290 for a decision of 0.19.
#
# What one may conclude
# ---------------------
# - The sums are exact: these contributions *are* the decision of this machine. It is not the
#   network, though built from its gradients: it decides better, and its mistakes are its own.
# - Weights differ by method, ablation by whether the rest may adapt. Where layers are as alike as
#   here, "the 4 is recognised by the first layer" is not a finding; "no layer is needed, given the
#   others" is one.
# - The network has been fitted to the very images that the kernels are compared on, so alignments
#   with the labels flatter it, its last layers most.
# - A layer's contribution does not tell what would have been learned without it. The influence of
#   an image does, for this machine at these weights, not for a network that is trained again.
# - Statements about weights are statements about one trained network.
