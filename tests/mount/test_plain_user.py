"""A user without rights mounts through fusermount3, and has a file system like any other."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("plain_user.py")


@pytest.mark.parametrize("story", ["mine", "kept", "commands"])
def test_as_nobody(story):
    assert os.geteuid() == 0, "becoming somebody else takes root: run the tests as root"
    folder = Path(tempfile.mkdtemp(prefix="wh"))
    try:
        done = subprocess.run(
            ["unshare", "--mount", sys.executable, SCRIPT, folder, story],
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
