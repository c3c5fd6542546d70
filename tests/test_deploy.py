"""The files of a deployment, held against what the code knows; no container engine is needed."""

import inspect
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

from steward.config import Settings
from steward.standalone import Site

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "command" in service]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SECRETS = ("POSTGRES_PASSWORD", "AIRFLOW_FERNET_KEY", "AIRFLOW_JWT_SECRET", "AIRFLOW_SECRET_KEY")


def lines_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stdout


def test_the_pieces_are_those_of_the_demo():
    wanted = {"postgres", "mlflow", "airflow-migration", "airflow-scheduler", "airflow-api-server"}
    assert wanted | {"airflow-dag-processor", "airflow-triggerer", "steward-serve"} == set(SERVICES)


def test_images_are_pinned():
    images = [service["image"] for service in SERVICES.values()] + re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert all(re.search(r":\S*\d+\.\d+", image) and not image.endswith(":latest") for image in images)


@pytest.mark.parametrize("name", OURS)
def test_commands_exist_where_the_image_puts_them(name):
    program, *arguments = SERVICES[name]["command"]
    assert shutil.which(program, path=str(ROOT / ".venv" / "bin") + os.pathsep + os.environ["PATH"])
    if program == "airflow":
        from airflow.cli.cli_parser import airflow_commands

        assert arguments[0] in {command.name for command in airflow_commands}


def test_mlflow_knows_its_options():
    from mlflow.cli import server

    known = {option for parameter in server.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {argument.split("=")[0] for argument in SERVICES["mlflow"]["command"][2:]} <= known


@pytest.mark.parametrize("name", OURS)
def test_environment_names_exist(name):
    source = inspect.getsource(Settings)
    told = [*SERVICES[name]["environment"], *re.findall(r"\b([A-Z_]+)=", DOCKERFILE.split("ENV PATH")[1])]
    for variable in told:
        if variable.startswith("STEWARD_"):
            assert variable in source
        if variable.startswith("AIRFLOW__"):
            section, option = variable.removeprefix("AIRFLOW__").lower().split("__")
            assert option in known_options()[section]


@cache
def known_options() -> dict[str, set[str]]:
    import airflow

    folder = Path(airflow.__file__).parent
    found: dict[str, set[str]] = {}
    for path in (folder / "config_templates" / "config.yml", *folder.glob("**/provider.yaml")):
        sections = yaml.safe_load(path.read_text(encoding="utf-8"))
        for section, content in (sections.get("config") or {} if path.name == "provider.yaml" else sections).items():
            found.setdefault(section, set()).update(content["options"])
    # read by the simple auth manager, missing in Airflow's own list of options
    found["core"] |= {"simple_auth_manager_users", "simple_auth_manager_passwords_file"}
    return found


def test_the_demo_tells_airflow_what_it_knows(tmp_path):
    settings = Settings.from_environment({"STEWARD_HOME": str(tmp_path)})
    environment = Site(settings, ROOT / "dags", 8080, 5000).environment()
    for variable in environment:
        if variable.startswith("AIRFLOW__"):
            section, option = variable.removeprefix("AIRFLOW__").lower().split("__")
            assert option in known_options()[section], variable
    assert (tmp_path / "airflow" / "keys.json").stat().st_mode & 0o077 == 0
    assert (tmp_path / "airflow" / "passwords.json").stat().st_mode & 0o077 == 0


def test_secrets_come_from_the_environment_and_are_demanded():
    text = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
    for secret in SECRETS:
        assert f"${{{secret}:?" in text
    assert not re.search(r"(PASSWORD|SECRET_KEY|FERNET_KEY|JWT_SECRET): [^$\n]*\w+$", text, re.MULTILINE)


def test_every_service_says_whether_it_is_well_and_none_is_root():
    unwatched = [name for name, service in SERVICES.items() if "healthcheck" not in service]
    assert unwatched == ["airflow-migration"]
    assert re.search(r"^USER steward$", DOCKERFILE, re.MULTILINE)
    assert "privileged: true" not in (ROOT / "docker-compose.yaml").read_text()


def test_ports_are_open_to_this_machine_only():
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_the_image_copies_is_there():
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        *sources, _ = [word for word in line.split() if not word.startswith("--")]
        assert all((ROOT / source).exists() for source in sources)


def test_the_lock_has_hashes_and_no_addresses():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+)==", text, re.MULTILINE)
    blocks = re.split(r"\n(?=[\w.-]+==)", text)
    assert len(pins) > 100
    assert all("--hash=sha256:" in block for block in blocks[1:])
    assert not re.search(r"://|--index|--find-links|/(home|root|tmp|work)/", text)


def test_the_lock_answers_what_the_project_asks_for():
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pins = {
        name.lower().replace("_", "-"): version
        for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
    }
    for line in (*project["project"]["dependencies"], *project["dependency-groups"]["dev"]):
        wanted = Requirement(line)
        assert wanted.specifier.contains(pins[wanted.name.lower().replace("_", "-")], prereleases=True), line


def test_make_helps_and_ci_runs_what_people_run():
    assert {"demo", "test", "check", "lock"} <= {line.split()[0] for line in lines_of("make", "help").splitlines()}
    script = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]
    assert script == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make check", "make test"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
