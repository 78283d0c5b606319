"""Slow, obvious versions of what the package computes; they share no code with it."""

import copy

import cvxpy as cp
import numpy as np
import torch
from sklearn.svm import SVC
from torch.func import functional_call, jacrev


def jacobians(module, X):
    """Jacobian of every sample, output and parameter: {name: (n, O, P)}, one sample at a time."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    rows = []
    for x in torch.as_tensor(X):
        jacobian = jacrev(lambda p, x=x: functional_call(module, p, (x[None],))[0])(parameters)
        rows.append({name: j.flatten(1) for name, j in jacobian.items()})
    return {name: torch.stack([row[name] for row in rows]).numpy() for name in parameters}


def layer_kernels(module, X, Z, groups):
    """``(1/O) sum_o <d f_o(x)/d theta_l, d f_o(z)/d theta_l>`` for groups of parameter names."""
    at_x, at_z = jacobians(module, X), jacobians(module, Z)
    kernels = []
    for names in groups:
        total = 0.0
        for name in names:
            total = total + np.einsum("iop,jop->ij", at_x[name], at_z[name])
        kernels.append(total / at_x[names[0]].shape[1])
    return np.array(kernels)


def centred(K, p):
    """Kernel of features centred with probabilities p."""
    H = np.eye(len(p)) - np.outer(np.ones(len(p)), p)
    return H @ K @ H.T


def alignment_terms(kernels, y, s):
    """M and a of the alignment problem, entry by entry, with weighted centring."""
    p = s / s.sum()
    root = np.sqrt(s)
    weighted = [root[:, None] * centred(K, p) * root for K in kernels]
    M = np.array([[np.sum(A * B) for B in weighted] for A in weighted])
    a = np.array([(root * y) @ A @ (root * y) for A in weighted])
    return M, a


def best_on_simplex(M, a, step):
    """Largest centred alignment ``a'w / sqrt(w'Mw)`` over a grid of the simplex, L = 2 or 3."""
    grid = simplex_grid(len(a), step)
    values = grid @ a / np.sqrt(np.sum((grid @ M) * grid, axis=1))
    return grid[values.argmax()]


def ridge(K, y, s, C):
    """Dual coefficients and intercept from the bordered system, written out."""
    n = len(y)
    system = np.zeros((n + 1, n + 1))
    system[:n, :n] = K + np.diag(1 / (2 * C * s))
    system[:n, n] = system[n, :n] = 1
    solution = np.linalg.solve(system, np.append(y, 0.0))
    return solution[:n], solution[n]


def leave_one_out(K, y, s, sample_weight, C):
    """Decision value of each sample after a refit with one of its repetitions taken away."""
    scores = np.empty(len(y))
    for i in range(len(y)):
        left = np.array(s, dtype=float)
        left[i] *= max(0.0, 1 - 1 / sample_weight[i])
        rows = left > 0
        a, b = ridge(K[np.ix_(rows, rows)], y[rows], left[rows], C)
        scores[i] = K[i, rows] @ a + b
    return scores


def gradients(module, X):
    """Per-sample gradients by autograd, one sample and one output at a time: {name: (n, O, P)}."""
    module = copy.deepcopy(module).eval()
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    n_outputs = module(X[:1]).shape[1]
    found = {name: np.zeros((len(X), n_outputs, p.numel())) for name, p in parameters.items()}
    for i in range(len(X)):
        for o in range(n_outputs):
            output = module(X[i : i + 1])[0, o]
            values = torch.autograd.grad(output, parameters.values(), allow_unused=True)
            for name, value in zip(parameters, values, strict=True):
                if value is not None:
                    found[name][i, o] = value.flatten().numpy()
    return found


def one_gradient_at_a_time(module, X, groups):
    """Layer kernels (L, n, n) from `gradients`: nothing batched, nothing factored."""
    found = gradients(module, X)
    kernels = []
    for names in groups:
        kernel = np.zeros((len(X), len(X)))
        for name in names:
            g = found[name]
            for i in range(len(X)):
                for j in range(len(X)):
                    kernel[i, j] += np.sum(g[i] * g[j]) / g.shape[1]
        kernels.append(kernel)
    return np.array(kernels)


def mkl_problem(features, Y, s, C, loss, p):
    """Primal problem of lp-norm multiple kernel learning on explicit features, whole in cvxpy.

    ``1/2 L^(1 - 1/p) ||(||f_l||)_l||_q^2 + C sum_i s_i loss_i``, q = 2 p / (p + 1): for p = 1 it
    is ``1/2 (sum_l ||f_l||)^2``. Columns of Y share the norms. Returns the optimal value.
    """
    k = Y.shape[1]
    f = [cp.Variable((F.shape[1], k)) for F in features]
    b = cp.Variable((1, k))
    norms = cp.hstack([cp.norm(f_l, "fro") for f_l in f])
    scores = sum(F @ f_l for F, f_l in zip(features, f, strict=True)) + np.ones((len(Y), 1)) @ b
    residuals = cp.pos(1 - cp.multiply(Y, scores)) if loss == "hinge" else cp.square(Y - scores)
    radius = len(features) ** (1 / p - 1)
    regulariser = cp.square(cp.pnorm(norms, 2 * p / (p + 1))) / (2 * radius)
    scale = C * s.sum()  # solvers like objectives of about 1
    objective = regulariser / scale + cp.sum((s / s.sum()) @ residuals)
    return scale * cp.Problem(cp.Minimize(objective)).solve(solver=cp.CLARABEL)


def machine_objective(K, Y, s, C, loss):
    """Primal objective of kernel machines on one kernel, summed over the columns of Y."""
    total = 0.0
    for y in Y.T:
        if loss == "hinge":
            svc = SVC(C=C, kernel="precomputed", tol=1e-9).fit(K, y, sample_weight=s)
            a = np.zeros(len(y))
            a[svc.support_] = svc.dual_coef_[0]
            f = K @ a + svc.intercept_
            losses = np.maximum(0, 1 - y * f)
        else:
            a, b = ridge(K, y, s, C)
            losses = (y - K @ a - b) ** 2
        total += a @ K @ a / 2 + C * (s @ losses)
    return total


def simplex_grid(n_layers, step):
    """Points of a grid of the simplex, L = 2 or 3."""
    ticks = np.linspace(0, 1, round(1 / step) + 1)
    free = np.stack(np.meshgrid(*[ticks] * (n_layers - 1), indexing="ij"), axis=-1)
    free = free.reshape(-1, n_layers - 1)
    free = free[free.sum(axis=1) <= 1 + 1e-12]
    return np.column_stack([free, (1 - free.sum(axis=1)).clip(0)])


def frank_wolfe(kernels, y, s, C, steps):
    """Weights of l1-norm multiple kernel learning with hinge loss, by conditional gradients."""
    w = np.ones(len(kernels)) / len(kernels)
    for step in range(steps):
        svc = SVC(C=C, kernel="precomputed", tol=1e-6)
        svc.fit(np.tensordot(w, kernels, 1), y, sample_weight=s)
        a = np.zeros(len(y))
        a[svc.support_] = svc.dual_coef_[0]
        steepest = np.eye(len(kernels))[np.argmax([a @ K @ a for K in kernels])]
        w += 2 / (step + 2) * (steepest - w)
    return w


def qcqp_weights(features, y, s, C):
    """Weights as the multipliers of the dual problem, ``||F_l' a||^2 <= t`` (they sum to 1/2)."""
    alpha, t = cp.Variable(len(y)), cp.Variable()
    below = [cp.sum_squares(F.T @ cp.multiply(y, alpha)) <= t for F in features]
    box = [alpha >= 0, alpha <= C * s, y @ alpha == 0]
    cp.Problem(cp.Maximize(cp.sum(alpha) - t / 2), below + box).solve(solver=cp.CLARABEL)
    return np.array([float(np.ravel(c.dual_value)[0]) for c in below])


def relu_dual(s, a, b):
    """``E[relu(u) relu(v)]`` and ``E[relu'(u) relu'(v)]``, as Cho and Saul write them."""
    if a == 0 or b == 0:
        return 0.0, 0.25
    c = min(1.0, max(-1.0, s / np.sqrt(a * b)))
    angle = np.arccos(c)
    V = np.sqrt(a * b) * (np.sqrt(1 - c * c) + c * (np.pi - angle)) / (2 * np.pi)
    return V, (np.pi - angle) / (2 * np.pi)


def erf_dual(s, a, b):
    """The same for the error function, as Williams writes it."""
    scale = (1 + 2 * a) * (1 + 2 * b)
    return 2 / np.pi * np.arcsin(2 * s / np.sqrt(scale)), 4 / np.pi / np.sqrt(scale - 4 * s * s)


def infinite_mlp(X, Z, w, b, dual=relu_dual):
    """Layer kernels (L + 1, n, m) of the infinitely wide network, one pair after the other."""
    kernels = np.zeros((len(w), len(X), len(Z)))
    for i, x in enumerate(X):
        for j, z in enumerate(Z):
            pairs = [(x, z), (x, x), (z, z)]
            s, aa, bb = (w[0] * (u @ v) / len(u) + b[0] for u, v in pairs)
            sums, slopes = [s], []
            for layer in range(1, len(w)):
                V, slope = dual(s, aa, bb)
                s = w[layer] * V + b[layer]
                aa, bb = (w[layer] * dual(v, v, v)[0] + b[layer] for v in (aa, bb))
                sums.append(s)
                slopes.append(w[layer] * slope)
            for layer in range(len(w)):
                kernels[layer, i, j] = sums[layer] * np.prod(slopes[layer:])
    return kernels
