"""Wait for the tracking server's database and bring its tables to this version of MLflow.

libpq's variables (PGHOST, PGDATABASE, PGUSER, ...) say where it is. Of several servers that start
at once one does it and the others wait.
"""

import os
import sys
import time
from typing import NoReturn

import psycopg2

WAIT_VARIABLE = "DATABASE_WAIT_SECONDS"
# Any number that nothing else in this database locks.
LOCK = 20_170_411


def refuse(reason: str) -> NoReturn:
    """End with one line."""
    sys.exit(f"start-server.sh: {' '.join(reason.split())}")


def patience_s() -> float:
    """How long the database is waited for."""
    text = os.environ.get(WAIT_VARIABLE) or "60"
    try:
        return float(text)
    except ValueError:
        refuse(f"{WAIT_VARIABLE}={text}: expected a number of seconds")


def connect() -> "psycopg2.extensions.connection":
    """A connection to the database, as soon as it takes one."""
    end = time.monotonic() + patience_s()
    while True:
        try:
            return psycopg2.connect("", connect_timeout=10)
        except psycopg2.OperationalError as error:
            # A server that starts says so; whatever else it answers, waiting does not help.
            answered = "FATAL" in str(error) and "starting up" not in str(error)
            if answered or time.monotonic() > end:
                refuse(f"the database cannot be used: {error}")
        time.sleep(1)


def migrate(uri: str) -> None:
    """Make or upgrade the tables of runs and models, and those of users and rights."""
    from mlflow.db import commands as runs
    from mlflow.server.auth.db.cli import commands as users

    runs(["upgrade", uri], standalone_mode=False)
    users(["upgrade", "--url", uri], standalone_mode=False)


if __name__ == "__main__":
    connection = connect()
    connection.autocommit = True  # an open transaction would hold back what the upgrade changes
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        migrate(os.environ["MLFLOW_BACKEND_STORE_URI"])
    connection.close()
