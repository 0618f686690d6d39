"""How long a program takes on a chip, from what it computes, reads and exchanges.

A lower bound with one allowance: matrix products reach a share of the chip's peak.
Elementwise work is taken to be fused into them, exchanges not to be hidden behind them,
and no latency is counted.
"""

import math
from typing import NamedTuple

from mmcl_jax.planning.program_cost import Exchange, Program

# of the peak, which matrix products of a tower's shapes reach; an assumption
EFFICIENCY = 0.4
# of the memory, which the runtime and fragmentation leave
USABLE = 0.9


class Chip(NamedTuple):
    """Published figures of an accelerator.

    Attributes:
        peak: FLOP/s of dense bfloat16 products.
        memory: bytes.
        bandwidth: bytes/s of the memory.
        near: chips that fast links join.
        near_rate: bytes/s that a chip sends over them when a ring exchanges.
        far_rate: bytes/s that a chip sends to others.
        in_host: chips that one host feeds.
    """

    peak: float
    memory: float
    bandwidth: float
    near: int
    near_rate: float
    far_rate: float
    in_host: int


# H100 SXM: NVIDIA's data sheet; NVLink gives 900 GB/s in both directions together, and
# a node of 8 has a network port of 400 Gb/s for each of them (DGX H100).
# v5e, v5p: Google Cloud's pages of the TPUs. Of the 400 and 1200 GB/s in both
# directions of 4 and 6 links a ring uses two links, one way each; beyond a pod the data
# center's network gives a chip of a v5e 6.4 Tb/s / 256, of a v5p 50 Gb/s.
CHIPS = {
    "h100": Chip(989e12, 80e9, 3.35e12, 8, 450e9, 50e9, 8),
    "v5e": Chip(197e12, 16e9, 819e9, 256, 100e9, 3.125e9, 8),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 8960, 200e9, 6.25e9, 4),
}


class Times(NamedTuple):
    """Seconds of one call.

    Attributes:
        compute: of the matrix products.
        memory: of reading and writing their operands.
        network: of the exchanges.
    """

    compute: float
    memory: float
    network: float

    @property
    def step(self) -> float:
        """Of the call: memory is read while it is computed, exchanges come on top."""
        return max(self.compute, self.memory) + self.network

    @property
    def limit(self) -> str:
        """Returns what takes longest."""
        return max(zip(self, self._fields, strict=True))[1]


def times(program: Program, chip: Chip, devices: int) -> Times:
    """Returns how long a program takes on so many chips."""
    network = sum(e.times * exchange(e, chip, devices) for e in program.exchanges)
    return Times(
        program.flops / (EFFICIENCY * chip.peak),
        program.traffic / chip.bandwidth,
        network,
    )


def exchange(each: Exchange, chip: Chip, devices: int) -> float:
    """Returns the seconds of one exchange.

    Groups that fast links do not join exchange among those that they do first; then
    each chip has its share of the sum or of the whole to exchange over the network.
    """
    span = each.members if each.consecutive else devices
    if span <= chip.near:
        return each.sent / chip.near_rate
    together = max(1, chip.near * each.members // span)
    near = each._replace(members=together)
    far = each._replace(
        members=math.ceil(each.members / together), size=each.size / together
    )
    return near.sent / chip.near_rate + far.sent / chip.far_rate


def largest(fixed: float, per_row: float, chip: Chip) -> int:
    """Returns the rows of a batch that fit into a chip's memory, 0 if none does.

    Args:
        fixed: bytes, whatever the batch.
        per_row: bytes for each row.
        chip: whose memory it is.
    """
    return max(0, int((USABLE * chip.memory - fixed) // per_row))
