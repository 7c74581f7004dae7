"""psycopg2, libpq, and the state kept for a connection; nothing here waits."""
