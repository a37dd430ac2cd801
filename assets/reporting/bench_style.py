"""How the page of a bench report looks, and what it may do."""

from __future__ import annotations

DEFINITIONS = (
    "TTFT: until the first token. TPOT: mean time per output token after it, of a request. ITL: gaps between tokens. "
    "e2e: until the last token. Percentiles are of requests (of gaps for ITL); intervals are at 95 %."
)


POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


SCRIPT = """
const config = {displayModeBar: false, responsive: true};
const plots = document.querySelectorAll(".plot");
function draw(plot) {
  if (plot.dataset.drawn) return;
  plot.dataset.drawn = "yes";
  const figure = JSON.parse(plot.nextElementSibling.textContent);
  Plotly.newPlot(plot, figure.data, figure.layout, config);
}
const drawSeen = (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target));
const watcher = new IntersectionObserver(drawSeen, {rootMargin: "1000px"});
plots.forEach((plot) => watcher.observe(plot));
addEventListener("beforeprint", () => plots.forEach(draw));
"""


STYLE = """
:root { --ink: #1f2933; --soft: #5f6c79; --rule: #dfe4e9; }
* { box-sizing: border-box }
body { font: 14px/1.5 system-ui, -apple-system, 'Segoe UI', sans-serif; color: var(--ink); max-width: 1320px; margin: 2rem auto;
  padding: 0 1.5rem; background: white }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.25; overflow-wrap: anywhere }
h2 { margin: 2.6rem 0 .2rem; font-size: 1.3rem; overflow-wrap: anywhere; border-top: 2px solid var(--ink); padding-top: .5rem }
h3 { margin: 0 0 .3rem; font-size: .95rem }
.kind { margin: 0; font-weight: 600; color: #3468a8 }
.about { color: var(--soft); margin: .1rem 0 1rem; overflow-wrap: anywhere }
.found { font-size: 1.05rem; background: #eef3f9; padding: .7rem 1rem; margin: 1rem 0 }
.tiles { display: grid; grid-template-columns: repeat(6, 1fr); border: 1px solid var(--rule); margin: 0 0 1rem }
.tiles div { padding: .6rem .9rem .5rem; border-left: 1px solid var(--rule) }
.tiles div:first-child { border-left: 0 }
.tiles span, .tiles small { display: block; color: var(--soft); font-size: .82rem; min-height: 1.2em }
.tiles b { font-size: 1.55rem; line-height: 1.3; font-variant-numeric: tabular-nums }
.tiles .failed { display: inline; color: #c23b34; font-weight: 600 }
.tables { display: flex; flex-wrap: wrap; gap: .5rem 3rem; align-items: flex-start }
table { border-collapse: collapse; margin: .4rem 0 }
th, td { padding: .22rem .8rem; border-bottom: 1px solid var(--rule); text-align: right; font-variant-numeric: tabular-nums }
th:first-child { text-align: left; padding-left: 0 }
tbody th { font-weight: 500 }
thead th { font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--ink); vertical-align: bottom }
.failures th:last-child, .failures td:last-child { text-align: left }
.failures tbody th { color: #c23b34; font-weight: 600 }
.detail { font: .85rem/1.4 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere }
a { color: #3468a8 }
.flags { background: #fdf6e7; border-left: 4px solid #e3a63f; padding: .6rem 1rem; margin: 0 0 1rem }
.flags dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem; margin: 0 }
.flags dt { font-weight: 600 }
.flags dd { margin: 0; overflow-wrap: anywhere }
header + section h2 { margin-top: 0 }
figure { margin: 1.5rem 0 0; break-inside: avoid }
figcaption { color: var(--soft) }
figcaption b { color: var(--ink); margin-right: .6rem }
footer { color: var(--soft); margin-top: 2rem; border-top: 1px solid var(--rule); padding-top: .6rem }
@page { size: A4 landscape; margin: 10mm }
@media print {
  body { margin: 0; padding: 0; max-width: none; zoom: .78; print-color-adjust: exact; -webkit-print-color-adjust: exact }
  section + section { break-before: page }
  tr, .tiles, .flags { break-inside: avoid }
  .modebar { display: none }
}
@media screen and (max-width: 900px) { .tiles { grid-template-columns: repeat(2, 1fr) } }
"""
