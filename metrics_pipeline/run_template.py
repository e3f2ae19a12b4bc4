"""What the process is from which runs are forked: everything is imported, and nothing is open.

Imported there (`warm_runs`) before the first fork, and nowhere else. Only code is taken over: each
run reads settings and secrets, opens what it needs, and begins its threads itself.
"""

import gc
import os
import signal

import metrics_pipeline.definitions
import metrics_pipeline.orchestration.instance_storage
import metrics_pipeline.warm_runs  # noqa: F401 (all three are for the runs)

THERE, HELD = os.pipe()
"""`HELD` is open in the template alone (a run closes its own), so `THERE` says when it has died."""

# Who ends the whole process group ends the runs, too; they are not to be told twice.
signal.signal(signal.SIGTERM, signal.SIG_IGN)

# What a collection of garbage does not touch stays one copy for all.
gc.collect()
gc.freeze()
