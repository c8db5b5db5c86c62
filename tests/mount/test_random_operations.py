"""A random life on the mount and on a plain directory beside it: same results, same errors, same tree."""

import os

import pytest

from tests.mount.comparer import Comparer

SEEDS = range(8)
STEPS = 600


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mount_is_a_local_directory(work, tmp_path, pod, seed):
    comparer = Comparer(work, tmp_path, seed)
    comparer.run(STEPS)
    pod.settled()
    pod.forget()
    comparer.compare()
    assert not [name for _, _, names in os.walk(work) for name in names if name.startswith(".fuse_hidden")]
