"""taplo, which VS Code's Even Better TOML runs, takes every shipped experiment and template, and refuses slips."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TAPLO = Path(sys.executable).with_name("taplo")

# A wrong line for each kind of slip, and what taplo has to point at.
SLIPS = {
    "a key of a section": ("[train]\nstps = 3\n", "'stps' was unexpected"),
    "a section": ("[trian]\nsteps = 3\n", "'trian' was unexpected"),
    "a key of a nested table": ("[model.rope_scaling]\nfactr = 2.0\n", "'factr' was unexpected"),
    "a key of an inline table": ("[dataset]\nhub = { repo = \"a/b\", files = [\"x\"], revison = \"v\" }\n", "'revison' was unexpected"),
    "a key of a list": ("[[dataset.source]]\nname = \"a\"\nwieght = 2\n", "'wieght' was unexpected"),
    "a word of an enum": ("[train]\nprecision = \"bf15\"\n", '"bf15" is not valid'),
    "a string for a number": ("[train]\nsteps = \"3\"\n", 'is not of type "integer"'),
    "a number for a string": ("[run]\nname = 3\n", 'is not of type "string"'),
    "a number below its bound": ("[train]\nsteps = 0\n", "less than the minimum"),
    "a list that is too short": ("[optimizer]\nbetas = [0.9]\n", "less than 2 items"),
    "a key without what it needs": ("[dataset]\nhub = { files = [\"x\"] }\n", '"repo" is a required property'),
}


def check(program, report):
    schema = program.file("schema.json", program.call("schema"))
    for file in sorted((REPOSITORY / "experiments").rglob("*.toml")):
        # Its first line names the schema.
        accepted, answer = taplo(file)
        report.holds(f"experiments/{file.relative_to(REPOSITORY / 'experiments')}", accepted, answer)
    for template in templates(program):
        program.call("init", template, "--template", template)
        accepted, answer = taplo(program.directory / f"{template}.toml")
        report.holds(f"init --template {template}", accepted, answer)
    resolved = program.file("resolved.toml", (program.trained / "experiment.toml").read_text())
    accepted, answer = taplo(resolved, schema)
    report.holds("a run's own experiment.toml", accepted, answer)
    for what, (text, wanted) in SLIPS.items():
        tomllib.loads(text)  # Only the schema can refuse it.
        accepted, answer = taplo(program.file("slip.toml", text), schema)
        report.holds(f"{what} is refused", not accepted and wanted in answer, line_with(answer, wanted))


def templates(program):
    """The words that `init --template` knows, from its own help."""
    names = re.findall(r"^\s+- (\w+):", program.call("init", "--help"), flags=re.MULTILINE)
    if not names:
        raise RuntimeError("`oss-run init --help` lists no templates")
    return names


def taplo(file, schema=None):
    """Whether taplo takes a file, and what it says of it."""
    named = ["--schema", schema.as_uri()] if schema else []
    command = [TAPLO, "check", "--colors", "never", *named, file]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return done.returncode == 0, "taken" if done.returncode == 0 else "\n".join(errors)


def line_with(answer, wanted):
    """The line that points at the slip, or everything where none does."""
    return next((line for line in answer.splitlines() if wanted in line), answer)
