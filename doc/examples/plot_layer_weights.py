"""
Which layers speak for which digit
==================================

A small network is trained on the digits; then its tangent kernels, one for each layer, are
combined with weights learned for each class. The classifier is compared with the network it came
from, and one decision is explained.
"""

# %%
# Train a network
# ---------------
# Weights over layers say most where the layers differ, which is after training.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.inspection import LayerWeightsDisplay, layer_contributions

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=600, random_state=0)
scaler = StandardScaler().fit(X_train)
Z_train, Z_test = scaler.transform(X_train), scaler.transform(X_test)

torch.manual_seed(0)
network = nn.Sequential(
    nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
    nn.Linear(64, 10),
).double()  # fmt: skip
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
inputs, labels = torch.tensor(Z_train), torch.tensor(y_train)
for _ in range(150):
    optimizer.zero_grad()
    nn.functional.cross_entropy(network(inputs), labels).backward()
    optimizer.step()

# %%
# Kernelise it
# ------------
# ``shrinkage=0`` shows what alignment alone chooses for each class; the default mixes in uniform
# weights unless leave-one-out errors are clearly better without.
model = MultiLayerNTKClassifier(network, shrinkage=0.0).fit(Z_train, y_train)
with torch.no_grad():
    network_accuracy = np.mean(network(torch.tensor(Z_test)).argmax(1).numpy() == y_test)
print(f"network {network_accuracy:.3f}, its tangent kernels {model.score(Z_test, y_test):.3f}")

# %%
# The learned weights, one row for each digit.
LayerWeightsDisplay.from_estimator(model).plot()

# %%
# Explain one decision
# --------------------
# Contributions and intercept sum to the decision value exactly.
sample = int(np.flatnonzero(model.predict(Z_test) != y_test)[0])
phi = layer_contributions(model, Z_test[[sample]], baseline="mean")[0]
truth, said = y_test[sample], model.predict(Z_test[[sample]])[0]

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
left.imshow(X_test[sample].reshape(8, 8), cmap="gray_r")
left.set(title=f"a {truth}, taken for a {said}", xticks=[], yticks=[])
positions = np.arange(len(model.layer_names_))
right.barh(positions - 0.2, phi[truth], 0.4, label=f"for {truth}", color="#0072b2")
right.barh(positions + 0.2, phi[said], 0.4, label=f"for {said}", color="#e69f00")
right.axvline(0, color="black", linewidth=0.8)
right.set_yticks(positions, model.layer_names_)
right.set(xlabel="contribution", ylabel="layer")
right.invert_yaxis()
right.legend()
plt.show()
