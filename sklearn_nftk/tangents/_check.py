"""Exact or loud: networks without a tangent kernel are refused, layers compared with autograd."""

import torch

from ._autograd import gradients
from ._capture import NetworkError, graph, named_errors, outputs_of

_NEEDS_ROWS_ALONE = "A tangent kernel needs f(x) of each sample alone."


def check_network(network, x, others, positions, *, one_way):
    """Refuse networks without a per-sample gradient.

    Parameters
    ----------
    network : torch.nn.Module
    x : torch.Tensor of shape (k, ...)
        A few samples.
    others : torch.Tensor of shape (k, ...)
        Other samples, which take the place of each of them in turn.
    positions : list of k int
        Of the samples in X, for the messages.
    one_way : bool
        Whether the network is known to do the same to every batch, see `takes_one_way`.

    Returns
    -------
    outputs : torch.Tensor of shape (k, O)

    Raises
    ------
    ValueError
        If the network cannot be applied to `x` or to fewer samples, its output is not (n, O), it
        gives something else at each call, has no gradient, or the output of sample i depends on
        sample j.
    """
    with torch.no_grad():
        of_sizes = _outputs_of_any_size(network, x, (len(x),) if one_way else (3, 1, 2, len(x)))
        output = of_sizes.pop(len(x))
        if not torch.equal(output.nan_to_num(), outputs_of(network, x).nan_to_num()):
            raise ValueError(
                "network gives different outputs for the same X at each call; a tangent kernel "
                "needs a function of X."
            )
        _check_rows_independent(network, x, others, output, positions, one_way)
        for size, alone in of_sizes.items():
            rows = [row % len(x) for row in range(size)]
            at = [positions[row] for row in rows]
            _require_unmixed(alone, output[rows], scale_of(output), at)
    if not one_way:
        _check_differentiable(network, x)
    return output


def _outputs_of_any_size(network, x, sizes):
    """Outputs of the first samples, by their number."""
    outputs, errors = {}, {}
    for size in sizes:
        try:
            outputs[size] = outputs_of(network, x[[row % len(x) for row in range(size)]])
        except NetworkError as error:
            errors[size] = error
    if not outputs:
        raise next(iter(errors.values()))
    for size, reason in errors.items():
        raise ValueError(
            f"network must take batches of any size; it takes {next(iter(outputs))} samples, but "
            f"for {size}: {reason}"
        ) from reason
    return outputs


def _differs(actual, expected, scale):
    """Mask of the rows of outputs that differ by more than rounding."""
    tolerance = 1e-4 if expected.dtype == torch.float32 else 1e-8
    return ((actual - expected).abs() > tolerance * scale).any(1)


def scale_of(outputs):
    """Largest finite output, which rounding errors are measured by."""
    return float(outputs.nan_to_num(posinf=0.0, neginf=0.0).abs().max())


def _check_rows_independent(network, x, others, output, positions, one_way):
    """Each output must stay when other samples of the batch are replaced."""
    k, scale = len(x), scale_of(output)

    def depend_on(samples):
        replaced = x.clone()
        replaced[samples] = others[samples]
        differs = _differs(outputs_of(network, replaced), output, scale)
        differs[samples] = False
        return differs.nonzero().flatten().tolist()

    # Halves in two ways first: looking at each sample is for the message.
    every = list(range(k))
    halves = (every[::2], every[1::2], every[: k // 2], every[k // 2 :])[: 2 if one_way else 4]
    if not any(depend_on(half) for half in halves):
        return
    for j in (*every[1:], 0):
        for i in depend_on([j]):
            raise ValueError(
                f"network mixes the samples of a batch: the output of sample {positions[i]} "
                f"depends on sample {positions[j]}. {_NEEDS_ROWS_ALONE}"
            )
    raise ValueError(f"network mixes the samples of a batch. {_NEEDS_ROWS_ALONE}")


def _require_unmixed(alone, together, scale, positions):
    if alone.shape != together.shape:
        raise ValueError(
            "network output must have the same number of columns for every batch, got "
            f"{together.shape[1]} and {alone.shape[1]}."
        )
    for row in _differs(alone, together, scale).nonzero().flatten().tolist():
        raise ValueError(
            f"network mixes the samples of a batch: the output of sample {positions[row]} depends "
            f"on the other samples. {_NEEDS_ROWS_ALONE}"
        )


def _check_differentiable(network, x):
    """There must be a gradient, and none that autograd cannot tell of."""
    # Checkpointing leaves a trace only where its input is differentiated.
    x = x.clone().requires_grad_(x.is_floating_point())
    nodes = list(graph(outputs_of(network, x)))
    if any(type(node).__name__ == "CheckpointFunctionBackward" for node in nodes):
        raise ValueError(
            "network uses checkpoint(..., use_reentrant=True), which hides the gradients of its "
            "parameters; use_reentrant=False computes the same."
        )
    leaves = [node.variable for node in nodes if hasattr(node, "variable")]
    if all(leaf is x for leaf in leaves):
        raise ValueError(
            "network has an output without a gradient (no_grad, detach or argmax in its forward?),"
            " so all its tangent kernels would be zero."
        )


def disagreeing_layers(network, layers, x, head, factors, outputs, *, positions, scale, one_way):
    """Names of the layers whose kernels among a few samples differ from autograd's.

    With random weights w of the samples, ``w' Theta_l w`` from the factors is compared with the
    squared norm of the gradient of ``sum_k w_k f(x_k)``: one number for each layer that every
    entry of its kernel has a part in, and no more memory than the gradient of one sample.

    Parameters
    ----------
    network : torch.nn.Module
    layers : list of Layer
    x : torch.Tensor of shape (k, ...)
        A few samples of a batch.
    head : callable
        (n, O) -> (n,), one combination of the heads.
    factors : Factors of k samples
        Of the combined head.
    outputs : torch.Tensor of shape (k, O)
        Of the samples in their batch.
    positions : list of k int
        Of the samples in X, for the message.
    scale : float
        Of the outputs.
    one_way : bool
        Whether the network is known to do the same to every batch, see `takes_one_way`.

    Raises
    ------
    ValueError
        If a sample has another output away from the others: the network mixes samples.
    """
    generator = torch.Generator().manual_seed(len(x))
    weights = torch.randn(len(x), generator=generator, dtype=torch.float64).to(x.device)
    names = [name for layer in layers for name in layer.parameters]
    by_name = dict(network.named_parameters())
    parameters = [by_name[name] for name in names]
    totals: list[torch.Tensor] = []
    # In two groups, so that every sample has lost some of its neighbours.
    halves = [slice(0, None, 2), slice(1, None, 2)][: len(x)]
    for group in [slice(None)] if one_way else halves:
        f = outputs_of(network, x[group])
        _require_unmixed(f.detach(), outputs[group], scale, positions[group])
        weighted = (head(f) * weights[group].to(f.dtype)).sum()
        with named_errors("be differentiated on", x):
            of_group = gradients(weighted, parameters)
        for total, gradient in zip(totals, of_group, strict=False):
            total += gradient
        totals = totals or list(of_group)
    norms = (torch.linalg.vector_norm(total, dtype=torch.float64) for total in totals)
    squares = dict(zip(names, (norm.square() for norm in norms), strict=True))
    expected = torch.stack([sum(squares[name] for name in layer.parameters) for layer in layers])
    actual, traces = _quadratic_forms(factors, weights)
    single = outputs.dtype == torch.float32
    tolerance = 1e-3 if single else 1e-8
    # Gradients that all but vanish beside those of the other layers are known up to rounding only.
    rounding = (10 * torch.finfo(outputs.dtype).eps / tolerance) ** 2
    sizes = torch.maximum(traces, expected)
    wrong = (actual - expected).abs() > tolerance * torch.maximum(sizes, rounding * sizes.sum())
    return [layer.name for layer, is_wrong in zip(layers, wrong.tolist(), strict=True) if is_wrong]


def _quadratic_forms(factors, weights):
    """``w' Theta_l w`` and ``sum_k w_k^2 Theta_l(x_k, x_k)`` of each layer."""
    forms, traces = [], []
    for parts in factors.layers:
        gram = sum(
            part.gram(part, part.gradient_like((len(part), len(part)))).double() for part in parts
        )
        forms.append(weights @ gram @ weights)
        traces.append(weights.square() @ gram.diagonal())
    return torch.stack(forms), torch.stack(traces)
