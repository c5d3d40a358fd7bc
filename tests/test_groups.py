"""Tests that share something run in one process (tests/conftest.py): where that is lost, all pass, and take longer."""

import os

import pytest


def test_groups_are_known_to_who_hands_out_tests(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process runs all tests")
    group = next(request.node.iter_markers("xdist_group")).args[0]
    assert request.node.nodeid.endswith(f"@{group}")
