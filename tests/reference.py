"""Slow, obvious versions of what the package computes; they share no code with it."""

import copy
from itertools import permutations

import cvxpy as cp
import numpy as np
import torch
from scipy.optimize import minimize
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


def leave_one_out(K, y, s, C):
    """Decision value of each row after a refit without it."""
    scores = np.empty(len(y))
    for i in range(len(y)):
        rows = np.arange(len(y)) != i
        a, b = ridge(K[np.ix_(rows, rows)], y[rows], s[rows], C)
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


def infinite_rnn(x, z, *, depth=1, w=1.4, u=1.0, b=0.2, h=0.5, v=1.0, rho=1.0, pooling="last",
                 dual=relu_dual):  # fmt: skip
    """Recurrent kernel of two sequences on the full grid of their times, number by number.

    Forward for the covariances S, backward for what the read-outs send to each pair of times P.
    Returns a dictionary: "V", and for each layer ("W", l), ("U", l), ("b", l); and "time", the sum
    over all layers at each pair of times.
    """
    T, R = len(x), len(z)

    def variances(s):
        found = np.zeros((depth, len(s)))
        for t in range(len(s)):
            for layer in range(depth):
                before = found[layer, t - 1] if t else None
                state = h**2 if t == 0 else dual(before, before, before)[0]
                below = s[t] @ s[t] / len(s[t])
                if layer:
                    q = found[layer - 1, t]
                    below = dual(q, q, q)[0]
                found[layer, t] = w**2 * state + u**2 * below + b**2
        return found

    a, c = variances(x), variances(z)
    S, V, D = (np.zeros((depth, T, R)) for _ in range(3))
    recurrent, inputs = np.zeros((depth, T, R)), np.zeros((depth, T, R))
    for t in range(T):
        for r in range(R):
            for layer in range(depth):
                if t and r:
                    recurrent[layer, t, r] = w**2 * V[layer, t - 1, r - 1]
                elif t == r == 0:
                    recurrent[layer, t, r] = w**2 * h**2 * rho
                below = V[layer - 1, t, r] if layer else x[t] @ z[r] / len(x[t])
                inputs[layer, t, r] = u**2 * below
                S[layer, t, r] = recurrent[layer, t, r] + inputs[layer, t, r] + b**2
                V[layer, t, r], D[layer, t, r] = dual(S[layer, t, r], a[layer, t], c[layer, r])
    read = np.zeros((T, R))
    if pooling == "last":
        read[-1, -1] = v**2
    elif pooling == "mean-tied":
        read[:] = v**2 / (T * R)
    else:
        np.fill_diagonal(read, v**2 / np.sqrt(T * R))
    P = np.zeros((depth + 1, T + 1, R + 1))
    for t in range(T - 1, -1, -1):
        for r in range(R - 1, -1, -1):
            for layer in range(depth - 1, -1, -1):
                back = read[t, r] if layer == depth - 1 else u**2 * P[layer + 1, t, r]
                P[layer, t, r] = D[layer, t, r] * (w**2 * P[layer, t + 1, r + 1] + back)
    P = P[:depth, :T, :R]
    found = {"V": np.sum(read * V[-1]), "time": np.sum(P * S, axis=0)}
    for layer in range(depth):
        found["W", layer] = np.sum(P[layer] * recurrent[layer])
        found["U", layer] = np.sum(P[layer] * inputs[layer])
        found["b", layer] = np.sum(P[layer]) * b**2
    return found


def equal_length_rnn(X, *, depth, w, u, b, h, v):
    """Total kernel of sequences of one length (n, T, m), a state for each, n x n at a time."""
    n, T, m = X.shape
    th = [np.zeros((n, n)) for _ in range(depth)]
    V = [h**2 * np.eye(n) for _ in range(depth)]
    D = [np.zeros((n, n)) for _ in range(depth)]
    for t in range(T):
        below, below_th = X[:, t] @ X[:, t].T / m, 0.0
        for layer in range(depth):
            S = w**2 * V[layer] + u**2 * below + b**2
            th[layer] = S + w**2 * D[layer] * th[layer] + u**2 * below_th
            q = S.diagonal()
            c = np.clip(S / np.sqrt(np.outer(q, q)), -1, 1)
            np.fill_diagonal(c, 1)
            D[layer] = (np.pi - np.arccos(c)) / (2 * np.pi)
            V[layer] = np.sqrt(np.outer(q, q)) * (np.sqrt(1 - c**2) / (2 * np.pi) + c * D[layer])
            below, below_th = V[layer], D[layer] * th[layer]
    return v**2 * (V[-1] + D[-1] * th[-1])


def finite_rnn(X, width, seed, *, depth, activation, w, u, b, h, v, initial_state, pooling):
    """Kernels (groups, n, n) of a random recurrent network by autograd: W, U, b of each layer, V.

    Parameters are standard normal and the scales multiply them.
    """
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    fan_in = [X[0].shape[1]] + [width] * (depth - 1)
    W = [normal(width, width).requires_grad_() for _ in range(depth)]
    U = [normal(width, k).requires_grad_() for k in fan_in]
    B = [normal(width).requires_grad_() for _ in range(depth)]
    longest = max(map(len, X))
    n_readouts = longest if pooling == "mean-untied" else 1
    readout = normal(n_readouts, width).requires_grad_()
    state = [normal(width) for _ in range(depth)]
    rows = []
    for x in X:
        if initial_state == "independent":
            state = [normal(width) for _ in range(depth)]
        hidden, outputs = [h * s for s in state], []
        for row in torch.as_tensor(x):
            below = row
            for layer in range(depth):
                g = w / width**0.5 * W[layer] @ hidden[layer] + b * B[layer]
                hidden[layer] = activation(g + u / fan_in[layer] ** 0.5 * U[layer] @ below)
                below = hidden[layer]
            outputs.append(below)
        outputs = torch.stack(outputs)
        if pooling == "last":
            f = readout[0] @ outputs[-1]
        elif pooling == "mean-tied":
            f = readout[0] @ outputs.mean(0)
        else:
            f = (readout[: len(x)] * outputs).sum() / len(x) ** 0.5
        parameters = [p for three in zip(W, U, B, strict=True) for p in three] + [readout]
        gradients = torch.autograd.grad(v / width**0.5 * f, parameters)
        rows.append([g.flatten().numpy() for g in gradients])
    return np.array([[[p @ q for q in g] for p in g] for g in zip(*rows, strict=True)])


def shapley_values(game, n_players):
    """What each player adds to those before it, averaged over all orders of the players."""
    values = np.zeros(n_players)
    orders = list(permutations(range(n_players)))
    for order in orders:
        for place, player in enumerate(order):
            before = order[:place]
            values[player] += game({*before, player}) - game(set(before))
    return values / len(orders)


def decisions_without(K, K_test, Y, s, C, i):
    """Decisions (n_test, k) of the ridge machine that is solved again without row i."""
    kept = np.arange(len(s)) != i
    n = kept.sum()
    system = np.ones((n + 1, n + 1))
    system[:n, :n] = K[kept][:, kept] + np.diag(1 / (2 * C * s[kept]))
    system[n, n] = 0
    solution = np.linalg.solve(system, np.vstack([Y[kept], np.zeros((1, Y.shape[1]))]))
    return K_test[:, kept] @ solution[:n] + solution[n]


def logistic_decisions(K, K_test, y, s, C):
    """Decisions (n_test,) of kernel logistic regression, as one problem in features and b."""
    values, vectors = np.linalg.eigh(K)
    kept = values > 1e-12 * values.max()
    root = vectors[:, kept] * np.sqrt(values[kept])
    root_test = K_test @ vectors[:, kept] / np.sqrt(values[kept])

    def objective(parameters):
        w, b = parameters[:-1], parameters[-1]
        u = y * (root @ w + b)
        slopes = -C * s * y / (1 + np.exp(u))
        gradient = np.append(w + root.T @ slopes, slopes.sum())
        return w @ w / 2 + C * s @ np.logaddexp(0, -u), gradient

    start = np.zeros(kept.sum() + 1)
    options = {"maxiter": 10_000, "ftol": 1e-15, "gtol": 1e-9}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    return root_test @ found[:-1] + found[-1]


def gram_cosine(K, L):
    """Cosine between two matrices, entry by entry."""
    pairs = list(zip(np.ravel(K), np.ravel(L), strict=True))
    return sum(a * b for a, b in pairs) / np.sqrt(
        sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs)
    )


def values_on_line(a, b, alphas, value):
    """``value(module)`` at points between the parameters of two modules."""
    values = []
    for alpha in alphas:
        between = copy.deepcopy(a)
        pairs = zip(between.parameters(), b.parameters(), strict=True)
        with torch.no_grad():
            for p, q in pairs:
                p.copy_((1 - alpha) * p + alpha * q)
        values.append(value(between))
    return np.array(values)


def relu_patterns(module, X):
    """What the torch.nn.ReLU modules of a network let through: (n, units)."""
    patterns = []
    hooks = [
        part.register_forward_hook(lambda _, __, output: patterns.append((output > 0).flatten(1)))
        for part in module.modules()
        if isinstance(part, torch.nn.ReLU)
    ]
    with torch.no_grad():
        module(torch.as_tensor(X))
    for hook in hooks:
        hook.remove()
    return torch.cat(patterns, dim=1).numpy()


def linear_outputs(module, X, step):
    """Outputs of the first-order expansion, by the Jacobian written out; step is by names."""
    with torch.no_grad():
        outputs = module(torch.as_tensor(X)).numpy()
    at_x = gradients(module, torch.as_tensor(X))
    return outputs + sum(np.einsum("nop,p->no", at_x[name], step[name]) for name in step)


def block_kernel(module, X, Z):
    """``<d f_o(x)/d w, d f_p(z)/d w>``, pairs of sample and output: (n O, m O)."""
    at_x, at_z = (gradients(module, torch.as_tensor(samples)) for samples in (X, Z))
    J, J_z = (np.concatenate(list(at.values()), axis=2) for at in (at_x, at_z))
    return J.reshape(-1, J.shape[2]) @ J_z.reshape(-1, J_z.shape[2]).T


def gaussian_kernel(X, Z, sigma):
    """``exp(-||x - z||^2 / (2 sigma^2))``, pair by pair."""
    return np.array([[np.exp(-np.sum((x - z) ** 2) / (2 * sigma**2)) for z in Z] for x in X])


def kernel_network(X, centers, layers):
    """Inputs of all layers of kernel machines, and outputs of the last: sample by sample.

    Each layer is (sigma, weight, bias); centers are samples.
    """
    images, of_centers = [X], centers
    for sigma, weight, bias in layers:
        images.append(gaussian_kernel(images[-1], of_centers, sigma) @ weight.T + bias)
        of_centers = gaussian_kernel(of_centers, of_centers, sigma) @ weight.T + bias
    return images


def ideal_alignment(K, y, s):
    """Cosine between a kernel and 1 for equal labels, 0 for others, each pair by its weight."""
    dot = of_kernel = of_ideal = 0.0
    for i, j in np.ndindex(*K.shape):
        weight, ideal = s[i] * s[j], float(y[i] == y[j])
        dot += weight * K[i, j] * ideal
        of_kernel += weight * K[i, j] ** 2
        of_ideal += weight * ideal
    return dot / np.sqrt(of_kernel * of_ideal)
