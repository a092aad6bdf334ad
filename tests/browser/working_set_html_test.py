#!/usr/bin/python3
"""The page of a working set as Chromium shows it: colours, tooltips, and no
complaints."""

import html
import json
import pathlib
import re
import subprocess
import unittest
import xml.etree.ElementTree

from chromium import Browser

# A test runs in the root of its runfiles.
SAMPLE_PAGE = pathlib.Path.cwd() / "client/working_set/sample_page"

NAME = "web-7 <b onclick=\"alert(1)\">blue</b> & 'green' </script>"
WIDTH, HEIGHT = 1040, 1900

# Written into a copy of the page: where the browser has put things, what colour
# it says they have, and what stands in the tooltip over a cell.
PROBE = """<script>
addEventListener('load', function () {
  var found = { width: innerWidth,
                overflow: document.documentElement.scrollWidth,
                heading: document.querySelector('h1').textContent,
                page: getComputedStyle(document.body).backgroundColor,
                cells: [], bars: [], swatches: [], maps: [], lines: [] };
  function describe(element, x, y) {
    return { name: element.getAttribute('class').split(' ').pop(), x: x, y: y,
             fill: getComputedStyle(element).fill };
  }
  function middle(element) {
    var box = element.getBoundingClientRect();
    return describe(element, box.x + box.width / 2, box.y + box.height / 2);
  }
  document.querySelectorAll('.cells path').forEach(function (path) {
    var run = path.getAttribute('d').match(/M(\\d+) (\\d+)h(\\d+)/);
    var at = new DOMPoint(Number(run[1]) + Number(run[3]) / 2,
                          Number(run[2]) + 0.5)
        .matrixTransform(path.getScreenCTM());
    found.cells.push(describe(path, at.x, at.y));
  });
  document.querySelectorAll('.bar rect:not(.row)').forEach(function (bar) {
    found.bars.push(middle(bar));
  });
  document.querySelectorAll('.swatch').forEach(function (swatch) {
    found.swatches.push(middle(swatch));
  });
  document.querySelectorAll('svg').forEach(function (svg) {
    var box = svg.getBoundingClientRect();
    found.maps.push({ name: svg.getAttribute('class'), left: box.left,
                      top: box.top, right: box.right, bottom: box.bottom,
                      label: svg.getAttribute('aria-label'),
                      role: svg.getAttribute('role') });
  });
  document.querySelectorAll('.timeline .line').forEach(function (line) {
    found.lines.push(getComputedStyle(line).stroke);
  });
  var map = document.querySelectorAll('.map')[1];
  var path = map.querySelector('.heat-0');
  var at = new DOMPoint(1.5, 2.5).matrixTransform(path.getScreenCTM());
  path.dispatchEvent(new PointerEvent('pointermove', {
    bubbles: true, clientX: at.x, clientY: at.y }));
  var tip = document.querySelector('.tip');
  found.tip = tip.hidden ? null : tip.textContent;
  document.body.dispatchEvent(new PointerEvent('pointermove', {
    bubbles: true, clientX: 1, clientY: 1 }));
  found.hidden = tip.hidden;
  document.documentElement.setAttribute('data-found', JSON.stringify(found));
});
</script></body>"""


def hex_of(css):
    """"#rrggbb" of the "rgb(1, 2, 3)" that a browser computes."""
    return "#" + bytes(int(part) for part in re.findall(r"\d+", css)[:3]).hex()


def found_in(browser, page):
    """What the probe found, and the messages of the console."""
    document, messages = browser.dom(page.replace("</body>", PROBE))
    return json.loads(html.unescape(
        re.search(r'data-found="([^"]*)"', document).group(1))), messages


class WorkingSetHtmlTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.page = subprocess.run([SAMPLE_PAGE, "html", NAME], check=True,
                                  capture_output=True, text=True).stdout

    def test_the_page_is_well_formed(self):
        root = xml.etree.ElementTree.fromstring(
            self.page.removeprefix("<!DOCTYPE html>"))
        self.assertEqual(root.find("body/main/h1").text,
                         f"Working set of {NAME}")
        self.assertEqual([heading.text for heading in root.iter("h2")],
                         ["Memory by age", "Guest memory", "Over time"])
        # Each picture says what it is, and its numbers stand in a table.
        pictures = list(root.iter("svg"))
        self.assertEqual([picture.get("class") for picture in pictures],
                         ["ages", "map", "map", "timeline"])
        for picture in pictures:
            self.assertEqual(picture.get("role"), "img")
            self.assertTrue(picture.find("title").text)
        self.assertEqual(len(list(root.iter("table"))), 3)

    def check_colours(self, dark):
        with Browser(WIDTH, HEIGHT, dark) as browser:
            found, messages = found_in(browser, self.page)
            self.assertEqual(messages, [])
            picture, messages = browser.picture(self.page)
            self.assertEqual(messages, [])
        self.assertEqual((picture.width, picture.height), (WIDTH, HEIGHT))
        self.assertEqual(found["width"], WIDTH)
        self.assertEqual(picture.at(2, 2), hex_of(found["page"]))
        # Cells, bars and the legend have one colour for one age, as is seen.
        colours = {}
        for kind, count in (("swatches", 10), ("bars", 9)):
            self.assertEqual(len(found[kind]), count)
        self.assertGreaterEqual(len(found["cells"]), 10)
        for kind in ("cells", "bars", "swatches"):
            for place in found[kind]:
                colour = hex_of(place["fill"])
                self.assertEqual(picture.at(place["x"], place["y"]), colour,
                                 f"{kind}: {place}")
                self.assertEqual(colours.setdefault(place["name"], colour),
                                 colour)
        self.assertEqual(len(set(colours.values())), 10, colours)
        # The lines of the timeline have theirs, and lie in it.
        timeline = found["maps"][3]
        seen = picture.colours(timeline["left"], timeline["top"],
                               timeline["right"], timeline["bottom"])
        lines = {hex_of(line) for line in found["lines"]}
        self.assertEqual(len(lines), 5)
        self.assertLessEqual(lines, seen)
        return found, colours

    def test_colours_are_seen_on_light_and_on_dark_screens(self):
        light, light_colours = self.check_colours(dark=False)
        dark, dark_colours = self.check_colours(dark=True)
        self.assertNotEqual(light["page"], dark["page"])
        for name, colour in light_colours.items():
            self.assertNotEqual(dark_colours[name], colour, name)

    def test_the_tooltip_of_a_cell_has_its_address(self):
        with Browser(WIDTH, HEIGHT) as browser:
            found, messages = found_in(browser, self.page)
        self.assertEqual(messages, [])
        # The second cell of the third row; a row has 256 cells of 2 MiB.
        self.assertRegex(found["tip"], r"^0x140200000\nunder 10s: cells of ")
        self.assertTrue(found["hidden"], "away from all cells")
        # The script has moved the titles, so that there is one tooltip only.
        self.assertEqual([picture["label"] for picture in found["maps"]],
                         ["Memory by age: 55 GiB tracked",
                          "Heat of Slot 0: 3 GiB at 0",
                          "Heat of Slot 1: 61 GiB at 0x100000000",
                          "Young memory and the working set of each window "
                          "over the last 2h"])

    def test_the_name_of_a_vm_is_text(self):
        with Browser(WIDTH, HEIGHT) as browser:
            found, _ = found_in(browser, self.page)
        self.assertEqual(found["heading"], f"Working set of {NAME}")

    def test_a_narrow_window_has_no_scroll_bar(self):
        with Browser(500, 900) as browser:
            found, messages = found_in(browser, self.page)
        self.assertEqual(messages, [])
        self.assertLessEqual(found["overflow"], found["width"])

    def test_messages_of_the_console_are_found(self):
        with Browser(WIDTH, HEIGHT) as browser:
            for script in ("throw new Error('broken');",
                           "console.error('broken');"):
                _, messages = browser.dom(
                    self.page.replace("</body>",
                                      f"<script>{script}</script></body>"))
                self.assertEqual(len(messages), 1, script)
                self.assertIn("broken", messages[0])


if __name__ == "__main__":
    unittest.main()
