#include "client/working_set/page_style.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "client/working_set/colours.h"
#include "client/working_set/timeline_chart.h"

namespace mmud::client {
namespace {

constexpr char kLight[] =
    "color-scheme: light dark; --page: #f4f5f7; --card: #ffffff; "
    "--text: #1b2129; --muted: #5a6572; --rule: #d9dee5; --absent: #ffffff; "
    "--young: #64748b; --window-0: #1f6fb5; --window-1: #b4560f; "
    "--window-2: #1f7a54; --window-3: #7a4fb0; --window-4: #a8326b; "
    "--window-5: #6f6a14;";
constexpr char kDark[] =
    "--page: #0f1216; --card: #181c22; --text: #e6e9ed; --muted: #9ba6b2; "
    "--rule: #323943; --absent: #101318; --young: #94a3b8; "
    "--window-0: #6aa5e8; --window-1: #f0a050; --window-2: #5fc79a; "
    "--window-3: #b79af0; --window-4: #f08ab4; --window-5: #cfc65a;";

constexpr char kRules[] =
    R"(body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 3rem;
  font: 15px/1.5 system-ui, sans-serif; background: var(--page);
  color: var(--text); }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 0.25rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 0.25rem; }
h3 { font-size: 0.9rem; margin: 1rem 0 0; }
p { margin: 0 0 0.75rem; }
.muted { color: var(--muted); fill: var(--muted); font-weight: 400; }
section, .notice, .numbers li { background: var(--card);
  border: 1px solid var(--rule); border-radius: 8px; }
section { margin-top: 1rem; padding: 1.1rem 1.4rem; }
.notice { margin: 1rem 0 0; padding: 0.6rem 1.4rem;
  border-left: 4px solid var(--window-1); }
.notice ul { margin: 0; padding-left: 1.1rem; }
.numbers { display: grid; gap: 0.75rem; list-style: none; margin: 1rem 0 0;
  padding: 0; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.numbers li { padding: 0.7rem 1rem; border-top: 4px solid var(--rule); }
.numbers strong { display: block; font-size: 1.45rem; line-height: 1.3;
  font-weight: 600; font-variant-numeric: tabular-nums; }
.numbers span { display: block; font-size: 0.85rem; color: var(--muted); }
.scroll { overflow-x: auto; }
svg { display: block; }
svg text { fill: var(--text); font-size: 13px;
  font-variant-numeric: tabular-nums; }
svg text.muted, svg tspan.muted { fill: var(--muted); }
svg text.end { text-anchor: end; }
svg text.middle { text-anchor: middle; }
svg text.gpa { font: 12px ui-monospace, monospace; fill: var(--muted); }
svg .rule { stroke: var(--rule); fill: none; }
.ages .bar rect { stroke: var(--text); stroke-opacity: 0.25; }
.ages .bar .row {
  stroke: none; fill: none; pointer-events: all; }
.ages .bar:hover .row { fill: var(--text); fill-opacity: 0.06; }
.map .rule { pointer-events: none; }
.map .cells { shape-rendering: crispEdges; }
.line { fill: none; stroke-width: 2; stroke-linecap: round;
  stroke-linejoin: round; }
.young { stroke: var(--young); stroke-dasharray: 2 3;
  stroke-linecap: butt; }
.area { fill: var(--young); fill-opacity: 0.15; }
.note { fill: none; pointer-events: all; }
.note:hover { fill: var(--text); fill-opacity: 0.12; }
.legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; margin: 0;
  padding: 0; list-style: none; font-size: 0.85rem; }
.swatch { display: inline-block; width: 1.1em; height: 1.1em; border-radius:
  3px; margin-right: 0.45em; vertical-align: -0.2em;
  box-shadow: inset 0 0 0 1px rgb(128 128 128 / 0.45); }
details { margin-top: 0.75rem; font-size: 0.9rem; }
summary { cursor: pointer; color: var(--muted); }
table { border-collapse: collapse; margin: 0.5rem 0 0; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.9rem 0.15rem 0; text-align: right;
  border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; }
.tip { position: fixed; z-index: 1; pointer-events: none; white-space: pre;
  padding: 0.35rem 0.6rem; border-radius: 6px; font-size: 0.85rem;
  background: var(--text); color: var(--page); }
.tip[hidden] { display: none; }
)";

constexpr char kScript[] = R"((function () {
  var tip = document.createElement('div');
  tip.className = 'tip';
  tip.hidden = true;
  tip.setAttribute('aria-hidden', 'true');
  document.body.appendChild(tip);
  document.querySelectorAll('svg title').forEach(function (title) {
    var owner = title.parentNode;
    var name = owner.tagName === 'svg' ? 'aria-label' : 'data-tip';
    owner.setAttribute(name, title.textContent);
    title.remove();
  });
  function textOf(target, event) {
    var text = target.getAttribute('data-tip');
    var map = target.closest('.map');
    if (!map) return text;
    var at = new DOMPoint(event.clientX, event.clientY)
        .matrixTransform(target.getScreenCTM().inverse());
    var columns = Number(map.dataset.columns);
    var cell = Math.floor(at.y) * columns + Math.floor(at.x);
    var gpa = Number(map.dataset.gpa) + cell * Number(map.dataset.cell);
    return '0x' + gpa.toString(16) + '\n' + text;
  }
  function place(offset, size, room) {
    return Math.max(0, Math.min(offset + 14, room - size - 8)) + 'px';
  }
  document.addEventListener('pointermove', function (event) {
    var target = event.target.closest('[data-tip]');
    tip.hidden = !target;
    if (!target) return;
    tip.textContent = textOf(target, event);
    tip.style.left = place(event.clientX, tip.offsetWidth, innerWidth);
    tip.style.top = place(event.clientY, tip.offsetHeight, innerHeight);
  });
  document.addEventListener('pointerleave', function () { tip.hidden = true; });
})();
)";

std::string HeatVariables(Background background, int steps) {
  std::string css;
  for (int step = 0; step < steps; ++step) {
    absl::StrAppend(&css, " --heat-", step, ": ",
                    Hex(HeatColour(background, step, steps)), ";");
  }
  return absl::StrCat(css, " --never: ", Hex(NeverYoungColour(background)),
                      ";");
}

// Fills the shapes and the swatches of a class.
std::string Fill(const std::string& css_class, const std::string& variable) {
  return absl::StrCat(".", css_class, " { fill: var(--", variable,
                      "); background: var(--", variable, "); }\n");
}

}  // namespace

std::string PageStyle(int heat_steps) {
  std::string css = absl::StrCat(
      ":root { ", kLight, HeatVariables(Background::kLight, heat_steps),
      " }\n@media (prefers-color-scheme: dark) { :root { ", kDark,
      HeatVariables(Background::kDark, heat_steps), " } }\n", kRules);
  for (int step = 0; step < heat_steps; ++step) {
    const std::string name = absl::StrCat("heat-", step);
    absl::StrAppend(&css, Fill(name, name));
  }
  absl::StrAppend(&css, Fill("heat-never", "never"),
                  Fill("heat-absent", "absent"));
  for (size_t i = 0; i < kWindowColours; ++i) {
    absl::StrAppend(&css, ".window-", i, " { stroke: var(--window-", i,
                    "); }\n.numbers li.window-", i,
                    " { border-top-color: var(--window-", i, "); }\n");
  }
  return css;
}

std::string PageScript() { return kScript; }

}  // namespace mmud::client
