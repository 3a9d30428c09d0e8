"""Batch norm as a layer: parameters, running statistics, and what the backward needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from numba_bn import _layer_input as fitting
from numba_bn import _out
from numba_bn import _validate as check
from numba_bn._adapters import adapted
from numba_bn._arrays import Array, as_array, kind
from numba_bn._mpi import Ranks
from numba_bn._state import checked, state_of, whole_state
from numba_bn.functional import _steps as steps
from numba_bn.functional import batch_norm, batch_norm_backward, batch_norm_train
from numba_bn.stats import ChannelStats, RunningStats, _turns
from numba_bn.stats.device import is_on_device, require_place

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


_ALONE: AbstractContextManager[Any] = nullcontext()
"""In the place of `Ranks` where there are no others to tell of an error."""


class BatchNorm:
    """Batch norm with learnable scale and shift and running statistics.

    Training normalizes by the batch's mean and biased variance and updates
    ``running = (1 - momentum) * running + momentum * batch``, with the unbiased variance; test
    time normalizes by the running statistics. ``y = (x - mean) / sqrt(var + eps) * gamma + beta``.
    An error, or an interrupt, leaves the layer as before or as after the call, never in between.

    Parameters
    ----------
    num_channels : int
        Length of x's channel axis.
    momentum : float or None, default 0.1
        Weight of the new value; None keeps the exact statistics of all that was seen.
    eps : float, default 1e-5
        Added to the variance.
    affine : bool, default True
        Have `gamma` and `beta`.
    track_running_stats : bool, default True
        False: no running statistics, the batch's own in training and at test time.
    channel_axis : int, default 1
        The axis of x that holds the channels.
    dtype : dtype, default float32
        Of `gamma` and `beta`; at least float32.
    comm : mpi4py.MPI.Intracomm, optional
        The batch is that of all its ranks, as in `batch_norm_train`. All of them make the same
        calls, but those at test time by running statistics, which each makes for itself; `backward`
        is for all in either mode. Copies share it, pickles cannot hold it.

    Attributes
    ----------
    gamma, beta : ndarray, shape (num_channels,), or None
        Parameters, 1 and 0 at first; update them in place or assign new ones.
    dgamma, dbeta : ndarray or None
        Gradients of the last `backward`.
    running_mean, running_var : ndarray of float64, or None
        0 and 1 at first; each update makes new ones, as `RunningStats.update` says.
    num_batches_tracked : int
        Number of training batches seen.
    training : bool
        True at first; see `train` and `eval`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; on a call, also if training has one value per channel.
    RuntimeError
        On a call, if another rank raised an error of its own.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch Normalization", ICML 2015; conventions are PyTorch's.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> layer = nbn.BatchNorm(2)
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]], np.float32)
    >>> layer(x).round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> layer.running_mean
    array([0.2, 2. ])
    >>> layer.eval()(x).shape
    (2, 2)
    """

    _dims: tuple[int, ...] = ()
    """Numbers of dimensions x may have; empty: any."""

    def __init__(
        self,
        num_channels: int,
        *,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        affine: bool = True,
        track_running_stats: bool = True,
        channel_axis: int = 1,
        dtype: DTypeLike = np.float32,
        comm: Any = None,
    ) -> None:
        call = type(self).__name__
        self.comm = comm
        self.num_channels = check.positive_int(call, "num_channels", num_channels)
        self._momentum = check.momentum(call, momentum)
        self.eps = check.epsilon(call, eps)
        self.channel_axis = check.integer(call, "channel_axis", channel_axis)
        of_parameters = fitting.dtype_of_parameters(call, dtype)
        self.gamma = np.ones(num_channels, of_parameters) if affine else None
        self.beta = np.zeros(num_channels, of_parameters) if affine else None
        self.dgamma: Array | None = None
        self.dbeta: Array | None = None
        self.running = (
            RunningStats(num_channels, momentum=momentum) if track_running_stats else None
        )
        self.training = True
        self._step: fitting.Step | None = None
        self._on_device = False

    @property
    def comm(self) -> Any:
        """The communicator, or None where there is but one process; assign one, or None."""
        return None if self._ranks is None else self._ranks.comm

    @comm.setter
    def comm(self, comm: Any) -> None:
        self._ranks = Ranks.of(type(self).__name__, comm)

    @property
    def momentum(self) -> float | None:
        """Weight of the new value, or None: exact statistics of all that was seen."""
        return self._momentum

    @property
    def running_mean(self) -> Array | None:
        """Running mean, or None without tracking."""
        return None if self.running is None else self.running.running_mean

    @property
    def running_var(self) -> Array | None:
        """Running unbiased variance, or None without tracking."""
        return None if self.running is None else self.running.running_var

    @property
    def num_batches_tracked(self) -> int:
        """Number of training batches seen."""
        return 0 if self.running is None else self.running.num_batches_tracked

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or with False to test time; returns self."""
        self.training = bool(mode)
        return self

    def eval(self) -> Self:
        """Switch to test time; returns self."""
        return self.train(False)

    @adapted
    def __call__(
        self, x: ArrayLike, *, where: ArrayLike | None = None, out: Array | None = None
    ) -> Any:
        """Normalize x; in training, also update the running statistics.

        The backward looks at x again: leave it unchanged until then. (In place is fine.)
        """
        ranks = self._ranks_in("__call__")
        with ranks or _ALONE:
            a = as_array(type(self).__name__, "x", x)
            self._check(a, where)
            if ranks is not None:
                check.in_host_memory(type(self).__name__, "comm", a)
            kept = a.copy("K") if _out.may_overlap(out, a) else a
            if kind(a) == "cuda" or self._on_device:
                self.to(a)
        running = self.running
        options: dict[str, Any] = {"channel_axis": self.channel_axis, "eps": self.eps}
        if not self.training and running is not None:
            running._ready()
            known: dict[str, Any] = {"mean": running.running_mean, "var": running.running_var}
            y = batch_norm(a, self.gamma, self.beta, where=where, out=out, **known, **options)
            self._step = fitting.Step(kept, where, known)
            return y
        if ranks is None:
            y, stats = batch_norm_train(a, self.gamma, self.beta, where=where, out=out, **options)
        else:
            given = (a, self.gamma, self.beta, self.channel_axis, self.eps, where, None, None)
            call = type(self).__name__
            y, stats = steps.train_together(ranks, call, *given, out=out, least=2)
        self._trained(fitting.Step(kept, where, {"stats": stats}), stats)
        return y

    def _trained(self, step: fitting.Step, stats: ChannelStats) -> None:
        """Take in what a training step found, all of it at once."""
        with _turns.lock:
            running = self.running
            if self.training and running is not None:
                running = copy(running)
                running.update(stats)
            vars(self).update(running=running, _step=step)

    @adapted
    def backward(self, dy: ArrayLike, *, out: Array | None = None) -> Any:
        """Return dx of the last call, given the gradient `dy` into it; set dgamma and dbeta."""
        with self._ranks or _ALONE:
            if self._step is None:
                raise ValueError(f"{type(self).__name__}.backward: call the layer on x first")
            x, where, statistics = self._step
            fitting.in_place_of_x(type(self).__name__, dy, x)
        options: dict[str, Any] = {"channel_axis": self.channel_axis, "eps": self.eps}
        gradients = batch_norm_backward(
            dy, x, self.gamma, where=where, comm=self.comm, out=out, **statistics, **options
        )
        if self.gamma is not None:
            vars(self).update(dgamma=gradients.dgamma, dbeta=gradients.dbeta)
        return gradients.dx

    def to(self, like: ArrayLike) -> Self:
        """Move parameters and running statistics to where the array `like` is; returns self.

        To the CPU as NumPy arrays, to a device as arrays of the library of `like`. A call moves
        them to its x; what is where it belongs stays, and only moving waits for a device.
        """
        require_place(f"{type(self).__name__}.to", like)
        names = "gamma", "beta", "dgamma", "dbeta"
        held = {name: value for name in names if (value := getattr(self, name)) is not None}
        # what stays is not set again: another thread may have set it meanwhile
        vars(self).update(fitting.moved(held, like), _on_device=is_on_device(like))
        if self.running is not None:
            self.running.to(like)
        return self

    def parameters(self) -> list[Array]:
        """Return [gamma, beta], or nothing without them."""
        return [] if self.gamma is None or self.beta is None else [self.gamma, self.beta]

    def state_dict(self) -> dict[str, Array]:
        """Return copies of parameters and running statistics as NumPy arrays, by PyTorch's names.

        With ``momentum=None`` there is one more, ``running_count``, so that training can go on
        exactly where it was.
        """
        return state_of(self.gamma, self.beta, self.running)

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Take over a `state_dict`, PyTorch's too as arrays; on an error nothing is changed."""
        call = f"{type(self).__name__}.load_state_dict"
        own = self.state_dict()
        new = checked(call, own, state, self.num_channels)
        vars(self).update(whole_state(own, self.running, new))

    def _ranks_in(self, method: str) -> Ranks | None:
        """Return the ranks that wait for this one in a call of a method."""
        alone = method == "__call__" and not self.training and self.running is not None
        return None if alone else self._ranks

    def _check(self, x: Array, where: object) -> None:
        """Raise unless x has the right dimensions and enough to train on."""
        call, channels = type(self).__name__, self.num_channels
        axis = fitting.axis_of_channels(call, x, self._dims, self.channel_axis, channels)
        if not self.training and self.running is not None:
            return
        if self.running is not None:
            self.running._require_count(call)
        mask = check.mask(call, where, x)
        if self._ranks is None:  # else they count their values together
            fitting.more_than_one_value(call, x, mask, axis)


class BatchNorm1d(BatchNorm):
    """`BatchNorm` for x of shape (N, C) or (N, C, L)."""

    _dims = (2, 3)


class BatchNorm2d(BatchNorm):
    """`BatchNorm` for x of shape (N, C, H, W)."""

    _dims = (4,)


class BatchNorm3d(BatchNorm):
    """`BatchNorm` for x of shape (N, C, D, H, W)."""

    _dims = (5,)


__all__: Sequence[str] = ["BatchNorm", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]
