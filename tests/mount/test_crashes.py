"""Databases and git on the mount, killed again and again: themselves, or the pod below them."""

import random

import pytest

from tests.mount.applications import APPLICATIONS, kill_loop

ROUNDS = 3


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_application_is_killed(pod, work, name):
    kill_loop(name, work, ROUNDS, random.Random(name))


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_pod_is_killed(fresh, name):
    top = fresh.mount / "top"
    top.mkdir()
    kill_loop(name, top, ROUNDS, random.Random(name), fresh)
