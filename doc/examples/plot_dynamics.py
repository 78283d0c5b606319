"""
How the kernels of the layers move while a network is trained
=============================================================

A network is not its tangent kernel at the start: in the first epochs the kernel turns towards the
task, then it comes nearly to rest [1]_. On the digits, layer by layer: how far and how fast the
kernels move, when the basin of the solution is decided, and how well the kernel of a checkpoint
predicts.

.. [1] Fort et al. Deep Learning versus Kernel Learning. NeurIPS 2020.
"""

# %%
# Record the kernels
# ------------------
# The callback computes the layers' kernels of 300 probes, which the network does not learn from,
# at the beginning, every half an epoch, and at the end. The features are standardised, and the
# steps (plain SGD with a rate of 0.2) are not small: with smaller ones, or with pixels between 0
# and 1, the kernels move later and more slowly.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.dynamics import (
    KernelTrajectory,
    KernelTrajectoryDisplay,
    LinearizedClassifier,
    error_barrier,
    spawn_children,
)

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=1000, random_state=0)
scaler = StandardScaler().fit(X_train)
X_train, X_test = (scaler.transform(X).astype(np.float32) for X in (X_train, X_test))


def make_net(seed, callbacks=None):
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128),
        nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    return NeuralNetClassifier(
        network, criterion=nn.CrossEntropyLoss, lr=0.2, batch_size=32, max_epochs=20,
        iterator_train__shuffle=True, train_split=None, callbacks=callbacks, verbose=0,
    )  # fmt: skip


trajectory = KernelTrajectory(X_test[:300], y_test[:300], every=0.5)
net = make_net(0, [trajectory]).fit(X_train, y_train)
print(f"accuracy of the network: {net.score(X_test, y_test):.3f}")

# %%
# Layer by layer
# --------------
# Within a few epochs all velocities fall by orders of magnitude. Distances are from the kernel at
# the beginning; the dashed line is the sum of the layers, the neural tangent kernel. What the
# kernels turn to are the labels: the alignment grows most where the layer moves most. The weights
# that alignment would give the layers follow, from the first layer to the later ones.
KernelTrajectoryDisplay.from_trajectory(trajectory).plot()

# %%
# Every record is kept, so any two of them can be compared. Each square is the distance between
# the tangent kernels at two times: the first epochs stand apart.
figure, ax = plt.subplots(figsize=(4.5, 3.6), layout="constrained")
edges = np.append(trajectory.epochs_, 2 * trajectory.epochs_[-1] - trajectory.epochs_[-2])
image = ax.pcolormesh(edges, edges, trajectory.distances(), cmap="cividis")
ax.set(xlabel="epoch", ylabel="epoch", aspect="equal")
figure.colorbar(image, label="kernel distance")

# %%
# When is the basin decided?
# --------------------------
# Two children of one checkpoint are trained to the end with their batches in different orders.
# Where the loss does not rise on the line between them, their basin was decided before they
# parted. Beside it, two networks that have nothing in common. Of this small problem the basin is
# decided before the first step: the barrier between children of the untrained network is already
# hundreds of times smaller than that between networks of two origins.


def loss_barrier(a, b):
    return error_barrier(a, b, X_test, y_test, metric="loss")


parent, onsets, barriers = make_net(1).initialize(), [0, 1, 2, 5, 10], []
for before, onset in zip([0, *onsets], onsets, strict=False):
    parent.set_params(max_epochs=onset - before).partial_fit(X_train, y_train)
    children = spawn_children(parent, X_train, y_train, epochs=20 - onset, random_state=0)
    barriers.append(loss_barrier(*children))
strangers = loss_barrier(net, children[0])

figure, ax = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
ax.semilogy(onsets, barriers, "o-", color="#0072b2", label="children of one network")
ax.axhline(strangers, color="#e69f00", linestyle="--", label="networks of two origins")
ax.set(xlabel="epoch at which the children part", ylabel="loss barrier")
ax.legend(loc="center right")

# %%
# The kernel of a checkpoint
# --------------------------
# 300 of the training rows, and the network at some times of a training on these. Three ways to go
# on without moving the kernel any more: a kernel machine on the sum of the layers; one with
# learned weights; and the linear model of the network's tangents, trained with the same loss. The
# network needs its epochs, and so does the linear model, which begins with its outputs. Kernel
# machines begin with nothing, and are better than this small network at any time. Weights that are
# learned on the rows that the network has seen do not gain from it: its kernels know their labels.
few, few_labels = X_train[:300], y_train[:300]
networks = KernelTrajectory(few, every=5.0)
make_net(2, [networks]).set_params(lr=0.1, max_epochs=40).fit(few, few_labels)

errors = {"network": [], "plain tangent kernel": [], "learned weights": [], "linear model": []}
for network in networks.networks_:
    linear = {"solver": "gradient", "loss": "log_loss", "alpha": 0.0, "batch_size": 32}
    models = {
        "network": LinearizedClassifier(network, solver="gradient", max_epochs=0),
        "plain tangent kernel": MultiLayerNTKClassifier(network, kernel_weights="sum"),
        "learned weights": MultiLayerNTKClassifier(network, shrinkage=0.0),
        "linear model": LinearizedClassifier(network, lr=0.05, max_epochs=20, **linear),
    }
    for name, model in models.items():
        errors[name].append(1 - model.fit(few, few_labels).score(X_test, y_test))

figure, ax = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
colours = ["black", "#0072b2", "#56b4e9", "#e69f00"]
for (name, values), colour in zip(errors.items(), colours, strict=True):
    ax.semilogy(networks.epochs_, values, "o-", color=colour, label=name)
ax.set(xlabel="epoch of the checkpoint", ylabel="test error")
ax.legend()

# %%
# Times and layers together
# -------------------------
# Checkpoints are kernels side by side, so that weights can be learned over times as well as over
# layers. Most of the weight goes to the network that was trained the longest.
checkpoints = networks.checkpoints(epochs=[0, 5, 10, 40])
machine = MultiLayerNTKClassifier(checkpoints, shrinkage=0.0).fit(few, few_labels)
weights = machine.kernel_weights_.mean(axis=0)
for name, weight in zip(machine.layer_names_, weights, strict=True):
    print(f"{name:12s} {weight:.2f}")
print(f"test error {1 - machine.score(X_test, y_test):.3f}")
plt.show()
