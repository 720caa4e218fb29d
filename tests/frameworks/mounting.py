"""Mounts folders of models with the real command, for the time of a test."""

import contextlib
import gc
import pathlib
import shutil
import subprocess
import tempfile


@contextlib.contextmanager
def work_folder(name):
    """A folder that is removed at the end, whatever happens."""
    work = pathlib.Path(tempfile.mkdtemp(prefix=f"qcache-{name}-"))
    try:
        yield work
    finally:
        shutil.rmtree(work)


@contextlib.contextmanager
def mounted(command, work, *models):
    """Mounts `models` on a folder in `work`, with a cache directory of its own there."""
    mount = work / "mnt"
    mount.mkdir()
    subprocess.run([command, "mount", "--cache-dir", work / "cache", *models, mount], check=True)
    try:
        yield mount
    finally:
        gc.collect()  # models keep the files mapped that they were loaded from
        subprocess.run([command, "unmount", "--lazy", mount], check=True)
