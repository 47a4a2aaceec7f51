"""Write docs/reference/ from the code: options, settings, commands, HTTP and metrics.

Everything but the options is asked of a rendered project with its environment; `make reference`
takes the one that `make demo` made.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from copier_questions import ROOT, visible

FOLDER = ROOT / "docs" / "reference"
GENERATED = "<!-- Written by `make reference`. -->"

# Runs in the project's environment.
INSPECT = """
import importlib, inspect, json, sys, tempfile
from pathlib import Path

package = sys.argv[1]
settings = importlib.import_module(f"{package}.settings")
serving = importlib.import_module(f"{package}.serving")
empty = settings.Settings(_env_file=None, home=Path(tempfile.mkdtemp()))
app = serving.create_app(empty)
document = app.openapi()
print(json.dumps({
    "settings": settings.environment_file(),
    "paths": {
        f"{method.upper()} {path}": {
            "summary": operation.get("description") or operation["summary"],
            "statuses": sorted(operation["responses"]),
        }
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    },
    "metrics": inspect.getdoc(type(app.state.metrics)),
}))
"""


def main() -> int:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path, help="a rendered project with its .venv")
    project = parser.parse_args().project.resolve()
    if not (project / ".venv" / "bin" / "python").exists():
        print(f"{project} has no .venv: run `make demo` first", file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages(project).items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"docs/reference/{name}")
    return 0


def pages(project: Path) -> dict[str, str]:
    """Every page by its file name."""
    python = project / ".venv" / "bin" / "python"
    [package] = (path.parent.name for path in project.glob("src/*/settings.py"))
    found = json.loads(output([python, "-c", INSPECT, package], project).splitlines()[-1])
    commands = output(
        [python, "-m", "typer", f"{package}.cli", "utils", "docs", "--name", project.name], project
    )
    return {
        "options.md": page("Options", options()),
        "settings.md": page("Settings", settings(found["settings"])),
        "commands.md": page("Commands", as_text(commands, project.name)),
        "http.md": page("HTTP", http(found["paths"])),
        "metrics.md": page("Metrics", metrics(found["metrics"])),
    }


def output(command: Sequence[str | Path], folder: Path) -> str:
    """What a command writes to its standard output."""
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def page(title: str, body: str) -> str:
    """A generated page."""
    return f"# {title}\n\n{GENERATED}\n\n{body.strip()}\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_text(commands: str, program: str) -> str:
    """The commands' help without its own title; their usage is no command to run."""
    return commands.replace(f"# `{program}`\n", "", 1).replace("```console\n$ ", "```text\n")


def options() -> str:
    """The questions of the template."""
    definition = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    prompts: Mapping[str, Any] = definition["__prompts__"]
    rows = []
    for name in visible(definition):
        value, prompt = definition[name], prompts[name]
        question = prompt if isinstance(prompt, str) else prompt["__prompt__"]
        choices = ", ".join(f"`{choice}`" for choice in value) if isinstance(value, list) else ""
        default = value[0] if isinstance(value, list) else value
        shown = "from the answers before it" if "<<" in default else f"`{default}`"
        rows.append((f"`{name}`", shown, choices, question))
    return "What cookiecutter and copier ask.\n\n" + table(
        ("option", "default", "choices", "question"), rows
    )


def settings(environment: str) -> str:
    """The settings, as the project's own `settings` command prints them."""
    rows = []
    description: list[str] = []
    for line in environment.splitlines()[1:]:
        text = line.removeprefix("# ")
        name, separator, default = text.partition("=")
        if separator and name.isupper():
            shown = f"`{default}`" if default else ""
            rows.append((f"`{name}`", shown, " ".join(description).replace("|", "\\|")))
            description = []
        elif text:
            description.append(text)
    return "Environment variables, or lines of a file `.env` in the project's folder.\n\n" + table(
        ("variable", "default", "meaning"), rows
    )


def http(paths: Mapping[str, Mapping[str, Any]]) -> str:
    """The addresses that a server answers; its own `/docs` shows the loaded model's inputs."""
    rows = [
        (f"`{name}`", " ".join(path["summary"].split()), ", ".join(path["statuses"]))
        for name, path in paths.items()
    ]
    return (
        "Errors are problem details (RFC 9457). A running server shows its model's own inputs and "
        "examples at `/docs`.\n\n" + table(("request", "what it does", "statuses"), rows)
    )


def metrics(documentation: str) -> str:
    """The list in the docstring of the class that holds the metrics."""
    return documentation[documentation.index("\n- ") :]


if __name__ == "__main__":
    sys.exit(main())
