"""`python -m metrics_pipeline` is `metrics-pipeline`."""

import sys

from metrics_pipeline.cli import main

sys.exit(main())
