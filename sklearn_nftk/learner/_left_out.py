"""What leaving out each row does to the decisions of machines at given weights."""

import numpy as np

from ..solvers import LeaveOneOut, first_step, logistic
from ..utils._threads import computed


def leave_one_out(problem, weights, C, Y, loss):
    """Solve every decision for what it is without any one of the rows.

    Parameters
    ----------
    problem : Problem
        On scaled kernels.
    weights : ndarray of shape (n_decisions, L)
    C : float
    Y : ndarray of shape (n, n_decisions)
        Targets.
    loss : {"squared", "log_loss"}

    Returns
    -------
    list of (ndarray of int, LeaveOneOut)
        The decisions of each machine, and their changes.
    """
    rows, group = problem.machines(weights)
    combined = problem.grams.combined(rows[:, 1:], rows[:, 0].astype(int))
    if loss == "squared":  # decisions with the same kernel share an inverse
        curvatures = 2 * C * problem.s
        return [
            (np.flatnonzero(group == k), LeaveOneOut(K, curvatures, Y[:, group == k]))
            for k, K in enumerate(combined)
        ]

    def arguments():
        for k, K in enumerate(combined):
            which = np.flatnonzero(group == k)
            steps = first_step(K.copy(), Y[:, which], problem.s, C)
            for c, a, b in zip(which, steps[0].T, steps[1], strict=True):
                yield K, Y[:, c], problem.s, C, (a, b)

    order = np.argsort(group, kind="stable")
    machines = computed(_logistic, arguments(), problem.machines_that_fit())
    return [(np.array([c]), machine) for c, machine in zip(order, machines, strict=True)]


def _logistic(K, y, s, C, start):
    solution = logistic(K, y, s, C, start)
    return LeaveOneOut(K.copy(), solution.curvatures, solution.responses[:, None])
