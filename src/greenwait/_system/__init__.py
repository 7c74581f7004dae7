"""C and the operating system: nothing here knows of psycopg2 or of greenlets."""
