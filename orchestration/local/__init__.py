"""PostgreSQL, Valkey and the other processes of a single machine."""
