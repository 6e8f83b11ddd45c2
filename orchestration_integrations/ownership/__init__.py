"""Whose run it is: which payment a call means, over tries, retries, clears, loops and edited files. No I/O.

``record`` is what is kept of a key, ``resolve`` the one table that decides what a call does, ``owned_run`` the
procedure that follows it. The faces for Airflow and Prefect, ``run_once`` and the command line all perform this.
"""
