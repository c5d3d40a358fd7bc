"""Tests run in two processes, each with one thread of PyTorch: more would wait for each other, and spin while they do."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
