"""Builds of our extensions beside the usual one, for the tools, and how these run programs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_TIMEOUT = 1800


def run_quietly(
    command: Sequence[str | Path], folder: Path = ROOT, **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Run *command* in *folder*; where it fails, end with what it wrote."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\n{' '.join(map(str, command))}: exit status {done.returncode}")
    return done


def build_extensions(
    command: str, *options: str, flags: str, folder: Path = ROOT, **settings: str
) -> None:
    """Compile them with *flags*, in the checkout or a copy of it."""
    setup = [sys.executable, "setup.py", "--quiet", command, "--parallel=2", *options]
    run_quietly(setup, folder, CFLAGS=flags, **settings)


def build_planted(folder: Path, flags: str) -> None:
    """Compile them to *folder*, and the planted defects too, which must be found there."""
    build_extensions(
        *("build", f"--build-lib={folder}", f"--build-temp={folder}-objects"),
        flags=flags,
        GREENWAIT_PLANTED_DEFECT="1",
    )


def copy_checkout(folder: Path) -> None:
    """Have in *folder* what git tracks here, or would."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    for name in listed.stdout.split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
