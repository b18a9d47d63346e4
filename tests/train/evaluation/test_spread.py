"""How figures vary over folds and repeats."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from train.evaluation.spread import spread


@pytest.mark.parametrize("classes", [2, 3])
def test_spread_is_of_each_fold_by_itself(classes: int) -> None:
    """As scikit-learn's figures of each fold give it: the mean, within repeats, and between the repeats' means."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % classes
    probabilities = rng.dirichlet(np.ones(classes), (2, 120)) + 0.3 * np.eye(classes)[labels]
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    folds = np.stack([rng.permutation(np.arange(120) % 4) + 1 for _ in range(2)])
    found = spread(labels, probabilities, folds, 0.6 if classes == 2 else None, "float32")

    def figures(name: str) -> np.ndarray:
        values = []
        for of_repeat, folds_of_repeat in zip(probabilities, folds, strict=True):
            for fold in range(1, 5):
                own, true = of_repeat[folds_of_repeat == fold], labels[folds_of_repeat == fold]
                if name == "auroc":
                    score = roc_auc_score(true, own[:, 1] if classes == 2 else own, multi_class="ovr")
                else:
                    score = accuracy_score(true, own[:, 1] >= 0.6 if classes == 2 else own.argmax(axis=1))
                values.append(score)
        return np.reshape(values, (2, 4))

    for name, of in (("auroc", "auroc"), ("accuracy", "accuracy chosen" if classes == 2 else "accuracy most probable")):
        expected = figures(name)
        assert found.figures[of].mean == pytest.approx(expected.mean(), abs=1e-6)
        assert found.figures[of].folds == pytest.approx(np.sqrt(expected.var(axis=1, ddof=1).mean()), abs=1e-6)
        assert found.figures[of].repeats == pytest.approx(expected.mean(axis=1).std(ddof=1), abs=1e-6)
    assert (found.folds, found.repeats) == (4, 2)


def test_one_repeat_has_no_spread_between_repeats() -> None:
    """And says so by saying nothing."""
    labels = np.array([0, 1] * 4)
    probabilities = np.tile([[0.8, 0.2], [0.3, 0.7]], (4, 1))[None]
    found = spread(labels, probabilities, np.array([[1] * 4 + [2] * 4]), 0.5, "bfloat16")
    assert found.figures["auroc"].repeats is None
    assert str(found.figures["auroc"]) == "1.000 (folds 0.000)"
    assert found.precision == "bfloat16"
