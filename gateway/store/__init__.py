"""The only SQL: Postgres pools, named queries, migrations, and one module per aggregate."""
