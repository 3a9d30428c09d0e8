"""Backends: plain modules with the same functions, over the five-axis view.

Arrays ``x5, y5, dy5, dx5, where5, residual5`` are C-contiguous and have the five axes of
``numba_bn._view``; ``mean, var`` have shape ``(batch, groups)``, ``gamma, beta`` and the gradients
``(groups * group_size,)``; all of those are float64.

================  ====================================================================
moments           count, mean, what the mean lost to rounding, m2
normalize         y for given statistics, with residual and ReLU
forward           both in one go, while the data is still in cache; returns the moments
gradient_sums     Σdy and Σdy·x̂ per channel, for norms whose statistics the batch shares
input_gradient    dx for given sums
backward          the last two in one go; takes the moments itself unless given
relu_gradient     dy where the ReLU let y through
exact_sums        exact Σx and Σx² per group, of a batch of one; what ``reproducible=True`` asks for
================  ====================================================================
"""
