#!/bin/sh
# Records the traces in this folder again: sort, sqlite3 and gzip, each on data
# that this script generates, always the same.
#
#   traces/record.sh [FOLDER]     default: the folder of this script
#
# Needs valgrind, sqlite3, gzip and awk, and takes some minutes. The recorder
# is built first; RECORD=/path/to/record uses one that is there already.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
output=$(mkdir -p "${1:-$here}" && cd "${1:-$here}" && pwd)
if [ -z "${RECORD:-}" ]; then
  (cd "$here/.." && bazel build //trace:record)
  RECORD=$here/../bazel-bin/trace/record
fi
record=$(realpath "$RECORD")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# $1 lines of $2 to $2 + 8 words out of 1,000 made-up ones, from a linear
# congruential generator with the seed $3.
text() {
  awk -v lines="$1" -v least="$2" -v seed="$3" '
    function next_random() {
      seed = (seed * 1103 + 12347) % 1048583
      return seed
    }
    BEGIN {
      split("ba de fi go lu ka me ni po ru", part, " ")
      for (i = 0; i < 1000; i++)
        word[i] = part[i % 10 + 1] part[int(i / 10) % 10 + 1] \
                  part[int(i / 100) + 1]
      for (line = 0; line < lines; line++) {
        words = least + next_random() % 9
        text = word[next_random() % 1000]
        while (--words > 0) text = text " " word[next_random() % 1000]
        print text
      }
    }'
}

valgrind=$(valgrind --version)
# $1 output, $2 what it is, $3 lines of the filter; then the program. The
# environment is on the program's stack: a fixed one makes fixed traces.
trace() {
  file=$output/$1
  about="$2; $valgrind lackey on $(uname -m); made by traces/record.sh"
  lines=$3
  shift 3
  env -i PATH=/usr/bin:/bin LC_ALL=C HOME=/nonexistent \
    "$record" "$file" "$about" "$lines" 0 "$@"
}

text 6000 200 1 > lines.txt
trace sort.trace "$(sort --version | head -n 1), 6,000 lines of text" 16 \
  sort --parallel=1 -S 16M -o sorted.txt lines.txt

text 160 6 2 > source.txt
cat > job.sql <<'SQL'
PRAGMA cache_size = 8000;
CREATE TABLE document (
  id INTEGER PRIMARY KEY, author INTEGER, title BLOB, body BLOB);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
INSERT INTO document
  SELECT i, i * 7919 % 97,
         substr((SELECT readfile('source.txt')), 1 + i * 101 % 9000, 24),
         substr((SELECT readfile('source.txt')), 1 + i * 197 % 6000,
                1500 + i * 7907 % 3000)
  FROM n;
CREATE INDEX by_author ON document (author, title);
UPDATE document SET author = author + 1 WHERE id % 3 = 0;
DELETE FROM document WHERE author = 42;
SELECT author, count(*), sum(length(body)), max(title)
  FROM document WHERE author < 50 GROUP BY author ORDER BY 3 DESC LIMIT 5;
SQL
trace sqlite3.trace "sqlite3 $(sqlite3 --version | cut -d' ' -f1), \
insert, index, update, delete and aggregate over 1,000 documents" 64 \
  sqlite3 documents.db ".read job.sql"

text 1200 6 3 > data.txt
trace gzip.trace "$(gzip --version | head -n 1), 1,200 lines of text" 16 \
  gzip -1 -k data.txt
