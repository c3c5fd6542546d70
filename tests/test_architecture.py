"""The house keeps its shape: what the design draws is what the code has."""

import subprocess
import sys
from pathlib import Path

import pytest

import steward

SOURCE = Path(steward.__file__).parent
REPOSITORY = SOURCE.parent.parent
LONGEST_MODULE = 900


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_has_a_noun_a_docstring_and_a_bearable_length(path):
    text = path.read_text()
    assert path.stem not in {"utils", "helpers", "common", "base", "manager", "misc"}
    assert len(text.splitlines()) < LONGEST_MODULE
    assert not text.strip() or text.lstrip().startswith('"""')


def imported_by(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return set(answer.stdout.split())


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import steward.config", {"pandas", "sklearn", "mlflow", "great_expectations", "numpy.testing", "airflow"}),
        ("import steward.cli", {"pandas", "sklearn", "mlflow", "great_expectations", "airflow", "ibis"}),
        ("import steward.steps", {"mlflow", "great_expectations", "airflow", "optuna", "matplotlib", "skl2onnx"}),
        (
            "import steward.pages.app",
            {"pandas", "sklearn", "mlflow", "great_expectations", "airflow", "optuna", "matplotlib"},
        ),
    ],
)
def test_imports_stay_light(statement, heavy):
    assert imported_by(statement) & heavy == set()
