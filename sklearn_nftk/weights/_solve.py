"""Solve a problem stated in cvxpy, without a word: whoever asks judges what comes back."""

from functools import wraps
from threading import RLock

_lock = RLock()


def one_at_a_time(function):
    """Let threads state and solve problems one after the other.

    While an older cvxpy looks at a problem, parameters are no constants in the whole process.
    """

    @wraps(function)
    def alone(*arguments):
        with _lock:
            return function(*arguments)

    return alone


@one_at_a_time
def solve(problem):
    """Solve by Clarabel; variables and multipliers get their values.

    What ``problem.solve`` does, but for its warning that a solution may be inaccurate: a filter
    of warnings would be one of the whole process, seen and left behind by other threads.

    Parameters
    ----------
    problem : cvxpy.Problem

    Returns
    -------
    bool
        Whether there is a solution, be it inaccurate. If not, values are as they were.
    """
    import cvxpy as cp

    try:
        data, chain, inverse_data = problem.get_problem_data(cp.CLARABEL, solver_opts={})
        raw = chain.solve_via_data(problem, data, warm_start=True, solver_opts={})
        solution = chain.invert(raw, inverse_data)
    except cp.SolverError:
        return False
    if solution.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        return False
    problem.unpack(solution)
    return True
