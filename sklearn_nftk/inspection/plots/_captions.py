"""Words on pictures of contributions: names, titles, and the decisions that are worth a panel."""

import numpy as np

from ._drawing import MINUS, numbers, sample_name


class Captions:
    """Texts about the contributions that a `LayerContributionsDisplay` holds.

    Decisions are given by their index c, samples by their position; a sample of
    None stands for all.
    """

    def __init__(self, display):
        self.contributions = display.contributions
        self.mean_decisions = display.mean_decisions
        self.decisions = display.decisions
        self.decision_names = display.decision_names
        self.class_names = display.class_names
        self.y = display.y
        self.index = display.index

    def members(self, c):
        """Mask of the samples of the class that decision c speaks for: true, else predicted."""
        name = self.class_names[1 if len(self.class_names) == 2 else c]
        if self.y is not None:
            return np.array([label == name for label in self.y])
        return np.array([self.class_names[k] == name for k in self._predicted()])

    def choose(self, sample, most):
        """Decisions to show, and what they were chosen by, where they are not all."""
        n_decisions = len(self.decision_names)
        if n_decisions <= most:
            return range(n_decisions), ""
        chosen_from = f"{most} of {n_decisions}"
        if self.class_names is None:
            rows = slice(None) if sample is None else [sample]
            moved = np.abs(self.contributions[rows].sum(axis=2)).mean(axis=0)
            return _largest(moved, most), f"the {chosen_from} targets furthest from their mean"
        if sample is None:
            counts = np.bincount(self._predicted(), minlength=n_decisions)
            return _largest(counts, most), f"the {chosen_from} classes predicted most often"
        chosen = _largest(self.decisions[sample], most)
        text = f"the {chosen_from} classes of the largest decisions"
        if self.y is not None and self.y[sample] in self.class_names:
            true = self.class_names.index(self.y[sample])
            if true not in chosen:
                return [*chosen[:-1], true], f"{text}, the true class among them"
        return chosen, text

    def name(self, c, sample=None):
        """Name of a decision, and what it is to the sample."""
        name = self.decision_names[c]
        if self.class_names is None or len(self.class_names) == 2 or sample is None:
            return name
        roles = []
        if self._predicted()[sample] == c:
            roles.append("predicted")
        if self.y is not None and self.y[sample] == name:
            roles.append("true")
        return f"{name} ({', '.join(roles)})" if roles else name

    def heading(self, c, sample=None):
        """Name of a decision where it stands alone: a number would say nothing by itself."""
        name = self.name(c, sample)
        return f"class {name}" if self.decision_names[c].isdigit() else name

    def equation(self, sample, c):
        """Mean decision plus sum of the contributions equals decision."""
        mean, decision = self.mean_decisions[c], self.decisions[sample, c]
        total = decision - mean
        mean, size, decision = numbers(mean, abs(total), decision)
        return f"{mean} {'+' if total >= 0 else MINUS} {size} = {decision}"

    def title(self, sample):
        """Title of a figure: the sample with its classes, or the meaning of the colours."""
        if sample is None:
            title = f"layer contributions on {len(self.contributions)} samples"
            if self.class_names is None:
                return title
            by = "predicted as" if self.y is None else "of"
            if len(self.class_names) == 2:
                zero, one = self.class_names
                return f"{title} ({by} class {one}: blue, {zero}: orange)"
            return f"{title} ({by} the panel's class: blue, others: orange)"
        words = []
        if self.class_names is not None:
            words.append(f"predicted {self.class_names[self._predicted()[sample]]}")
        if self.y is not None:
            true = self.y[sample]
            known = true if self.class_names else ", ".join(numbers(*np.ravel(true)))
            words.append(f"true {known}")
        title = f"layer contributions on {sample_name(self.index[sample])}"
        return ": ".join([title, ", ".join(words)]) if words else title

    def _predicted(self):
        """Index of the class of each sample."""
        if len(self.class_names) == 2:
            return (self.decisions[:, 0] > 0).astype(int)
        return self.decisions.argmax(axis=1)


def _largest(values, most):
    return np.argsort(-values, kind="stable")[:most].tolist()
