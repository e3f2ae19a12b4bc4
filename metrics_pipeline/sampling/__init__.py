"""Samples sources on a grid, each in a thread of its own, for as long as somebody holds it.

    a thread a source   waits for the slot, asks, hands on what came
    a keeping thread    stores in that order, and counts slots in the same transaction
    a watching thread   renews the lease, counts what a source that hangs misses, ends it all

A source that hangs delays no other, and a store that hangs delays none: what is not stored yet
waits in a bounded queue. Of several processes one samples, which is who has the lease in the
operational database. Where that does not answer, sampling goes on: nobody else can take the lease
meanwhile, and who samples a slot again overwrites the same points.
"""

from metrics_pipeline.sampling.ledger import Summary
from metrics_pipeline.sampling.sampling import Sampling
from metrics_pipeline.sampling.slot import Sampled

__all__ = ["Sampled", "Sampling", "Summary"]
