"""core_size.py LIMIT: fails if the library without features needs more crates than LIMIT."""

import subprocess
import sys

import project

limit = int(sys.argv[1])
# Deduplication would list a crate twice: once in full, once with a `(*)`.
tree = subprocess.run(
    ["cargo", "tree", "--locked", "-e", "normal", "--no-default-features"]
    + ["--prefix", "none", "--no-dedupe"],
    cwd=project.ROOT,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
).stdout
crates = set(tree.splitlines())
print(f"{len(crates)} crates, at most {limit}")
if len(crates) > limit:
    project.fail("the core has grown:\n" + "\n".join(sorted(crates)))
