// What is no chart: tiles, tiers, misses, tables. Each takes plain data and fills its element.

import { h } from "./charts.js";
import { bytes, count, duration, percent } from "./format.js";

const REASONS = {
  never_stored: ["Never stored", "Nobody has computed this here before, or it was not kept long enough to be seen."],
  evicted: ["Evicted", "It was here and gave way to other blocks: a larger tier would have held it."],
  other_namespace: ["Other namespace", "It is here, for another model, dtype, tenant or layout."],
  corrupt: ["Corrupt", "Its bytes did not verify, so it was computed again. Look at the device, or at the machine's memory."],
  late: ["Late", "It was not there by the deadline. The tier is slower than it was, or the deadline is short."],
  dropped: ["Dropped", "There was no room: it was not stored, or not read, as a queue or host was full."],
  not_worth_it: ["Not worth it", "Computing it was measured to be quicker than loading it."],
  unkeyable: ["Unkeyable", "The request carries something that cannot be keyed."],
  paused: ["Paused", "Somebody paused Terrace: `terrace resume` ends it."],
  shadow: ["Checked", "It is here, and was computed all the same to compare the two."],
  quarantined: ["Quarantined", "A block computed anew differs from the stored one. `terrace status` says which, and what to do."],
};
const STATES = [["sealed", "sealed"], ["pinned", "of them in use"], ["filling", "filling"], ["reserved", "reserved"], ["evicting", "evicting"], ["quarantined", "quarantined"], ["free", "free"]];

export function reasonName(reason) {
  return REASONS[reason]?.[0] ?? reason;
}

// Text in which `code` stands between back ticks.
export function prose(text) {
  return text.split("`").map((part, i) => (i % 2 === 1 ? h("code", {}, part) : part));
}

export function empty(text) {
  return h("div", { class: "empty" }, text);
}

// `tiles`: [{id, name, value, more, data, isBad}].
export function showTiles(element, tiles) {
  element.replaceChildren(...tiles.map((tile) =>
    h("div", { class: tile.isBad ? "tile bad" : "tile", id: `tile-${tile.id}`, "data-value": tile.data },
      h("div", { class: "name" }, tile.name), h("div", { class: "value" }, tile.value), h("div", { class: "more" }, tile.more))));
}

// Bytes of an object tier are the store's, as last counted.
function tierShape(tier, storeBytes) {
  const slots = tier.slots ?? {};
  const all = Object.entries(slots).reduce((sum, [name, n]) => sum + (name === "pinned" ? 0 : n), 0);
  const sealed = slots.sealed ?? 0;
  const other = all - sealed - (slots.free ?? 0);
  return { all, sealed, pinned: slots.pinned ?? 0, other, free: slots.free ?? 0, storeBytes };
}

function tierElement(tier, storeBytes) {
  const shape = tierShape(tier, storeBytes);
  const share = (n) => (shape.all > 0 ? (100 * n) / shape.all : 0);
  const pieces = [[`c-${tier.tier}`, shape.sealed - shape.pinned], [`c-${tier.tier} pinned`, shape.pinned], ["c-other", shape.other]];
  const words = STATES.filter(([state]) => (tier.slots?.[state] ?? 0) > 0).map(([state, name]) => `${count(tier.slots[state])} ${name}`).join(", ");
  const isStore = tier.tier === "object";
  const fill = h("div", { class: "fill", role: "img", "aria-label": `${tier.tier}: ${words || "no slots"}` },
    ...pieces.map(([color, n]) => {
      const piece = h("div", { class: color });
      piece.style.width = `${share(n)}%`;
      return piece;
    }));
  const size = isStore ? `${bytes(shape.storeBytes)} in packs` : `${percent(shape.all > 0 ? shape.sealed / shape.all : 0)} of ${bytes(tier.capacity_bytes)}`;
  return h("div", { class: "tier", "data-tier": tier.tier, "data-sealed": shape.sealed, "data-all": shape.all },
    h("div", { class: "tier-head" }, h("b", {}, tier.tier), h("span", {}, tier.state === "open" ? size : tier.state)),
    isStore ? null : fill,
    h("div", { class: "tier-text" }, [words ? `${words} (blocks).` : "", tier.detail ? `${tier.detail}.` : ""].join(" ").trim()));
}

export function showTiers(element, tiers, storeBytes) {
  const shown = tiers.filter((tier) => tier.state !== "off");
  element.replaceChildren(...(shown.length > 0 ? shown.map((tier) => tierElement(tier, storeBytes)) : [empty("No tier is on: this engine observes.")]));
}

// `misses`: Map of reason -> blocks.
export function showMisses(element, misses) {
  const rows = [...misses].filter(([, blocks]) => blocks > 0).sort((a, b) => b[1] - a[1]);
  const all = rows.reduce((sum, [, blocks]) => sum + blocks, 0);
  if (all === 0) return element.replaceChildren(empty("No block was missed in the time shown."));
  element.replaceChildren(h("dl", { class: "bars" }, ...rows.flatMap(([reason, blocks]) => {
    const bar = h("div", {});
    bar.style.width = `${(100 * blocks) / rows[0][1]}%`;
    const why = REASONS[reason]?.[1];
    return [
      h("dt", {}, reasonName(reason)), h("div", { class: "track", "aria-hidden": "true" }, bar),
      h("dd", { "data-reason": reason, "data-value": blocks }, `${count(blocks)} · ${percent(blocks / all)}`),
      why ? h("dd", { class: "why" }, ...prose(why)) : null,
    ].filter((part) => part);
  })));
}

// `columns`: [[name, isNumber, isLong]], long: sentences, which need room beside them; `rows`: cells, each a text, an
// element or a list of them.
export function table(columns, rows, caption) {
  const cell = (tag, content, [, isNumber, isLong], extra) => h(tag, { class: isNumber ? "number" : isLong ? "long" : undefined, ...extra }, ...(Array.isArray(content) ? content : [content]));
  return h("table", { class: "list" },
    h("caption", { class: "unseen" }, caption),
    h("thead", {}, h("tr", {}, ...columns.map((column) => cell("th", column[0], column, { scope: "col" })))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((content, i) => (i === 0 ? cell("th", content, columns[i], { scope: "row" }) : cell("td", content, columns[i])))))));
}

function sourceText(request) {
  const parts = request.local_tokens > 0 ? [`engine ${count(request.local_tokens)}`] : [];
  for (const [tier, tokens] of Object.entries(request.hit_tokens)) parts.push(`${tier} ${count(tokens)}`);
  return parts.join(", ") || "–";
}

export function showSlowest(element, ledger) {
  if (ledger.requests.length === 0) return element.replaceChildren(empty("No request has ended in the last hour."));
  const columns = [["Request", false], ["Ended", true], ["Time", true], ["Prompt tokens", true], ["Found in", false], ["First miss", false], ["Look-up", true], ["Load", true], ["Planned", true], ["Computing", true], ["Note", false]];
  const rows = ledger.requests.map((one) => {
    const plan = one.plan;
    const note = [];
    if (plan?.abandoned) note.push("load given up");
    if (one.unkeyable) note.push(`not cached: ${one.unkeyable}`);
    if (one.failed_tokens > 0) note.push(`${count(one.failed_tokens)} tokens promised and not delivered`);
    if (one.pending_tokens > 0) note.push("load not reported when it ended");
    return [
      one.request || `number ${one.number}`, `${duration(one.age_seconds)} ago`, duration(one.seconds), count(one.prompt_tokens), sourceText(one),
      one.first_miss ? reasonName(one.first_miss) : "–", duration(one.lookup_seconds),
      plan && plan.load_seconds > 0 ? `${duration(plan.load_seconds)}` : "–",
      plan && plan.predicted_load_seconds > 0 ? duration(plan.predicted_load_seconds) : "–",
      plan && plan.recompute_seconds > 0 ? duration(plan.recompute_seconds) : "–", note.join("; ") || "–",
    ];
  });
  element.replaceChildren(table(columns, rows, "Slowest requests"));
}

export function showQueues(element, queues) {
  const rows = queues.map((queue) => [queue.name.replaceAll("_", " "), count(queue.waiting), queue.capacity > 0 ? count(queue.capacity) : "–", count(queue.dropped)]);
  element.replaceChildren(table([["Queue", false], ["Waiting", true], ["Room", true], ["Dropped since the start", true]], rows, "Queues, in blocks"));
}

export function showRanks(element, ranks) {
  if (ranks.length === 0) return element.replaceChildren(empty("No rank is known yet."));
  const rows = ranks.map((one) => [String(one.rank), one.attached ? "attached" : "not attached", one.process > 0 ? String(one.process) : "–", one.detail || "–"]);
  element.replaceChildren(table([["Rank", true], ["State", false], ["Process", true], ["Detail", false]], rows, "Ranks of the engine"));
}

// `settings`: {effective, explained}. Returns how many there are and how many are shown.
export function showSettings(element, settings, filter, isChangedOnly) {
  const effective = settings.effective.settings;
  const wanted = filter.trim().toLowerCase();
  const rows = [];
  for (const one of settings.explained) {
    const now = effective[one.name] ?? { value: "", level: "default", origin: "" };
    const isSet = now.level !== "default";
    const hay = `${one.name} ${one.text} ${now.value} ${one.variable} ${one.aliases.join(" ")}`.toLowerCase();
    if ((isChangedOnly && !isSet && !wanted) || !hay.includes(wanted)) continue;
    const text = [...prose(one.text), one.not_built ? h("em", {}, ` Not built yet: ${one.not_built}.`) : ""];
    rows.push([h("code", { class: isSet ? "set" : "" }, one.name), h("code", { class: isSet ? "set" : "" }, now.value || "–"), now.origin, text, h("code", {}, one.default || one.default_note || "–"), prose(one.allowed)]);
  }
  const columns = [["Setting", false], ["Value", false], ["From", false], ["What it does", false, true], ["Default", false], ["Allowed", false]];
  element.replaceChildren(rows.length > 0 ? table(columns, rows, "Settings") : empty(wanted ? "No setting has that in it." : "Nobody has set anything."));
  return { all: settings.explained.length, shown: rows.length };
}

// `metrics` as parseMetrics() gives them.
export function showMetrics(element, metrics, filter) {
  const wanted = filter.trim().toLowerCase();
  const rows = [];
  for (const [name, value] of metrics.samples) {
    const bare = name.replace(/\{.*/, "");
    const help = metrics.help.get(bare) ?? metrics.help.get(bare.replace(/_(bucket|sum|count)$/, "")) ?? "";
    if (!`${name} ${help}`.toLowerCase().includes(wanted)) continue;
    rows.push([h("code", { "data-sample": name, "data-value": value }, name), Number.isInteger(value) ? value.toLocaleString("en") : String(value), help]);
  }
  element.replaceChildren(rows.length > 0 ? table([["Sample", false], ["Value", true], ["Meaning", false, true]], rows, "All metrics") : empty("No metric has that in it."));
  return { all: metrics.samples.size, shown: rows.length };
}
