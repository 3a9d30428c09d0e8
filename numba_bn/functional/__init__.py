"""The norms as functions of arrays, forward and backward."""

from numba_bn._call import Gradients
from numba_bn.functional.batch import batch_norm, batch_norm_backward, batch_norm_train
from numba_bn.functional.group import (
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
)
from numba_bn.functional.layer import (
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)

__all__ = [
    "Gradients",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_train",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
]
