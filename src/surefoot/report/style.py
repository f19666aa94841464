"""The page's style sheet: system fonts, one column of text, light and dark as the reader's system asks."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --card: #fff; --ink: #1c2127; --soft: #5d6772; --rule: #e3e5e8; --grid: #eceef0; --zero: #b9c0c7;
  --a: #1f6fb5; --b: #b4540a; --c: #0f7b6c; --tint: #eef5fb; --note: #fff6e0; --note-rule: #e0b04a; --bad: #a3262e;
  --d: #7a4fb5; --e: #a3325f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1b1f23; --ink: #e6e9ec; --soft: #9ba5b0; --rule: #30363d; --grid: #272c32;
  --zero: #59626c;
    --a: #6db3f2; --b: #f0a35e; --c: #52c4b2; --tint: #1c2a37; --note: #2b2515; --note-rule: #8f6f22; --bad: #ff9a9f;
    --d: #b79cf0; --e: #f08fb4;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
main { max-width: 1160px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { margin: 0; font-size: clamp(1.6rem, 4vw, 2.3rem); line-height: 1.2; letter-spacing: -.01em;
  overflow-wrap: anywhere; }
h2 { margin: 3rem 0 1rem; font-size: 1.25rem; line-height: 1.3; }
p { margin: .5rem 0; }
small, .soft { color: var(--soft); }
.kicker { margin: 0 0 .25rem; color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
.lead { max-width: 46rem; font-size: 1.1rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem 2rem;
  margin: 1.75rem 0 0;
  padding: 1.1rem 0; border: solid var(--rule); border-width: 1px 0; }
.facts div { min-width: 0; }
.facts dt { color: var(--soft); font-size: .85rem; }
.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .55rem .75rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; text-align: left; white-space: normal; font-weight: 500; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--soft); font-size: .85rem; font-weight: 500; vertical-align: bottom; }
table:not(.words, .even) tbody tr:first-child td { font-weight: 600; }
td small { display: block; font-size: .8rem; font-weight: 400; }
table.words td, table.words th { text-align: left; white-space: normal; overflow-wrap: anywhere; font-weight: 400; }
table.words { table-layout: fixed; font-size: .95rem; }
code, table.words td { font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, "DejaVu Sans Mono", monospace;
  font-size: .86rem; }
.notes { margin: 0; padding: 0; list-style: none; }
.notes li { margin: .6rem 0; padding: .7rem 1rem; background: var(--note); border-left: 3px solid var(--note-rule);
  border-radius: 0 6px 6px 0; }
.charts { display: grid; gap: 1.25rem; }
.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); }
figure { display: flex; flex-direction: column; min-width: 0; margin: 0; padding: .9rem 1rem .7rem;
  background: var(--card); border: 1px solid var(--rule); border-radius: 8px; }
.wide figure { max-width: 720px; }
figcaption { margin-bottom: .35rem; line-height: 1.35; }
figcaption small { margin-left: .25rem; font-size: .85rem; }
.note { margin: .3rem 0 .2rem; color: var(--soft); font-size: .88rem; line-height: 1.4; }
.legend { display: flex; flex-wrap: wrap; gap: 0 1.1rem; margin: .15rem 0 0; padding: 0; list-style: none;
  color: var(--soft); font-size: .85rem; }
.legend i { display: inline-block; width: 1.3em; margin-right: .45em; border-top: 2.5px solid var(--hue);
  vertical-align: .28em; }
.legend .dash i { border-top-style: dashed; }
.legend .faint i { opacity: .45; }
.legend .points i { width: .6em; height: .6em; border: 0; border-radius: 50%; background: var(--hue);
  vertical-align: 0; }
svg { display: block; width: 100%; margin-top: auto; height: auto; overflow: visible; font-size: 12px; }
svg text { fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .label { fill: var(--ink); font-weight: 600; stroke: var(--card); stroke-width: 4px; paint-order: stroke; }
svg path { fill: none; }
.grid { stroke: var(--grid); }
.zero { stroke: var(--zero); }
.a { --hue: var(--a); } .b { --hue: var(--b); } .c { --hue: var(--c); }
.d { --hue: var(--d); } .e { --hue: var(--e); }
.line { stroke: var(--hue); stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.faint .line { stroke-width: 1.2; opacity: .45; }
.dash .line { stroke-dasharray: 5 5; stroke-linecap: butt; }
.whisker { stroke: var(--hue); stroke-width: 5; opacity: .22; stroke-linecap: round; }
circle { fill: var(--hue); stroke: var(--card); stroke-width: 1.2; }
.only circle { fill-opacity: .65; }
.sample { margin: 1rem 0; background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  overflow: hidden; }
.sample h3 { margin: 0; padding: .6rem 1rem 0; color: var(--soft); font-size: .85rem; font-weight: 500; }
.text { max-height: 16rem; margin: 0; padding: .35rem 1rem .8rem; overflow: auto; overflow-wrap: anywhere;
  white-space: pre-wrap; unicode-bidi: isolate; font: inherit; }
.prompt { border-bottom: 1px solid var(--rule); }
.two { display: grid; grid-template-columns: 1fr 1fr; }
.two > * { min-width: 0; }
.two > * + * { border-left: 1px solid var(--rule); background: var(--tint); }
.two h3 b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.two h3 span { display: inline-block; margin-right: .7em; }
.empty { color: var(--soft); font-style: italic; }
.escape { direction: ltr; padding: 0 .15em; color: var(--bad);
  font-family: ui-monospace, Menlo, "DejaVu Sans Mono", monospace; font-size: .85em;
  border: 1px solid currentColor; border-radius: 3px; unicode-bidi: isolate; }
summary { padding: .5rem 0; color: var(--a); cursor: pointer; }
footer { margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--rule); color: var(--soft);
  font-size: .88rem; }
@media (max-width: 640px) {
  main { padding: 1.5rem 1rem 3rem; }
  .two { grid-template-columns: 1fr; }
  .two > * + * { border-top: 1px solid var(--rule); border-left: 0; }
  th, td { padding: .5rem .35rem; }
  td small { max-width: 5.2rem; margin-left: auto; white-space: normal; }
  td:first-child small { margin-left: 0; }
}
@media print { .text { max-height: none; } figure, .sample { break-inside: avoid; } }
"""
