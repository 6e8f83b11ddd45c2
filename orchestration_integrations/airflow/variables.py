# mypy: disable-error-code="import-not-found"
"""Airflow Variables as a place for small texts, on every version.

On 2.11 the database is read itself: ``Variable.get`` would take a secrets backend's word first, and would call a
database that is away "not found". On 3.x a task reaches Variables over Airflow's API only, where a failing read can
look like a missing Variable. So a missing one proves nothing there (see ``run_records``), unless Airflow itself is
asked, past its ``Variable.get``: ``read_surely``.
"""

from __future__ import annotations

from .compat import AIRFLOW_3, asked_variable


def read(name: str) -> str | None:
    """The text of a Variable; None where there is none."""
    if AIRFLOW_3:
        from airflow.sdk import Variable

        found = Variable.get(name, default=None)
        return None if found is None else str(found)
    from airflow.models import Variable as Row
    from airflow.utils.session import create_session

    with create_session() as session:
        row = session.query(Row).filter(Row.key == name).one_or_none()
        return None if row is None else row.get_val()


def read_surely(name: str) -> str | None:
    """The text of a Variable as Airflow's database has it; None where it has none.

    No secrets backend and no cache is asked. On 3.x ``Variable.get`` says that there is none where Airflow could not
    be asked, too; this does not.

    Raises:
        Exception: whatever Airflow raises where it cannot be asked.
    """
    if not AIRFLOW_3:
        return read(name)
    answer = asked_variable(name)
    return None if answer is None else str(answer)


def write(name: str, text: str, description: str) -> None:
    """Set a Variable. Raises whatever Airflow raises."""
    if AIRFLOW_3:
        from airflow.sdk import Variable
    else:
        from airflow.models import Variable
    Variable.set(name, text, description=description)


def write_first(name: str, text: str, description: str) -> str:
    """Set a Variable unless it is set already; the text that stands there then.

    On 2.11 the database lets the first one win. On 3.x Airflow's API cannot compare and set: two callers at the same
    moment may each read their own text.
    """
    standing = read(name)
    if standing is not None:
        return standing
    if AIRFLOW_3:
        write(name, text, description)
    else:
        from airflow.models import Variable as Row
        from airflow.utils.session import create_session
        from sqlalchemy.exc import IntegrityError

        try:
            with create_session() as session:
                session.add(Row(key=name, val=text, description=description))
        except IntegrityError:
            pass  # another process was first
    stands = read(name)
    if stands is None:
        raise RuntimeError(f"Variable {name} was set and cannot be read: is Airflow's database away?")
    return stands


def remove(name: str) -> None:
    """Delete a Variable, if it is there."""
    if AIRFLOW_3:
        from airflow.sdk import Variable
    else:
        from airflow.models import Variable
    Variable.delete(name)
