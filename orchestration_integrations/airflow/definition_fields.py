"""Operators that take a definition: as a mapping, as text, by the name of a file that is a template, or as a path.

Airflow takes every template field that ends with a suffix of ``template_ext`` for the name of a file: it would also
send the content of a file where a variable says ``invoice.json``. Here only ``definition`` can name one.

A file that is missing is an error of ``execute`` and not of the templates. Airflow fills in templates again when a
deferred task resumes, and an error there would end the task while its run goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..api.errors import ValidationError
from ..definition_files import SUFFIXES, names_file, read_definition, text_of_file

_BY_PATH = "path= takes a template and a file that another task names, and fills in nothing inside the file"


class DefinitionFields:
    """For an operator with the template fields ``definition`` and ``path``."""

    definition: Any
    path: Any
    template_ext: Sequence[str] = SUFFIXES

    def resolve_template_files(self) -> None:
        """As Airflow's, which has the file's text shown in its UI, for ``definition`` alone."""
        self._put_text_in_place()
        self.prepare_template()  # type: ignore[attr-defined]

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Any,
        jinja_env: Any,
        seen_oids: set[int],
    ) -> None:
        """As Airflow's, where nothing but ``definition`` can name a file, and no text of another task does."""
        if id(self.definition) not in seen_oids:
            self._put_text_in_place()
        own = self.__dict__.get("template_ext")
        self.__dict__["template_ext"] = ()
        try:
            super()._do_render_template_fields(  # type: ignore[misc]
                parent, template_fields, context, jinja_env, seen_oids
            )
        finally:
            del self.__dict__["template_ext"]
            if own is not None:
                self.__dict__["template_ext"] = own

    def _put_text_in_place(self) -> None:
        if not names_file(self.definition, self.template_ext):
            return
        try:
            text, _ = _text(self, self.definition, "definition")
        except ValidationError:
            return
        self.definition = f"{text}\n"  # a text that ends with a line break names no file

    def read_definition(self) -> Mapping[str, Any]:
        """The definition, once templates are filled in.

        Raises:
            ValidationError: ``path`` names the argument.
        """
        if names_file(self.definition, self.template_ext):
            name = self.definition
            if "{{" in name:
                raise ValidationError(
                    f"definition: {name!r} is the name of a file, which takes no template; {_BY_PATH}",
                    path="definition",
                )
            _, place = _text(self, name, "definition")
            raise ValidationError(
                f"definition: Airflow has not filled in the file {place}: a name given by another task is not taken "
                f"for one; {_BY_PATH}",
                path="definition",
            )
        folders = _folders_for(self, self.path, "path") if self.definition in (None, "") else ()
        return read_definition(self.definition, self.path, folders=folders)


def _text(operator: Any, name: str, field: str) -> tuple[str, str]:
    return text_of_file(name, _folders_for(operator, name, field), field)


def _folders_for(operator: Any, path: object, field: str) -> list[str]:
    """Where a path is looked for if it is relative. The worker's working folder is none of these places."""
    folders = _folders(operator)
    relative = isinstance(path, str | os.PathLike) and not os.path.isabs(os.path.expanduser(os.fspath(path)))
    if relative and not folders:
        raise ValidationError(
            f"{field}: {path!s} is relative to the folder of the DAG's file, and this task has none; give "
            "an absolute path",
            path=field,
        )
    return folders


def _folders(operator: Any) -> list[str]:
    """The folder of the DAG's file, then the DAG's ``template_searchpath``."""
    if not operator.has_dag():
        return []
    dag = operator.dag
    searched = dag.template_searchpath or []
    folder = os.path.abspath(dag.folder) if dag.folder else ""
    found = [folder, *(os.path.join(folder, one) for one in ([searched] if isinstance(searched, str) else searched))]
    return [one for one in found if os.path.isabs(one)]
