"""The list of mutants in tools/mutants.d, and its format.

One file is one group; its name is the group's. An entry begins with "mutant"
and a name, and its fields are indented by two spaces. A deeper indented line
continues the field above it. "#" begins a comment line.

    mutant zap-without-flush
      file       mmu_core/tdp/tdp_zap.cc
      rule       TLB-06: a zap in a valid root flushes before it lets go of the lock
      after      } else if (batch.pending()) {
      statement  batch.Flush(cost);
      becomes    batch.Discard(FlushDiscard::kRootUnreachable);
      test       //mmu_core/vm:flush_rule_test *ZapInAValidRoot

  file        the source that is broken
  rule        what the mutant breaks; names behaviours or races where they exist
  after       text that occurs once in the file; the broken text is the first
              behind it. Without this field the broken text occurs once
  statement   one or more whole statements that are broken, or
  expression  an expression, or
  text        any text, such as a declaration. "becomes" then has both, the broken
              and the whole, and the word ACTIVE, which is true if it is broken
  becomes     what stands there instead; "nothing" for no statement
  test        a test target and a gtest filter. May be repeated: each of them
              must fail
  config      a configuration of .bazelrc that the tests need, such as tsan
  copy        the copy of the tree that is built: "tree", or "headers" for a header
              that most of the tree includes, with tests of few sources
  hang        "caught": a test that does not end in time has caught the mutant
  equivalent  why no test can notice the mutant; it is then not run

Source text is compared token by token, without comments.
"""

import re
import zlib

FIELDS = ("file", "rule", "after", "statement", "expression", "text",
          "becomes", "test", "config", "copy", "hang", "equivalent")
BROKEN = ("statement", "expression", "text")
FIELD = re.compile(r"^  (\w+)(?: +(.*))?$")
TOKEN = re.compile(r"\w+|[^\w\s]")
COMMENT = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


class ListError(Exception):
    """The list, or an entry's place in the source, is wrong."""


class Mutant:
    """One entry of the list. The fields are those of the format."""

    def __init__(self, name, group, where):
        self.name = name
        self.group = group
        self.where = where         # "flushes.txt:12"
        self.fields = {}
        self.tests = []            # (label, filter)
        # Does not change when entries are added, so that their files alone are
        # built again.
        self.number = zlib.crc32(name.encode()) or 1

    def get(self, field):
        return self.fields.get(field, "")

    @property
    def kind(self):
        return next(kind for kind in BROKEN if kind in self.fields)

    @property
    def old(self):
        return self.get(self.kind)

    @property
    def new(self):
        new = self.get("becomes")
        return "" if new == "nothing" else new

    @property
    def copy(self):
        return self.get("copy") or "tree"

    @property
    def equivalent(self):
        return self.get("equivalent")

    def check(self):
        for field in ("file", "rule", "becomes"):
            if not self.get(field):
                raise ListError("%s: %s has no %s" %
                                (self.where, self.name, field))
        if sum(kind in self.fields for kind in BROKEN) != 1:
            raise ListError("%s: %s has not exactly one of %s" %
                            (self.where, self.name, ", ".join(BROKEN)))
        if self.kind == "text" and not re.search(r"\bACTIVE\b", self.new):
            raise ListError("%s: %s has a text without ACTIVE" %
                            (self.where, self.name))
        if bool(self.tests) == bool(self.equivalent):
            raise ListError("%s: %s has neither or both of test and equivalent"
                            % (self.where, self.name))
        if self.get("hang") not in ("", "caught"):
            raise ListError("%s: hang is caught or not given" % self.where)


def tokens_of(text):
    return TOKEN.findall(text)


def without_comments(text):
    """The text with comments blanked; each offset stays what it is."""
    def blank(match):
        part = match.group(0)
        return part if part[0] in "\"'" else re.sub(r"[^\n]", " ", part)
    return COMMENT.sub(blank, text)


def places_of(wanted, code):
    """(start, end) of each occurrence of the tokens of `wanted` in `code`."""
    words = tokens_of(wanted)
    pattern = ""
    for i, word in enumerate(words):
        if i:
            both_words = re.match(r"\w", word) and re.match(r"\w", words[i - 1])
            pattern += r"\s+" if both_words else r"\s*"
        pattern += re.escape(word)
    if words and re.match(r"\w", words[0]):
        pattern = r"(?<!\w)" + pattern
    if words and re.match(r"\w", words[-1]):
        pattern += r"(?!\w)"
    return [match.span() for match in re.finditer(pattern, code)]


def place_of(mutant, code):
    """Where the mutant's broken text is in `code`, a source without comments."""
    begin = 0
    if mutant.get("after"):
        anchors = places_of(mutant.get("after"), code)
        if len(anchors) != 1:
            raise ListError("%s: %s: \"after\" occurs %d times in %s" %
                            (mutant.where, mutant.name, len(anchors),
                             mutant.get("file")))
        begin = anchors[0][1]
    places = [p for p in places_of(mutant.old, code) if p[0] >= begin]
    if not places or (not mutant.get("after") and len(places) > 1):
        raise ListError("%s: %s: the text to break occurs %d times in %s" %
                        (mutant.where, mutant.name, len(places),
                         mutant.get("file")))
    return places[0]


def parse(text, group, file_name):
    mutants = []
    field = None
    for number, line in enumerate(text.splitlines(), 1):
        where = "%s:%d" % (file_name, number)
        if not line.strip() or line.startswith("#"):
            field = None
            continue
        head = re.match(r"^mutant (\S+)$", line)
        match = FIELD.match(line)
        if head:
            mutants.append(Mutant(head.group(1), group, where))
            field = None
        elif line.startswith("    ") and field:
            mutants[-1].fields[field] += "\n" + line.strip()
        elif match and mutants and match.group(1) in FIELDS:
            field = match.group(1)
            value = (match.group(2) or "").strip()
            if field == "test":
                label, _, name = value.partition(" ")
                mutants[-1].tests.append((label, name.strip() or "*"))
                field = None
            elif field in mutants[-1].fields:
                raise ListError("%s: a second %s" % (where, field))
            else:
                mutants[-1].fields[field] = value
        else:
            raise ListError("%s: neither an entry nor a field: %s" %
                            (where, line.strip()))
    return mutants


def load(root):
    """All mutants of the tree, group by group; checks the list itself."""
    mutants = []
    for path in sorted((root / "tools" / "mutants.d").glob("*.txt")):
        mutants += parse(path.read_text(), path.stem, path.name)
    numbers = {}
    for mutant in mutants:
        mutant.check()
        other = numbers.setdefault(mutant.number, mutant)
        if other is not mutant:
            raise ListError("%s: rename %s: %s of %s has its name or number" %
                            (mutant.where, mutant.name, other.name,
                             other.where))
    return mutants
