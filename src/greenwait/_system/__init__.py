"""C and the operating system, without psycopg2 or greenlets."""
