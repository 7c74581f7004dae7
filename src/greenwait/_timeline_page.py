"""The page of a timeline: its style and its script, and the colours of what is waited for."""

__all__ = ["COLORS", "PAGE"]

#: By category: the colour, told apart by people who see few colours too, and what it is.
COLORS = {
    "pool": ("#e69f00", "waits for the pool"),
    "lock": ("#b8a000", "waits for a connection's lock"),
    "connect": ("#009e73", "connects"),
    "query": ("#0072b2", "query"),
    "transaction": ("#56b4e9", "begin, commit"),
    "cancel": ("#d55e00", "cancel"),
    "deadline": ("#d00000", "deadline"),
    "interrupt": ("#9a4fd0", "interrupt"),
    "loop": ("#cc79a7", "stops the event loop"),
    "": ("#888888", "other"),
}

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@</title>
<style>
:root { color-scheme: light dark; --back: #fff; --text: #222; --faint: #666; --line: #8883; }
@media (prefers-color-scheme: dark) {
  :root { --back: #16181c; --text: #ddd; --faint: #aaa; --line: #8885; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 12px; background: var(--back); color: var(--text);
  font: 14px/1.4 system-ui, sans-serif; }
h1 { font-size: 18px; margin: 0; overflow-wrap: anywhere; }
p { margin: 2px 0 8px; color: var(--faint); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12px; }
.legend i { display: inline-block; width: 10px; height: 10px; margin-right: 5px; }
.row { display: grid; grid-template-columns: 14em minmax(0, 1fr); align-items: center;
  border-top: 1px solid var(--line); }
.name { font-size: 12px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  padding-right: 8px; }
.axis { position: sticky; top: 0; background: var(--back); border: 0; z-index: 1; }
canvas { display: block; width: 100%; touch-action: pan-y; cursor: crosshair; }
#about { position: fixed; display: none; z-index: 2; max-width: min(28em, calc(100vw - 16px));
  padding: 6px 9px; background: var(--back); border: 1px solid var(--faint); border-radius: 4px;
  font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere; pointer-events: none; }
button { font: inherit; font-size: 12px; }
@media (max-width: 600px) { .row { grid-template-columns: minmax(0, 1fr); } }
</style>
<h1>@TITLE@</h1>
<p>@NOTES@. Drag over a part to see it larger; point at a bar, or tap it, for details.
<button id="all" type="button">Show all</button></p>
<div class="legend">@LEGEND@</div>
<div class="row axis"><div class="name"></div><canvas data-row="-1" data-depth="1"></canvas></div>
@ROWS@
<div id="about" role="status"></div>
<script>
"use strict";
const data = @DATA@, end = @END@, colors = @COLORS@, HEIGHT = 15, STEPS = [1, 2, 5];
const about = document.getElementById("about");
let from = 0, to = end, drag = null;
const canvases = [...document.querySelectorAll("canvas")];
const time = us => us >= 1e6 ? (us / 1e6).toPrecision(4) + " s"
  : us >= 1e3 ? (us / 1e3).toPrecision(4) + " ms" : us.toPrecision(3) + " µs";
function step(width) {
  const least = (to - from) / Math.max(2, width / 90);
  let unit = 10 ** Math.floor(Math.log10(least));
  return unit * (STEPS.find(each => each * unit >= least) || 10);
}
function draw(canvas) {
  const width = canvas.clientWidth, height = canvas.dataset.depth * HEIGHT + 4;
  const ratio = window.devicePixelRatio || 1, scale = width / (to - from);
  canvas.style.height = height + "px";
  canvas.width = width * ratio; canvas.height = height * ratio;
  const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  pen.scale(ratio, ratio);
  const between = step(width), row = +canvas.dataset.row;
  for (let at = Math.ceil(from / between) * between; at <= to; at += between) {
    const x = (at - from) * scale;
    pen.fillStyle = style.getPropertyValue("--line"); pen.fillRect(x, 0, 1, height);
    if (row < 0 && x < width - 45) {
      pen.fillStyle = style.getPropertyValue("--faint"); pen.font = "11px sans-serif";
      pen.fillText(at ? +parseFloat(time(at)).toPrecision(4) + time(at).slice(-3) : "0", x + 3, 12);
    }
  }
  for (const bar of row < 0 ? [] : data[row]) {
    const x = (bar[0] - from) * scale, long = bar[1] * scale, isMark = bar[1] === 0;
    if (x + long < 0 || x > width) continue;
    pen.fillStyle = colors[bar[2]] || colors[""];
    if (isMark) pen.fillRect(x - 1, 0, 3, height);
    else pen.fillRect(x, bar[6] * HEIGHT + 2, Math.max(long, 1), HEIGHT - 2);
  }
  if (drag) {
    pen.fillStyle = "#8886";
    pen.fillRect(Math.min(drag.x, drag.now), 0, Math.abs(drag.now - drag.x), height);
  }
}
const drawAll = () => canvases.forEach(draw);
function find(canvas, x, y) {
  const scale = canvas.clientWidth / (to - from), bars = data[+canvas.dataset.row] || [];
  const depth = Math.floor((y - 2) / HEIGHT);
  const near = bar => x >= (bar[0] - from) * scale - 2 && x <= (bar[0] + bar[1] - from) * scale + 2;
  const hits = bars.filter(near);
  return hits.find(bar => bar[1] === 0) || hits.filter(bar => bar[6] <= depth).pop() || hits[0];
}
function tell(event) {
  const box = event.target.getBoundingClientRect();
  const bar = find(event.target, event.clientX - box.left, event.clientY - box.top);
  if (!bar) { about.style.display = "none"; return; }
  about.textContent = [bar[3], bar[1] ? `${bar[2]}, ${time(bar[1])} at ${time(bar[0])}`
    : `at ${time(bar[0])}`, bar[5] ? `backend ${bar[5]}` : "", bar[4]].filter(Boolean).join("\\n");
  about.style.display = "block";
  about.style.left = Math.max(8, Math.min(event.clientX + 12,
    window.innerWidth - about.offsetWidth - 8)) + "px";
  about.style.top = (event.clientY + 16 + about.offsetHeight > window.innerHeight
    ? event.clientY - about.offsetHeight - 10 : event.clientY + 16) + "px";
}
for (const canvas of canvases) {
  canvas.addEventListener("pointerdown", event => {
    drag = {x: event.offsetX, now: event.offsetX}; tell(event);
  });
  canvas.addEventListener("pointermove", event => {
    if (drag && event.buttons) { drag.now = event.offsetX; drawAll(); }
    tell(event);
  });
  canvas.addEventListener("pointerleave", () => {
    about.style.display = "none";
    if (drag) { drag = null; drawAll(); }
  });
  canvas.addEventListener("pointerup", event => {
    if (!drag) return;
    const width = canvas.clientWidth, a = Math.min(drag.x, event.offsetX);
    const b = Math.max(drag.x, event.offsetX), span = to - from;
    drag = null;
    if (b - a > 4) { to = from + b / width * span; from += a / width * span; }
    drawAll();
  });
}
document.getElementById("all").addEventListener("click", () => { from = 0; to = end; drawAll(); });
window.addEventListener("resize", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawAll();
</script>
</html>
"""
