"""Builds the library with the given features, and with the lowest versions of its direct dependencies
that Cargo.toml allows.

Works on a copy without the development dependencies, whose versions no user resolves.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import project

COPIED = ["Cargo.toml", "README.md", "benches", "examples", "src", "tests"]


def run(*command, **environment):
    done = subprocess.run(
        command,
        cwd=copy,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        project.fail(f"`{' '.join(command)}` failed:\n{done.stdout}")
    return done.stdout


with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder)
    for name in COPIED:
        path = project.ROOT / name
        if path.is_dir():
            ignored = shutil.ignore_patterns("node_modules", "target")
            shutil.copytree(path, copy / name, ignore=ignored)
        else:
            shutil.copy(path, copy / name)
    run("cargo", "hack", "--remove-dev-deps")
    # A stable cargo resolves minimal versions only so. Nothing is compiled with this variable.
    run("cargo", "update", "-Z", "direct-minimal-versions", RUSTC_BOOTSTRAP="1")
    print(run("cargo", "tree", "--all-features", "-e", "normal", "--depth", "1", "--prefix", "none"))
    run("cargo", "check", "--quiet", "--lib", "--no-default-features", "--features", sys.argv[1])
print("the library builds with these versions")
