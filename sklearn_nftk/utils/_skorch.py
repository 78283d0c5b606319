"""skorch, which is needed where something is trained, and loaded there."""


def import_skorch():
    """Import skorch.

    Raises
    ------
    ImportError
        That names the extra which installs it.
    """
    try:
        import skorch
    except ImportError as error:
        raise ImportError(
            "Training a network needs skorch: pip install 'sklearn-nftk[train]'."
        ) from error
    return skorch


def train_net(net, X, y=None, epochs=None):
    """Train as ``net.partial_fit`` does, but for a user who interrupts it.

    skorch takes every KeyboardInterrupt for the end of the training; its callbacks raise it too.

    Parameters
    ----------
    net : skorch.NeuralNet
        Initialised.
    X, y : what the net takes
    epochs : int, default=None
        None is its ``max_epochs``.
    """
    net.notify("on_train_begin", X=X, y=y)
    try:
        net.fit_loop(X, y, epochs=epochs)
    except KeyboardInterrupt as interrupt:
        if not _raised_by_callback(interrupt):
            raise
    net.notify("on_train_end", X=X, y=y)


def _raised_by_callback(interrupt):
    traceback = interrupt.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    raised_in = traceback.tb_frame.f_locals.get("self")
    return isinstance(raised_in, import_skorch().callbacks.Callback)


def epoch_callback(bar):
    """Callback that tells a bar of each epoch."""
    base = import_skorch().callbacks.Callback
    methods = {"on_epoch_end": lambda self, net, **_: bar.update()}
    return type("EpochProgress", (base,), methods)()
