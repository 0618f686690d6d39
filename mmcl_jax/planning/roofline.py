"""How long a program takes on a chip, from what it computes, reads and exchanges.

A lower bound with one allowance: matrix products reach only a share of the chip's peak.
Elementwise work is assumed to be fused into them, exchanges not to overlap with them,
and no latency is counted.
"""

import math
from typing import NamedTuple

from mmcl_jax.planning.program_cost import Exchange, Program

# share of the peak that matrix products of a tower's shapes reach; an assumption
EFFICIENCY = 0.4
# share of the memory that the runtime and fragmentation leave; an assumption
USABLE = 0.9


class Chip(NamedTuple):
    """Published figures of an accelerator.

    Attributes:
        peak: FLOP/s of dense bfloat16 products.
        memory: Bytes of memory.
        bandwidth: Bytes/s of the memory.
        near: Number of chips that fast links join.
        near_rate: Bytes/s that a chip sends over fast links in a ring.
        far_rate: Bytes/s that a chip sends to other chips.
        in_host: Number of chips per host.
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
# v5e, v5p: Google Cloud's pages of the TPUs. Their 4 and 6 links have 400 and 1200 GB/s
# in both directions together; a ring uses two links, one way each. Beyond a pod the
# data center's network gives a chip of a v5e 6.4 Tb/s / 256, of a v5p 50 Gb/s.
CHIPS = {
    "h100": Chip(989e12, 80e9, 3.35e12, 8, 450e9, 50e9, 8),
    "v5e": Chip(197e12, 16e9, 819e9, 256, 100e9, 3.125e9, 8),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 8960, 200e9, 6.25e9, 4),
}


class Times(NamedTuple):
    """Seconds of one call.

    Attributes:
        compute: Time of the matrix products.
        memory: Time to read and write their operands.
        network: Time of the exchanges.
    """

    compute: float
    memory: float
    network: float

    @property
    def step(self) -> float:
        """Returns the whole time: memory overlaps with compute, exchanges do not."""
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

    A group that fast links do not join as a whole exchanges within each joined part
    first; then each chip exchanges its share of the result over the network.
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
    """Returns the number of rows of a batch that fit into a chip's memory.

    Args:
        fixed: Bytes that do not depend on the batch.
        per_row: Bytes per row.
        chip: The chip.
    """
    return max(0, int((USABLE * chip.memory - fixed) // per_row))
