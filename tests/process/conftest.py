"""What scenarios in processes of their own share: one run per threading layer."""

import harness
import pytest


@pytest.fixture(params=harness.LAYERS)
def layer(request):
    """A threading layer that is installed."""
    reason = harness.missing(request.param)
    if reason:
        pytest.skip(f"{request.param}: {reason}")
    return request.param
