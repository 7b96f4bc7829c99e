"""taplo, which VS Code's Even Better TOML uses, accepts every shipped experiment and template, and rejects mistakes."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TAPLO = Path(sys.executable).with_name("taplo")

# For each kind of mistake, an example and the message that taplo must give.
SLIPS = {
    "misspelled key in a section": ("[train]\nstps = 3\n", "'stps' was unexpected"),
    "misspelled section": ("[trian]\nsteps = 3\n", "'trian' was unexpected"),
    "misspelled key in a nested table": ("[model.rope_scaling]\nfactr = 2.0\n", "'factr' was unexpected"),
    "misspelled key in an inline table": ("[dataset]\nhub = { repo = \"a/b\", files = [\"x\"], revison = \"v\" }\n", "'revison' was unexpected"),
    "misspelled key in an array of tables": ("[[dataset.source]]\nname = \"a\"\nwieght = 2\n", "'wieght' was unexpected"),
    "unknown enum value": ("[train]\nprecision = \"bf15\"\n", '"bf15" is not valid'),
    "string instead of a number": ("[train]\nsteps = \"3\"\n", 'is not of type "integer"'),
    "number instead of a string": ("[run]\nname = 3\n", 'is not of type "string"'),
    "number below its minimum": ("[train]\nsteps = 0\n", "less than the minimum"),
    "array that is too short": ("[optimizer]\nbetas = [0.9]\n", "less than 2 items"),
    "missing required key": ("[dataset]\nhub = { files = [\"x\"] }\n", '"repo" is a required property'),
}


def check(program, report):
    schema = program.file("schema.json", program.call("schema"))
    for file in sorted((REPOSITORY / "experiments").rglob("*.toml")):
        # The file's first line names the schema.
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
        tomllib.loads(text)  # Valid TOML, so only the schema can reject it.
        accepted, answer = taplo(program.file("slip.toml", text), schema)
        report.holds(f"rejected: {what}", not accepted and wanted in answer, line_with(answer, wanted))


def templates(program):
    """The values of `init --template`, from its help."""
    names = re.findall(r"^\s+- (\w+):", program.call("init", "--help"), flags=re.MULTILINE)
    if not names:
        raise RuntimeError("`oss-run init --help` lists no templates")
    return names


def taplo(file, schema=None):
    """Whether taplo accepts a file, and its messages."""
    named = ["--schema", schema.as_uri()] if schema else []
    command = [TAPLO, "check", "--colors", "never", *named, file]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return done.returncode == 0, "accepted" if done.returncode == 0 else "\n".join(errors)


def line_with(answer, wanted):
    """The line with the expected message, or the whole answer if there is none."""
    return next((line for line in answer.splitlines() if wanted in line), answer)
