// Asks this engine's node every few seconds and shows what it says. Asks nobody else.

import { Plot, drawBars, drawCurve, drawTimes } from "./charts.js";
import { byteRate, clock, count, duration, parseMetrics, percent, rate } from "./format.js";
import { empty, showMetrics, showMisses, showQueues, showRanks, showSettings, showSlowest, showTiers, showTiles } from "./parts.js";

const EVERY_MS = 5000;
const PATIENCE_MS = 10000;
const FEW_BLOCKS = 1000; // Fewer say little about what other sizes would hold.
const TIERS = ["host", "disk", "object"];
const $ = (id) => document.getElementById(id);
const plots = Object.fromEntries(["sources", "filling", "moved", "lookup-times", "onboard-times", "curve"].map((id) => [id, new Plot($(id))]));
const shown = { span: 3600, settings: null, answer: null, failedSince: null };

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${answer.statusText}`);
  return answer;
}

// ---- From counters to rates and gains.

const hit = (tier) => `terrace_hit_tokens_total{tier="${tier}"}`;
const moved = (op, source, target) => `terrace_transfer_bytes_total{op="${op}",source="${source}",target="${target}"}`;
const miss = (reason) => `terrace_miss_blocks_total{reason="${reason}"}`;

// A second, between neighbours; the first point has none before it.
function rates(history, name) {
  const values = history.columns[name] ?? [];
  return history.times.slice(1).map((time, i) => {
    const [before, after] = [values[i], values[i + 1]];
    if (before === null || before === undefined || after === null || after === undefined) return null;
    return Math.max(0, after - before) / Math.max(0.1, time - history.times[i]);
  });
}

// What a counter gained in the time shown: from its oldest sample there, or from the engine's start.
function gain({ history, metrics, status }, name) {
  const now = metrics.samples.get(name) ?? 0;
  if (status.uptime_seconds <= shown.span) return now;
  const first = history.columns[name]?.find((value) => value !== null) ?? history.first[name] ?? 0;
  return Math.max(0, now - first);
}

function bucketsOf(answer, name) {
  const found = [];
  let [from, before] = [0, 0];
  for (const sample of answer.metrics.samples.keys()) {
    const match = new RegExp(`^${name}_bucket\\{le="([^"]+)"\\}$`).exec(sample);
    if (!match) continue;
    const to = match[1] === "+Inf" ? Infinity : Number(match[1]);
    const all = gain(answer, sample);
    found.push({ from, to, count: Math.max(0, all - before) });
    [from, before] = [to, all];
  }
  return found;
}

// ---- What is shown.

function showHead({ status }) {
  const isGreen = status.health === "green";
  $("health").className = `pill ${isGreen ? "green" : "red"}`;
  $("health").textContent = isGreen ? "✓ health green" : "✗ health red";
  $("engine").textContent = status.engine;
  $("engine").title = status.engine;
  const mode = status.mode === "on" ? "" : `, ${status.mode}`;
  $("facts").textContent = `${status.ready ? "serving" : "not serving yet"}${mode} · up ${duration(status.uptime_seconds)}`;
  $("facts").title = `process ${status.process}`;
  document.title = `${isGreen ? "" : "✗ "}Terrace · ${status.engine}`;
}

const MODES = {
  readonly: "Read-only: hits are served, nothing is stored. `terrace resume` ends it.",
  paused: "Paused: every look-up misses, nothing is stored. `terrace resume` ends it.",
  observe: "Observing: nothing is stored or loaded. `terrace advise` tells what tiers would do.",
};

function showNotices({ status }) {
  const notices = [];
  const notice = (color, title, lines) => {
    const box = document.createElement("div");
    box.className = `notice ${color}`;
    box.append(title);
    const list = document.createElement("ul");
    for (const line of lines) list.append(Object.assign(document.createElement("li"), { textContent: line }));
    if (lines.length > 0) box.append(list);
    notices.push(box);
  };
  if (status.problems.length > 0 || status.poisoned) notice("red", "Somebody should look:", status.problems);
  if (MODES[status.mode]) notice("amber", MODES[status.mode].replaceAll("`", ""), []);
  // The same again is not read out again.
  const text = notices.map((one) => one.textContent).join();
  if ($("notices").dataset.text === text) return;
  $("notices").dataset.text = text;
  $("notices").replaceChildren(...notices);
}

function showFigures(answer) {
  const { metrics, status } = answer;
  const now = (name) => metrics.samples.get(name) ?? 0;
  const asked = gain(answer, "terrace_prompt_tokens_total");
  const engine = gain(answer, "terrace_engine_hit_tokens_total");
  const tiers = TIERS.reduce((sum, tier) => sum + gain(answer, hit(tier)), 0);
  const failed = gain(answer, 'terrace_loads_total{result="failed"}');
  const corrupt = TIERS.reduce((sum, tier) => sum + (status.corrupt_blocks[tier] ?? 0), 0);
  const missed = [...metrics.samples.keys()].filter((name) => name.startsWith("terrace_miss_blocks_total")).reduce((sum, name) => sum + gain(answer, name), 0);
  const span = duration(Math.min(shown.span, status.uptime_seconds));
  const share = asked > 0 ? Math.min(1, (engine + tiers) / asked) : null;
  showTiles($("tiles"), [
    { id: "spared", name: "Tokens not computed", value: percent(share), more: asked > 0 ? `of prompts; engine ${percent(engine / asked)}, tiers ${percent(tiers / asked)}` : `no prompt in ${span}`, data: share },
    { id: "tiers", name: "Tokens from tiers", value: count(tiers), more: `in ${span}; ${TIERS.map((tier) => `${tier} ${count(gain(answer, hit(tier)))}`).join(", ")}`, data: tiers },
    { id: "requests", name: "Requests", value: count(gain(answer, "terrace_requests_total")), more: `in ${span}; ${count(status.active_requests)} active now`, data: gain(answer, "terrace_requests_total") },
    { id: "misses", name: "Missed blocks", value: count(missed), more: `in ${span}`, data: missed },
    { id: "failed", name: "Failed loads", value: count(failed), more: `in ${span}; the engine computed them`, data: failed, isBad: failed > 0 },
    { id: "corrupt", name: "Corrupt blocks", value: count(corrupt), more: "since the start; each was a miss", data: corrupt, isBad: corrupt > 0 },
  ]);
  showTiers($("tiers"), status.tiers, now("terrace_object_store_bytes"));
  showMisses($("misses"), new Map(Object.keys(status.miss_blocks).map((reason) => [reason, gain(answer, miss(reason))])));
  showSlowest($("slowest"), answer.ledger);
  showQueues($("queues"), status.queues);
  showRanks($("ranks"), status.attachments);
}

function showOverTime(answer) {
  const { history, status } = answer;
  const times = history.times.slice(1);
  const scale = { from: Math.min(history.times[0] ?? history.now, history.now - 30), to: history.now };
  const line = (name, color, values, dashed) => ({ name, color: `c-${color}`, values, dashed });
  const asked = rates(history, "terrace_prompt_tokens_total");
  const engine = rates(history, "terrace_engine_hit_tokens_total");
  const tiers = TIERS.map((tier) => rates(history, hit(tier)));
  // Tiers tell when it arrived, prompts when the request ended: a moment may show more than all.
  const computed = asked.map((all, i) => (all === null ? null : Math.max(0, all - (engine[i] ?? 0) - tiers.reduce((sum, one) => sum + (one[i] ?? 0), 0))));
  const isOn = (tier) => status.tiers.some((one) => one.tier === tier && one.state !== "off");
  drawTimes(plots.sources, {
    ...scale, times, stacked: true, format: rate, label: "Prompt tokens a second by where they came from",
    empty: "No prompt has ended in the time shown. Once the engine serves requests, this shows where their tokens came from.",
    series: [...TIERS.map((tier, i) => [tier, tiers[i]]).filter(([tier]) => isOn(tier)).map(([tier, values]) => line(tier, tier, values)).reverse(), line("engine's own cache", "engine", engine), line("computed", "computed", computed)],
  });
  const slotsOf = (tier) => {
    const found = status.tiers.find((one) => one.tier === tier && one.state !== "off");
    return found ? Object.entries(found.slots).reduce((sum, [name, n]) => sum + (name === "pinned" ? 0 : n), 0) : 0;
  };
  const filling = ["disk", "host"].filter((tier) => slotsOf(tier) > 0).map((tier) =>
    line(tier, tier, (history.columns[`terrace_pool_slots{tier="${tier}",state="sealed"}`] ?? []).map((n) => (n === null ? null : n / slotsOf(tier))), tier === "disk"));
  drawTimes(plots.filling, { ...scale, times: history.times, most: 1, format: percent, tickFormat: (ratio) => `${Math.round(100 * ratio)} %`, label: "Share of slots that hold a block", series: filling, empty: filling.length === 0 ? "No tier is open." : "" });
  const ways = [["host to disk", "disk", moved("offload", "host", "disk"), true], ["disk to host", "disk", moved("prefetch", "disk", "host")], ["host to store", "object", moved("offload", "host", "object"), true], ["store to host", "object", moved("prefetch", "object", "host")], ["device to host", "host", moved("offload", "device", "host"), true], ["host to device", "host", moved("onboard", "host", "device")]];
  const used = ways.filter(([, tier]) => isOn(tier)).map(([name, tier, column, dashed]) => line(name, tier, rates(history, column), dashed));
  drawTimes(plots.moved, { ...scale, times, format: byteRate, label: "Bytes moved a second", series: used, empty: "Nothing was moved in the time shown." });
}

function showShapes(answer) {
  const { status } = answer;
  drawBars(plots["lookup-times"], { buckets: bucketsOf(answer, "terrace_lookup_seconds"), label: "Look-ups by the time they took", empty: "No look-up has ended in the time shown." });
  drawBars(plots["onboard-times"], { buckets: bucketsOf(answer, "terrace_onboard_seconds"), label: "Loads by the time they took", empty: "No load has ended in the time shown." });
  const size = (tier) => status.tiers.find((one) => one.tier === tier && one.state === "open")?.capacity_bytes ?? 0;
  const marks = [{ bytes: size("host"), name: "host now" }];
  if (size("disk") > 0) marks.push({ bytes: size("host") + size("disk"), name: "host and disk now" });
  const asked = status.forecast.blocks_asked;
  drawCurve(plots.curve, {
    points: status.forecast.curve, marks, label: "Share of blocks that a cache of a size would have held",
    empty: "Nothing has been asked for twice yet. The curve comes from the requests as they come.",
    note: asked < FEW_BLOCKS ? `Learned from ${count(asked)} blocks only: too few to go by.` : `Learned from ${count(asked)} blocks asked for; older ones weigh less.`,
  });
}

function showLists() {
  const { answer, settings } = shown;
  if (settings) {
    const found = showSettings($("settings"), settings, $("settings-filter").value, $("settings-changed").checked);
    $("settings-count").textContent = `${found.shown} of ${found.all}`;
  }
  if (!answer) return;
  const found = showMetrics($("metrics"), answer.metrics, $("metrics-filter").value);
  $("metrics-count").textContent = `${found.shown} of ${found.all}`;
}

function showAll() {
  const answer = shown.answer;
  showHead(answer);
  showNotices(answer);
  showFigures(answer);
  showOverTime(answer);
  showShapes(answer);
  showLists();
  $("updated").textContent = `As of ${clock(answer.history.now, true)}, again every ${EVERY_MS / 1000} s.`;
  if (!document.documentElement.dataset.rendered) document.documentElement.dataset.rendered = performance.now().toFixed(1);
  document.documentElement.dataset.updates = Number(document.documentElement.dataset.updates ?? 0) + 1;
}

function showFailure(error) {
  shown.failedSince ??= Date.now() / 1000;
  $("health").className = "pill amber";
  $("health").textContent = "no answer";
  $("facts").textContent = `nothing since ${clock(shown.failedSince, true)} (${error.message}); what stands below is old`;
  document.title = "? Terrace";
  if (!shown.answer) $("tiles").replaceChildren(empty("The engine does not answer. This page goes on asking."));
}

// ---- When.

async function update() {
  try {
    const asked = shown.span;
    const [status, history, ledger, text, settings] = await Promise.all([
      ask("api/status").then((answer) => answer.json()), ask(`api/history?seconds=${asked}`).then((answer) => answer.json()),
      ask("api/ledger").then((answer) => answer.json()), ask("metrics").then((answer) => answer.text()),
      shown.settings ?? ask("api/settings").then((answer) => answer.json()), // They do not change.
    ]);
    shown.settings = settings;
    if (asked !== shown.span) return update(); // Another time was chosen meanwhile.
    history.times = history.ages.map((age) => history.now - age);
    shown.answer = { status, history, ledger, metrics: parseMetrics(text) };
    shown.failedSince = null;
    showAll();
  } catch (error) {
    showFailure(error);
  }
}

let timer = 0;
async function run() {
  clearTimeout(timer);
  if (!document.hidden) await update();
  clearTimeout(timer);
  timer = setTimeout(run, EVERY_MS);
}

function keep(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch { /* A browser that keeps nothing: the choice ends with the page. */ }
}
function kept(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

$("theme").value = kept("terrace.theme") ?? "auto";
setTheme($("theme").value);
$("theme").addEventListener("change", () => {
  setTheme($("theme").value);
  keep("terrace.theme", $("theme").value);
});
for (const input of document.querySelectorAll('input[name="range"]')) {
  if (input.value === kept("terrace.range")) input.checked = true;
  if (input.checked) shown.span = Number(input.value);
  input.addEventListener("change", () => {
    shown.span = Number(input.value);
    keep("terrace.range", input.value);
    run();
  });
}
for (const id of ["settings-filter", "settings-changed", "metrics-filter"]) $(id).addEventListener("input", showLists);
document.addEventListener("visibilitychange", () => { if (!document.hidden) run(); });
let width = 0;
new ResizeObserver(() => {
  if (document.body.clientWidth === width) return;
  width = document.body.clientWidth;
  if (shown.answer) showAll();
}).observe(document.body);
run();
