"""A report opens in Chromium without console messages or network access, draws its curves, and stays small.

It fits screens from 400 to 2,400 pixels, light and dark.

OSS_RUN_NO_BROWSER=1 skips this check where Chromium and its driver cannot be installed.
"""

import json
import math
import os
import random
import shutil
from datetime import datetime, timedelta, timezone

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

NUM_STEPS = 10_000
MAX_BYTES = 400_000
SPIKE, NAN = 6_001, 7_001
WIDTHS = [400, 1400, 2400]
STATES = ["running", "done", "stopped", "failed", "interrupted", "untrained", "damaged"]
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
# A browser without background activity: no start pages, updates or accounts.
OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --force-prefers-reduced-motion"
).split()
# For every chart: whether its svg has a line with at least two points inside the chart's box.
DRAWN = """
return [...document.querySelectorAll("figure.chart")].map((figure) => {
  const box = figure.querySelector(".plot svg")?.getBoundingClientRect();
  const lines = [...figure.querySelectorAll("path.line, circle")].map((line) => line.getBoundingClientRect());
  const seen = lines.some((line) => line.width > 0 && line.left >= box.left - 1 && line.right <= box.right + 1);
  return [figure.querySelector("b").textContent, Boolean(box && box.height > 50 && seen)];
});
"""
# For every heat map: how many colors its pixels have.
COLORS = """
return [...document.querySelectorAll(".map canvas")].map((canvas) => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(pixels.buffer)).size;
});
"""
# The largest number on the vertical axis of the first chart.
TOP_TICK = """
const ticks = document.querySelector(".chart.main .plot").querySelectorAll("text[text-anchor=end]");
return Math.max(...[...ticks].map((tick) => Number(tick.textContent)));
"""
# Elements with text that is cut off, with each state in turn.
CLIPPED = """
const clipped = [];
const words = arguments[0];
for (const state of document.querySelectorAll(".state")) {
  const before = state.textContent;
  for (const word of words) {
    state.textContent = word;
    const within = [state, state.parentElement];
    if (within.some((element) => element.scrollWidth > element.clientWidth)) clipped.push(word);
  }
  state.textContent = before;
}
for (const element of document.querySelectorAll(".tiles div, .tiles dd, figcaption, .legend button, h1, h2, h3")) {
  if (element.scrollWidth > element.clientWidth) clipped.push(element.textContent);
}
return clipped;
"""
# The width of the page beyond the window, the share of the window that charts take, and the charts in the first row.
LAYOUT = """
const root = document.documentElement;
const boxes = [...document.querySelectorAll("#curves figure")].map((figure) => figure.getBoundingClientRect());
const width = Math.max(...boxes.map((box) => box.right)) - Math.min(...boxes.map((box) => box.left));
return [root.scrollWidth - root.clientWidth, width / root.clientWidth, boxes.filter((box) => box.top === boxes[0].top).length];
"""
# The lines of the chart of both losses, and the names of all charts.
LOSSES = """
const lines = [...document.querySelectorAll(".chart.main path.line:not(.raw)")];
const held = lines.filter((line) => line.classList.contains("held")).length;
return [lines.length - held, held, [...document.querySelectorAll("#curves figcaption b")].map((name) => name.textContent)];
"""
TIMES = """
document.querySelector("button[data-to=time]").click();
return [...document.querySelectorAll(".chart.main text[text-anchor=middle]")].map((tick) => tick.textContent);
"""


def check(program, report):
    if os.environ.get("OSS_RUN_NO_BROWSER") == "1":
        print("  skipped: OSS_RUN_NO_BROWSER=1", flush=True)
        return
    browsers = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    binary, driver = next(filter(None, browsers), None), shutil.which("chromedriver")
    if binary is None or driver is None:
        fix = "install both (sudo apt install chromium chromium-driver), or skip this check with OSS_RUN_NO_BROWSER=1"
        report.failed("report", f"Chromium or chromedriver is not installed; {fix}")
        return

    run = long_run(program)
    one = program.directory / program.call("report", run).strip()
    report.below(f"size in bytes of a report on {NUM_STEPS} logged steps", one.stat().st_size, MAX_BYTES)
    name, runs = sweep(program, run)
    many = program.directory / "many.html"
    program.call("report", run, program.trained, "--sweep", name, "--runs-dir", runs, "--out", many)

    profile = program.directory / "chromium"
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for option in [*OPTIONS, f"--user-data-dir={profile}", "--window-size=1280,1000"]:
        options.add_argument(option)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        look(browser, report, "one run", one)
        marks = len(browser.find_elements(By.CSS_SELECTOR, "figure.chart .missing"))
        report.same("markers for non-finite values", marks, 1)
        training, validation, names = browser.execute_script(LOSSES)
        report.same("training and validation losses in one chart", [training, validation], [1, 1])
        apart = [name for name in names if name.endswith("/loss")]
        report.same("charts of one of them", apart, [])
        constant = browser.find_element(By.CSS_SELECTOR, "#curves p.note").text
        report.holds("metrics that never changed have no chart", "train/always = 0" in constant, constant)
        report.holds("a one-step spike is within the loss axis", browser.execute_script(TOP_TICK) >= 40, "50 nats per token")
        look(browser, report, "two runs and a sweep", many)
        trials = len(browser.find_elements(By.CSS_SELECTOR, "#coordinates path.trial"))
        report.same("lines for the trials", trials, 27)
        legend = [button.text for button in browser.find_elements(By.CSS_SELECTOR, ".legend button")]
        report.holds("the legend names values", "optimizer.lr=1e-4" in legend[0], f"{legend}")
        training, validation, _ = browser.execute_script(LOSSES)
        report.same("losses of two runs in one chart", [training, validation], [2, 2])
        browser.find_element(By.CSS_SELECTOR, ".legend button").click()
        left = len(browser.find_elements(By.CSS_SELECTOR, "figure.chart path.line.run-0"))
        report.same("lines of a hidden run", left, 0)
    finally:
        browser.quit()


def look(browser, report, what, page):
    for width in WIDTHS:
        for scheme in ["light", "dark"]:
            fits(browser, report, f"{what}, {width} pixels, {scheme}", page, width, scheme)
    charts = browser.execute_script(DRAWN)
    empty = [name for name, drawn in charts if not drawn]
    report.holds(f"{what}: every chart has a line", charts and not empty, f"{len(charts)} charts, empty: {empty or 'none'}")
    colors = browser.execute_script(COLORS)
    report.holds(f"{what}: every heat map has colors", colors and min(colors) > 1, f"{colors} colors")
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    report.same(f"{what}: resources fetched over the network", [url for url in fetched if not url.startswith("data:")], [])
    report.holds(f"{what}: user text is escaped", browser.title != "taken", f"the title is {browser.title!r}")
    ticks = browser.execute_script(TIMES)
    are_times = len(ticks) > 1 and all(tick.split()[-1] in ("s", "min", "h", "d") for tick in ticks)
    report.holds(f"{what}: the horizontal axis can show time", are_times, f"{ticks}")
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    report.same(f"{what}: messages on the console", complaints, [])


def fits(browser, report, what, page, width, scheme):
    """Opens the page in a window of this width, and checks that it uses it."""
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(page.as_uri())
    # Charts are drawn once their size is known.
    drawn = "return document.querySelectorAll('figure.chart').length === document.querySelectorAll('.chart .plot > svg').length"
    WebDriverWait(browser, 10).until(lambda browser: browser.execute_script(drawn))
    overflow, used, in_a_row = browser.execute_script(LAYOUT)
    report.same(f"{what}: pixels beyond the window", overflow, 0)
    report.holds(f"{what}: charts use the width", used > 0.9 and in_a_row >= width // 500, f"{used:.0%}, {in_a_row} in a row")
    report.same(f"{what}: clipped text", browser.execute_script(CLIPPED, STATES), [])


def long_run(program):
    """A copy of a trained run with 10,000 logged steps, a spike, a NaN loss, and a hostile sample."""
    run = program.directory / "runs" / "swept" / program.trained.name
    shutil.copytree(program.trained, run, ignore=shutil.ignore_patterns("checkpoints", "export", "tensorboard"))
    draw = random.Random(0)
    started = datetime(2026, 1, 1, tzinfo=timezone.utc)
    with open(run / "metrics.jsonl", "w", encoding="utf-8") as file:
        for step in range(1, NUM_STEPS + 1):
            loss = 1.5 + 8 / math.sqrt(step) + draw.gauss(0, 0.05)
            loads = [1 + abs(draw.gauss(0, 0.3)) + layer / 20 for layer in range(24)]
            now = {"time": (started + timedelta(seconds=step)).isoformat()}
            line = {
                "step": step,
                "loss": 50.0 if step == SPIKE else None if step == NAN else loss,
                "lr": 3e-4 * min(1, step / 500),
                "grad_norm": abs(draw.gauss(1, 0.2)),
                "balance_loss": 1 + abs(draw.gauss(0, 0.05)),
                "dead_experts": step % 3,
                "dead_experts_layers": [step % 3 if layer == 5 else 0 for layer in range(24)],
                "max_load": max(loads),
                "max_load_layers": loads,
                "tokens_per_second": draw.gauss(5000, 200),
                "tflops": draw.gauss(0.1, 0.004),
                "peak_memory_bytes": 500_000_000 + step,
                "always": 0,
            }
            file.write(json.dumps(line | now) + "\n")
            if step % 100 == 0:
                line = {"step": step, "val_loss": loss + 0.1, "val_nats_per_byte": loss / 3}
                file.write(json.dumps(line | now) + "\n")
    sample = {"prompt": HOSTILE, "prompt_tokens": [1], "tokens": [2], "text": HOSTILE}
    (run / "samples" / "step-00000100.json").write_text(json.dumps([sample]), encoding="utf-8")
    return run


def sweep(program, run):
    """Writes a sweep of 27 trials; returns its name and the runs directory."""
    folder = program.directory / "runs" / "swept" / "sweep"
    folder.mkdir()
    draw = random.Random(1)
    with open(folder / "results.jsonl", "w", encoding="utf-8") as file:
        for trial in range(27):
            lr, decay = [1e-4, 1e-3, 1e-2][trial % 3], [0.0, 0.1, 0.2][trial // 3 % 3]
            kind = ["adamw", "muon", HOSTILE][trial // 9]
            done = trial % 7 != 6
            line = {
                "trial": trial + 1,
                "run": run.name if trial == 0 else f"{trial:010x}",
                "state": "done" if done else "failed",
                "values": {"optimizer.lr": lr, "optimizer.weight_decay": decay, "optimizer.kind": kind},
                "metric": "val_loss",
                "direction": "minimize",
                "value": 2 + abs(math.log10(lr) + 3) + decay + draw.random() / 10 if done else None,
                "step": 300,
                "steps": 300,
                "seconds": 41.2,
            }
            file.write(json.dumps(line) + "\n")
    return "swept", folder.parent.parent
