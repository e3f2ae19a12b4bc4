"""Tests of the stores."""

import pytest

# So that a failed assertion of the shared suite shows both sides.
pytest.register_assert_rewrite("metrics_pipeline_tests.storage.contract")
