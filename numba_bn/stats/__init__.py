"""Statistics per channel that merge exactly: of an array, of a data set, of a training run."""

from numba_bn.stats.channel import ChannelStats
from numba_bn.stats.of_array import channel_stats
from numba_bn.stats.running import RunningStats

__all__ = ["ChannelStats", "RunningStats", "channel_stats"]
