"""Fails if the README names another minimum Rust version, or a dependency needs a newer one."""

import re

import project

metadata = project.cargo_metadata("--all-features")
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
root = metadata["resolve"]["root"]

manifest = packages[root]["rust_version"]
readme = re.findall(
    r"Minimum Rust version: ([0-9]+(?:\.[0-9]+)+)",
    (project.ROOT / "README.md").read_text(encoding="utf-8"),
)
print(f"Cargo.toml: {manifest}, README.md: {', '.join(readme) or 'none'}")
if readme != [manifest]:
    project.fail("the README must name the minimum Rust version of Cargo.toml, and once")


def number(version):
    return tuple(int(part) for part in version.split(".")[:2])


# Development dependencies are not part of what a user builds.
seen, todo = {root}, [root]
while todo:
    for dep in nodes[todo.pop()]["deps"]:
        if dep["pkg"] not in seen and any(kind["kind"] != "dev" for kind in dep["dep_kinds"]):
            seen.add(dep["pkg"])
            todo.append(dep["pkg"])
newer = [
    "{name} {version} needs Rust {rust_version}".format(**packages[id])
    for id in sorted(seen)
    if packages[id].get("rust_version") and number(packages[id]["rust_version"]) > number(manifest)
]
print(f"{len(seen) - 1} dependencies, {len(newer)} of them need a newer Rust")
if newer:
    project.fail("\n".join(newer))
