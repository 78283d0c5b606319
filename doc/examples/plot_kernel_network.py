"""
What each layer of a kernel network does
========================================

A network of kernel machines is trained layer by layer: each hidden layer has a target of its own,
the ideal kernel matrix, and no gradient passes from one layer to another. So what a layer has done
can be seen: in its kernel matrix, before and after, and in its alignment with the target.
"""

# %%
# Train it
# --------
# Two hidden layers of 15 kernel machines, whose centers are all training rows.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.inspection import (
    AlignmentCurvesDisplay,
    LayerGramsDisplay,
    LayerWeightsDisplay,
)
from sklearn_nftk.kernel_networks import KernelMLPClassifier
from sklearn_nftk.networks import KernelMLP

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=450, stratify=y, random_state=0
)
model = make_pipeline(StandardScaler(), KernelMLPClassifier((15, 15), random_state=0))
model.fit(X_train, y_train)
print(f"accuracy on new digits: {model.score(X_test, y_test):.3f}")

# %%
# Alignment over the epochs
# -------------------------
# The second layer begins where the first has brought the samples.
AlignmentCurvesDisplay.from_estimator(model).plot()

# %%
# Kernel matrices of new digits
# -----------------------------
# The kernel of each layer sees what the layer below it has made of the samples, here digits that
# were not in the training set. The target is 1 in the squares on the diagonal and 0 elsewhere.
grams = LayerGramsDisplay.from_estimator(model, X_test, y_test).plot()

# %%
# The numbers behind it: alignments, and mean kernels of pairs of one class and of different ones.
grams.frame().round(3)

# %%
# Which layer serves which digit
# ------------------------------
# The kernels of the layers as a source for learned weights, cross-fitted because they know the
# labels. ``shrinkage=0`` shows what alignment alone chooses.
machine = make_pipeline(
    StandardScaler(),
    MultiLayerNTKClassifier(KernelMLP((15, 15)), cv=3, shrinkage=0.0, random_state=0),
)
machine.fit(X_train, y_train)
print(f"accuracy on new digits: {machine.score(X_test, y_test):.3f}")
LayerWeightsDisplay.from_estimator(machine).plot()
plt.show()
