from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.networks import MLP

# Narrow networks: these checks are about the interface. One instance has the default network.
SMALL = MLP(hidden_layer_sizes=(32, 32))
INSTANCES = [
    MultiLayerNTKClassifier(),
    *(
        MultiLayerNTKClassifier(SMALL, loss=loss, per_class=per_class)
        for loss in ("squared", "hinge")
        for per_class in (True, False)
    ),
]


@parametrize_with_checks(INSTANCES)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
