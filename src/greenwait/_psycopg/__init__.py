"""psycopg2 and libpq as greenwait sees them, and what is kept of a connection; nothing waits."""
