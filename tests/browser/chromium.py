"""Debian's Chromium without a screen, and the pictures that it takes."""

import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
import zlib

CONSOLE = re.compile(r"^\[[^\]]*:CONSOLE[:(].*$", re.MULTILINE)


class Browser:
    """Opens each page in a new process. The window has `width` times `height`
    pixels. The files are removed at the end of `with`."""

    def __init__(self, width, height, dark=False):
        self.flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--force-device-scale-factor=1", "--force-color-profile=srgb",
            "--enable-logging=stderr",
            # No page needs the network but this host's.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--window-size={width},{height}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}"]

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)

    def open(self, html, *flags):
        """Returns (standard output, messages of the console)."""
        page = self.folder / "page.html"
        page.write_text(html)
        return self.visit(page.as_uri(), *flags)

    def visit(self, url, *flags):
        """The same, for a page that is somewhere already."""
        result = subprocess.run(
            ["chromium", *self.flags,
             f"--user-data-dir={self.folder}/profile", *flags, url],
            env={"HOME": str(self.folder), "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, timeout=100)
        if result.returncode != 0:
            raise AssertionError("chromium failed:\n" + result.stderr)
        return result.stdout, CONSOLE.findall(result.stderr)

    def dom(self, html):
        """Returns (the document after its scripts have run, messages)."""
        return self.open(html, "--dump-dom")

    def picture(self, html):
        """Returns (the Picture of the window, messages)."""
        file = self.folder / "picture.png"
        _, messages = self.open(html, f"--screenshot={file}")
        return Picture(file.read_bytes()), messages


class Picture:
    """The pixels of a PNG with 8 bits for each of red, green and blue."""

    def __init__(self, png):
        if png[:8] != b"\x89PNG\r\n\x1a\n":
            raise ValueError("not a PNG")
        at = 8
        packed = b""
        while at < len(png):
            size, kind = struct.unpack(">I4s", png[at:at + 8])
            data = png[at + 8:at + 8 + size]
            if kind == b"IHDR":
                self.width, self.height, depth, colours, _, _, interlaced = (
                    struct.unpack(">IIBBBBB", data))
                if depth != 8 or colours not in (2, 6) or interlaced:
                    raise ValueError("a form of PNG that is not known here")
                self.parts = 3 if colours == 2 else 4
            elif kind == b"IDAT":
                packed += data
            at += 12 + size
        self.rows = self._unfiltered(zlib.decompress(packed))

    def _unfiltered(self, data):
        size = self.width * self.parts
        rows = []
        above = bytes(size)
        for start in range(0, len(data), size + 1):
            row = bytearray(data[start + 1:start + 1 + size])
            unfilter(data[start], row, above, self.parts)
            rows.append(row)
            above = row
        return rows

    def at(self, x, y):
        """The pixel as "#rrggbb"."""
        start = int(x) * self.parts
        return "#" + self.rows[int(y)][start:start + 3].hex()

    def colours(self, left, top, right, bottom):
        """The set of all colours of an area."""
        return {self.at(x, y) for y in range(int(top), int(bottom))
                for x in range(int(left), int(right))}


def unfilter(kind, row, above, parts):
    """Undoes the filter of one row of a PNG in place."""
    if kind == 1:
        for i in range(parts, len(row)):
            row[i] = (row[i] + row[i - parts]) & 255
    elif kind == 2:
        for i, up in enumerate(above):
            row[i] = (row[i] + up) & 255
    elif kind == 3:
        for i, up in enumerate(above):
            left = row[i - parts] if i >= parts else 0
            row[i] = (row[i] + (left + up) // 2) & 255
    elif kind == 4:
        for i, up in enumerate(above):
            left, corner = ((row[i - parts], above[i - parts])
                            if i >= parts else (0, 0))
            guess = left + up - corner
            near = min((abs(guess - left), 0, left), (abs(guess - up), 1, up),
                       (abs(guess - corner), 2, corner))
            row[i] = (row[i] + near[2]) & 255
    elif kind != 0:
        raise ValueError(f"filter {kind}")
