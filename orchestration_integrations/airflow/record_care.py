# mypy: disable-error-code="import-not-found"
"""What people do to the records of tasks: settle an unknown fate, and remove what belongs to DAG runs that are gone.

airflow variables set orchestration_settled_<digest> <token>       (an AmbiguousRunError prints this line)
python -m orchestration_integrations.airflow.record_care           (removes old records; needs Airflow's database)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ..api.errors import ValidationError
from . import variables
from .marks import KINDS as MARKS
from .run_records import PREFIX, settled_variable

_KINDS = ("run", "choice", "mark", "settled", "event", "index", *MARKS)


def settle_run(dag_id: str, run_id: str, task_id: str, token: str, *, map_index: int = -1) -> None:
    """Settle an unknown fate: you have found out what became of the run, and the next try starts a new one.

    Call it where Airflow's Variables can be set: in a task, or on 2.11 in any process of the installation. The command
    ``airflow variables set`` does the same.

    Args:
        dag_id, run_id, task_id, map_index: the task instance; map index -1 where it is not mapped.
        token: that the AmbiguousRunError printed. It settles this one fate and no later one.

    Raises:
        ValidationError: the token is none.
    """
    if not isinstance(token, str) or not token.strip():
        raise ValidationError("token must be the one that an AmbiguousRunError printed", path="token")
    parts = (dag_id, run_id, task_id, map_index)
    what = f"Formance Orchestration: settles the run of task {task_id}, map index {map_index}, of {dag_id} {run_id}"
    variables.write(settled_variable(parts), token.strip(), what[:500])


def remove_old_records(*, dry_run: bool = False) -> Sequence[str]:
    """Delete the Variables of task instances whose DAG run is not in Airflow's database any more.

    Needs direct access to that database: run it where the scheduler runs, not in a task.

    Args:
        dry_run: only tell.

    Returns:
        The names of the Variables.
    """
    from airflow.models import DagRun, Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = [(row.key, row) for row in session.query(Variable).filter(Variable.key.like(f"{PREFIX}%")).all()]
        alive = {(dag_id, run_id) for dag_id, run_id in session.query(DagRun.dag_id, DagRun.run_id)}
        gone = gone_of(((name, row.get_val()) for name, row in rows), alive)
        if not dry_run:
            for name, row in rows:
                if name in gone:
                    session.delete(row)
    return sorted(gone)


def gone_of(stored: Iterable[tuple[str, str | None]], alive: set[tuple[str, str]]) -> set[str]:
    """The Variables that belong to none of the DAG runs, those without a DAG run's ids by the digest in their name."""
    owners: dict[str, set[tuple[str, str]]] = {}
    digests: dict[str, str] = {}
    for name, text in stored:
        digest = _digest_in(name.removeprefix(PREFIX))
        if digest is None:
            continue
        digests[name] = digest
        of = _parts_in(text)
        if of is not None:
            owners.setdefault(digest, set()).add(of)
    return {name for name, digest in digests.items() if digest in owners and not owners[digest] & alive}


def _digest_in(name: str) -> str | None:
    """What names the owner in the name of a Variable: of a record its digest, of a mark the instance."""
    kind, _, rest = name.partition("_")
    return rest.partition("_")[0] if kind in _KINDS else None


def _parts_in(text: str | None) -> tuple[str, str] | None:
    try:
        found: Any = json.loads(text or "")
        return str(found["of"][0]), str(found["of"][1])
    except (ValueError, TypeError, KeyError, IndexError):
        return None


def main() -> None:
    """Remove old records and tell how many there were."""
    import argparse

    parser = argparse.ArgumentParser(description="Remove the records of runs whose DAG run is gone.")
    parser.add_argument("--dry-run", action="store_true", help="only tell their names")
    given = parser.parse_args()
    names = remove_old_records(dry_run=given.dry_run)
    for name in names:
        print(name)
    print(f"{len(names)} Variables {'would be' if given.dry_run else 'were'} removed")


if __name__ == "__main__":
    main()
