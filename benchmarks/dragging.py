"""The time machine in a browser: from a handle that moves to the counts that are shown for it.

Owns the measurement in the page itself. JupyterLab and Chromium are those of the tests.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Median, Result

STEPS = 25
# What is waited for stands in the counts; their text names the moment.
STEP = """async ([days, steps]) => {
  const root = document.querySelector('.cqrs-lab-live'), counts = root.querySelector('.cqrs-lab-counts');
  if (days) { root.querySelectorAll('input[type=radio]')[1].click(); await new Promise((ok) => setTimeout(ok, 3000)); }
  const slider = root.querySelector('input[type=range]'), times = [];
  let at = Number(slider.max) / 2 | 0;
  for (let step = 0; step < steps; step++) {
    at += days ? 1 : 997;
    const before = counts.textContent, began = performance.now();
    await new Promise((ok) => {
      const watch = new MutationObserver(() => {
        const is = days ? counts.textContent !== before : counts.textContent.includes(at.toLocaleString('en'));
        if (is) { watch.disconnect(); requestAnimationFrame(() => { times.push(performance.now() - began); ok(); }); }
      });
      watch.observe(counts, { childList: true, subtree: true });
      slider.value = at;
      slider.dispatchEvent(new Event('input', { bubbles: true }));
    });
    await new Promise((ok) => setTimeout(ok, 20));
  }
  return times;
}"""


def run(count: int) -> Iterator[Result]:
    """Measure a step at half of `count` orders, and at five times as many with kept history."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from support.desk import desk_over, missing

    if lacking := missing():
        print(f"Left out: {lacking}.")
        return
    with (
        tempfile.TemporaryDirectory() as home,
        tempfile.TemporaryDirectory() as folder,
        desk_over(Path(home), Path(folder)) as desk,
    ):
        for orders, kept, most in ((count // 2, False, 150.0), (5 * count, True, 300.0)):
            yield from _dragged(desk, orders, kept, most)


def _dragged(desk: Any, orders: int, kept: bool, most: float) -> Iterator[Result]:
    name = desk.write(
        f"dragged{kept}.ipynb",
        "from cqrs_lab import open_shop\nfrom cqrs_lab.workbench import Workload, generate, time_machine\n"
        f"lab = open_shop()\ngenerate(lab, Workload(orders={orders}, seed=7))\n"
        f"lab.serve('order_summary', keep_history={kept})",
        "time_machine(lab)",
    )
    page = desk.open(name)
    desk.run(page)
    page.locator(".cqrs-lab-live .cqrs-lab-rows tbody").first.wait_for()
    page.wait_for_timeout(1_500)
    for days in (False, True):
        times = Median(page.evaluate(STEP, [days, STEPS]))
        by = "a day of what occurred" if days else "a position"
        what = f"a step of the time machine, {by}, {orders:,} orders{', kept' if kept else ''} / {most:.0f} ms"
        note = f"90 of 100 below {sorted(times.times)[int(0.9 * STEPS)]:.0f} ms"
        yield Result(what, times, most, "ms", 1.0, note)
    desk.close(page)
