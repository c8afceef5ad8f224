"""Builds the library's tests with the cfg of the model, and runs the models with loom.

The cfg is passed to this crate alone, so that its dependencies are not built again.
"""

import json
import subprocess
import sys

import project

CARGO = [
    "cargo", "rustc", "--locked", "--quiet", "--lib", "--profile", "test", "--message-format", "json",
    "--", "--cfg", "bearer_auth_model",
]

built = subprocess.run(CARGO, stdout=subprocess.PIPE, text=True)
executables = []
for line in built.stdout.splitlines():
    message = json.loads(line)
    if message["reason"] == "compiler-message":
        print(message["message"]["rendered"], file=sys.stderr)
    if message.get("executable"):
        executables.append(message["executable"])
if built.returncode != 0:
    sys.exit(built.returncode)
if len(executables) != 1:
    project.fail(f"cargo built {executables}, not one executable")

passed = []


def check(line):
    if "model::" in line and line.rstrip().endswith("... ok"):
        passed.append(line)


status = project.run([executables[0], "model::"], None, check)
if status != 0:
    sys.exit(status if status > 0 else 1)
if not passed:
    project.fail("no model ran")
