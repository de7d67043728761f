"""How the page looks and what it does: its style sheet and its script, put into the page itself."""

CSS = """
:root { color-scheme: light dark; --ground: #ffffff; --card: #f6f7f9; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0;
  --fp32: #6b7480; --bf16: #b35900; --fp16: #7d4cc2; --int8: #0b66c3; --pass: #1a7f37; --fail: #c62828;
  --undecided: #9a6700 }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --card: #1d2127; --ink: #e6e9ed; --soft: #9aa5b1;
  --line: #343b44; --fp32: #9aa5b1; --bf16: #f0a04b; --fp16: #b995f0; --int8: #5aa9f5; --pass: #4cc26b; --fail: #ff7b72;
  --undecided: #e3b341 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
h3 { font-size: .95rem; margin: 0 0 .4rem } p { margin: .3rem 0 .8rem } .soft { color: var(--soft) }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px } code { font-size: .9em }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; overflow-wrap: normal }
th, td { padding: .35rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
th { background: var(--card); font-weight: 600 } tbody tr:last-child td { border-bottom: 0 }
th.text, td.text { text-align: left }
th button { all: unset; cursor: pointer } th button:focus-visible { outline: 2px solid var(--int8) }
th[aria-sort=ascending] button::after { content: " ↑" / "" } th[aria-sort=descending] button::after { content: " ↓" / "" }
.pictures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)) }
figure { margin: 0; padding: .75rem; background: var(--card); border-radius: 6px; max-width: 34rem }
svg { display: block; width: 100%; height: auto; font: 10px system-ui, sans-serif; fill: var(--ink) }
svg .grid { stroke: var(--line) } svg .tick, svg .axis { fill: var(--soft); text-anchor: middle }
svg .end { text-anchor: end } svg .note { text-anchor: middle; font-size: 9px }
svg polyline { fill: none; stroke-width: 1.5 }
svg .front { stroke: var(--soft); stroke-dasharray: 4 3 } svg .whisker { stroke: var(--soft) }
svg .disc text { fill: var(--ground); text-anchor: middle; font-weight: 600; font-size: 9px }
.fp32 { --own: var(--fp32) } .bf16 { --own: var(--bf16) } .fp16 { --own: var(--fp16) } .int8 { --own: var(--int8) }
.off { --own: var(--fp32) } .on { --own: var(--int8) }
svg .disc circle, svg rect.fp32 { fill: var(--own) } svg polyline.curve { stroke: var(--own) }
svg rect.total { fill: var(--fp32) }
svg rect.loss { fill: var(--fail) } svg rect.gain { fill: var(--pass) }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .3rem 0; padding: 0; list-style: none; font-size: .85rem }
.number { display: inline-block; min-width: 1.5em; border-radius: 1em; background: var(--own); color: var(--ground);
  text-align: center; font-weight: 600; font-size: .8em }
.pass { color: var(--pass) } .fail { color: var(--fail) } .undecided { color: var(--undecided) }
.share { position: relative; height: .8rem; min-width: 8rem; background: var(--line); border-radius: 3px; overflow: hidden }
.share i { position: absolute; inset: 0 auto 0 0; background: var(--int8) } .share.far i { background: var(--fail) }
details { margin: .4rem 0; padding: .4rem .6rem; background: var(--card); border-radius: 6px } summary { cursor: pointer }
details .wide { margin: .5rem 0 }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const compare = (one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
      return down ? -order : order;
    };
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...[...body.rows].sort(compare));
  }));
}
"""
