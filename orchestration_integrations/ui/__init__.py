"""The live page: workflows, instances and one page for each instance, of any Orchestration server.

- ``page``: the page as an ASGI app. The embedded server serves it at ``/``.
- ``serving``: a small web server for it, for the command ``orchestration-integrations ui``.

The page talks to the server through the hooks, so it works with each generation that they know. What it reads is
turned into plain JSON here (``instance_view``, ``money``, ``definition_view``); the scripts in ``static`` only draw it.
``guard`` says who may read and who may act.
"""
