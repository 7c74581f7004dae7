"""The HTML page's text and looks; ``report.write_html`` fills it in."""

__all__ = ["PAGE", "STYLE"]

STYLE = """
:root { --ink: #1f2933; --soft: #616e7c; --line: #e4e7eb; --green: #0b7a55; --wash: #e9f6f0; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7fa; color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
small, .soft { color: var(--soft); font-weight: normal; }
figure, .card { margin: 1.2rem 0; padding: 1rem; background: #fff; overflow-x: auto;
  border: 1px solid var(--line); border-radius: 10px; }
img { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; background: #fff;
  font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
td:first-child, th:first-child { text-align: left; white-space: nowrap; }
tr.greenwait td { background: var(--wash); }
tr.greenwait td:first-child, span.greenwait { color: var(--green); font-weight: 600; }
span.best { border-bottom: 2px solid currentColor; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 1rem; }
.facts h3 { margin-top: 0; }
"""

# Braces of str.format: nothing else in it may have any.
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>greenwait benchmark</title>
<style>{style}</style>
<main>
<h1>{headline}</h1>
<p class="soft">{subline}</p>
{plots}

<h2>Ratio to blocking psycopg2</h2>
<p>Medians over all rounds; below 1 is faster than blocking. Underlined: the fastest callback.</p>
<div class="card">{overview}</div>

<h2>greenwait (poll) against the fastest Python callback</h2>
<p>The fastest of five Python callbacks, chosen after the fact, workload by workload, which is in
that one's favour. The last column is the 95 % confidence interval of the median: one that
includes 1 shows no difference.</p>
<div class="card">{against}</div>

<h2>All figures</h2>
<p>Time per query, and the client's CPU time (user and system) per query.</p>
<div class="card">{details}</div>

<h2>Method</h2>
<p>All contestants run in one process, each with a connection of its own that was opened under its
own callback, in autocommit mode, so that one <code>execute()</code> is one wait. After a warm-up,
in which every answer is checked, each round runs one block of queries for every contestant, in an
order shuffled anew; the garbage collector is off within a block. A ratio compares a contestant's
block with the blocking one of the same round; given are the median of these ratios and, as the
spread, the range from their 10th to their 90th percentile. Fetching the rows from the result is
not part of the time: it waits for nothing and is the same for all.</p>
<p>Where it says busy, another thread of the same process computes in pure Python all the while.
It holds the GIL for up to {switch_interval} ms at a time (<code>sys.getswitchinterval()</code>),
and a callback that goes back to Python for every piece of a large result queues for it each time.
Blocks are then spans of time, since queries that find the GIL free are a hundred times faster
than those that do not; with the cores left free, whole blocks are of one kind or the other,
depending on where the kernel puts the threads, and the spread is as wide as that.
The CPU time is then that of the querying thread alone, otherwise that of the client process.</p>
<p>The five Python callbacks are written for speed, and unlike
<code>psycopg2.extras.wait_select</code> and greenwait the other four leave Ctrl-C alone.
psycogreen's callback runs in the main greenlet, without monkey-patching.</p>

<h2>Where and with what</h2>
<div class="facts">
<div class="card"><h3>Machine</h3>{machine}</div>
<div class="card"><h3>Versions</h3>{versions}</div>
<div class="card"><h3>Settings</h3>{settings}</div>
</div>
</main>
</html>
"""
