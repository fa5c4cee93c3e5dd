"""Brings the database to the newest version: `python3 -m guestbook.migrate`."""

from guestbook.entries import connect

MIGRATIONS = [
    "CREATE TABLE entries (id bigserial PRIMARY KEY, visitor text NOT NULL)",
]


def main():
    with connect() as connection, connection.transaction():
        connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version integer NOT NULL)")
        row = connection.execute("SELECT coalesce(max(version), 0) AS version FROM schema_version").fetchone()
        for number, migration in enumerate(MIGRATIONS, 1):
            if number > row["version"]:
                print(f"migration {number}: {migration}")
                connection.execute(migration)
                connection.execute("INSERT INTO schema_version VALUES (%s)", (number,))


if __name__ == "__main__":
    main()
