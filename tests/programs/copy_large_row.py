"""A row of 200 MB out and in, with 1.4 GB of memory here and in the server: ``DSN``."""

import hashlib
import sys
import tempfile

import greenwait

SIZE = 200_000_000
DIGITS = "0123456789"


class Rows:
    """A file that notes how long each row is."""

    def __init__(self, file):
        self.file, self.sizes = file, []

    def write(self, row):
        self.sizes.append(len(row))
        self.file.write(row)


greenwait.install(cancel_grace=20)
conn = greenwait.connect(sys.argv[1])
cur = conn.cursor()
cur.execute("create temp table t (id int, data text)")
with tempfile.TemporaryFile() as file:
    rows = Rows(file)
    cur.copy_expert(f"copy (select 1, repeat('{DIGITS}', {SIZE // 10})) to stdout", rows)
    assert (cur.rowcount, cur.statusmessage, rows.sizes) == (1, "COPY 1", [SIZE + 3])
    file.seek(0)
    cur.copy_from(file, "t", size=2 * SIZE)
    assert (cur.rowcount, cur.statusmessage) == (1, "COPY 1")
cur.execute("select id, md5(data) from t")
expected = hashlib.md5(usedforsecurity=False)
for _ in range(100):
    expected.update(DIGITS.encode() * (SIZE // 1000))
assert cur.fetchall() == [(1, expected.hexdigest())]
conn.close()
print("well")
