"""Runs all examples, each with the features that it requires."""

import argparse

import project

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seconds", type=int, help="the limit for each example")
parser.add_argument("--except", dest="excluded", action="append", default=[])
arguments = parser.parse_args()

targets = {
    target["name"]: target.get("required-features", [])
    for target in project.package()["targets"]
    if "example" in target["kind"]
}

folder = project.ROOT / "examples"
names = [file.stem for file in folder.glob("*.rs")]
names += [file.parent.name for file in folder.glob("*/main.rs")]
unknown = sorted(set(names) - set(targets))
if unknown:
    project.fail(f"files that are not examples of Cargo.toml: {', '.join(unknown)}")

examples = sorted(set(targets) - set(arguments.excluded))
if not examples:
    project.fail("there are no examples")
for name in examples:
    print(f"[{name}]", flush=True)
    target = ["--locked", "--quiet", "--example", name]
    if targets[name]:
        target += ["--features", ",".join(targets[name])]
    for command, seconds in (("build", None), ("run", arguments.seconds)):
        if project.run(["cargo", command, *target], seconds) != 0:
            project.fail(f"example {name} failed")
print(f"{len(examples)} examples passed")
