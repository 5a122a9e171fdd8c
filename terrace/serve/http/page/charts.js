// Charts as SVG: areas and lines over time, bars by duration, a curve by size. Each says what it
// shows in words, has a cursor for pointer and arrow keys, and keeps its element from draw to draw.

import { bytes, clock, count, duration } from "./format.js";

const SPACE = { left: 62, right: 14, top: 12, bottom: 24 };
const HEIGHT = 230;

// An HTML element. Text is always text: nothing that an engine says becomes markup.
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function s(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Round steps of 1, 2 and 5 from 0 that reach `most`; at most six.
export function ticks(most) {
  const rough = (most > 0 ? most : 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
  const found = [];
  for (let i = 0; ; ++i) {
    found.push(i * step);
    if (i > 0 && i * step >= most * 0.999) return found;
  }
}

const TIME_STEPS = [10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 21600];

function timeTicks(from, to, most) {
  const step = TIME_STEPS.find((n) => (to - from) / n <= most) ?? 43200;
  const offset = new Date(to * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= to; at += step) found.push(at);
  return found;
}

// One chart's element: frame, scale, legend, cursor.
export class Plot {
  constructor(element) {
    this.element = element;
    this.svg = s("svg", { role: "img", tabindex: "0", height: HEIGHT });
    this.legend = h("ul", { class: "legend" });
    this.tip = h("div", { class: "tip", hidden: true });
    this.live = h("div", { class: "unseen", "aria-live": "polite" });
    this.empty = h("div", { class: "empty", hidden: true });
    element.append(this.svg, this.tip, this.legend, this.empty, this.live);
    this.stops = [];
    this.at = -1;
    this.svg.addEventListener("pointermove", (event) => this.#point(event));
    this.svg.addEventListener("pointerleave", () => this.#move(-1, false));
    this.svg.addEventListener("blur", () => this.#move(-1, false));
    this.svg.addEventListener("keydown", (event) => this.#key(event));
  }

  // Instead of a chart, why there is none.
  say(text) {
    this.svg.style.display = "none";
    this.tip.hidden = true;
    this.legend.replaceChildren();
    this.empty.hidden = false;
    this.empty.textContent = text;
  }

  begin(most, format, label) {
    this.empty.hidden = true;
    this.svg.style.display = "";
    this.width = Math.max(260, this.element.clientWidth);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.svg.setAttribute("aria-label", label);
    this.left = SPACE.left;
    this.right = this.width - SPACE.right;
    this.bottom = HEIGHT - SPACE.bottom;
    const steps = ticks(most);
    this.top = steps.at(-1);
    this.svg.replaceChildren();
    for (const step of steps) {
      const y = this.y(step);
      this.svg.append(
        s("line", { class: step === 0 ? "axis" : "gridline", x1: this.left, x2: this.right, y1: y, y2: y }),
        s("text", { x: this.left - 8, y: y + 4, "text-anchor": "end" }, format(step)),
      );
    }
  }

  y(value) {
    return this.bottom - (value / this.top) * (this.bottom - SPACE.top);
  }

  xLabel(x, text) {
    if (x < this.left - 1 || x > this.right + 1) return;
    const anchor = x > this.right - 20 ? "end" : "middle";
    this.svg.append(s("text", { x, y: HEIGHT - 6, "text-anchor": anchor }, text));
  }

  // Where the cursor can stand: {x, title, rows: [[name, value, class]]}.
  stopAt(stops) {
    this.cursor = s("line", { class: "cursor", y1: SPACE.top, y2: this.bottom, visibility: "hidden" });
    this.svg.append(this.cursor);
    this.stops = stops;
    this.#move(this.at >= 0 ? Math.min(this.at, stops.length - 1) : -1, false);
  }

  showLegend(rows) {
    this.legend.replaceChildren(
      ...rows.map(([name, value, color]) =>
        h("li", {}, color ? h("span", { class: `swatch ${color}` }) : null, h("span", {}, name), h("b", {}, value))),
    );
  }

  #point(event) {
    const x = ((event.clientX - this.svg.getBoundingClientRect().left) / this.svg.clientWidth) * this.width;
    let nearest = -1;
    this.stops.forEach((stop, i) => {
      if (nearest < 0 || Math.abs(stop.x - x) < Math.abs(this.stops[nearest].x - x)) nearest = i;
    });
    this.#move(nearest, false);
  }

  #key(event) {
    const last = this.stops.length - 1;
    const moves = { ArrowLeft: Math.max(0, (this.at < 0 ? last + 1 : this.at) - 1), ArrowRight: Math.min(last, this.at + 1), Home: 0, End: last };
    if (event.key === "Escape") this.#move(-1, false);
    if (!(event.key in moves) || last < 0) return;
    event.preventDefault();
    this.#move(moves[event.key], true);
  }

  #move(at, isSpoken) {
    this.at = at;
    const stop = this.stops[at];
    this.tip.hidden = !stop;
    if (this.cursor) this.cursor.setAttribute("visibility", stop ? "visible" : "hidden");
    if (!stop) return;
    this.cursor.setAttribute("x1", stop.x);
    this.cursor.setAttribute("x2", stop.x);
    this.tip.replaceChildren(
      h("strong", {}, stop.title),
      h("table", {}, h("tbody", {}, ...stop.rows.map(([name, value, color]) =>
        h("tr", {}, h("td", {}, color ? h("span", { class: `swatch ${color}` }) : ""), h("td", {}, name), h("td", {}, value))))),
    );
    const scale = this.svg.clientWidth / this.width;
    const x = stop.x * scale;
    const isRight = x > this.svg.clientWidth / 2;
    this.tip.style.left = isRight ? "" : `${x + 12}px`;
    this.tip.style.right = isRight ? `${this.svg.clientWidth - x + 12}px` : "";
    this.tip.style.top = "8px";
    if (isSpoken) this.live.textContent = `${stop.title}: ${stop.rows.map(([name, value]) => `${name} ${value}`).join(", ")}`;
  }
}

function path(points) {
  return points.map(([x, y], i) => `${i === 0 ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

// Runs of neighbours that have a value.
function runs(values) {
  const found = [];
  let run = [];
  values.forEach((value, i) => {
    if (value === null) {
      if (run.length > 0) found.push(run);
      run = [];
    } else run.push(i);
  });
  if (run.length > 0) found.push(run);
  return found;
}

// `chart`: {times (since 1970), from, to, series: [{name, color, values, dashed}], stacked, format,
// most, label, empty}.
export function drawTimes(plot, chart) {
  const { times, series, stacked, format } = chart;
  const isAny = series.some((one) => one.values.some((value) => value !== null && value > 0));
  if (times.length < 2 || (!isAny && chart.empty)) return plot.say(times.length < 2 ? "The first points come within ten seconds." : chart.empty);
  const sums = times.map(() => 0);
  let most = chart.most ?? 0;
  const layers = series.map((one) => one.values.map((value, i) => {
    if (!stacked) {
      if (chart.most === undefined) most = Math.max(most, value ?? 0);
      return [0, value];
    }
    const below = sums[i];
    sums[i] += value ?? 0;
    most = Math.max(most, sums[i]);
    return [below, sums[i]];
  }));
  const last = (values) => values.findLast((value) => value !== null) ?? null;
  plot.begin(most, chart.tickFormat ?? format, `${chart.label}. Now: ${series.map((one) => `${one.name} ${format(last(one.values))}`).join(", ")}`);
  const x = (time) => plot.left + ((time - chart.from) / (chart.to - chart.from)) * (plot.right - plot.left);
  for (const at of timeTicks(chart.from, chart.to, Math.max(2, plot.width / 90))) plot.xLabel(x(at), clock(at));
  series.forEach((one, k) => {
    for (const run of runs(layers[k].map(([, upper]) => upper))) {
      const upper = run.map((i) => [x(times[i]), plot.y(layers[k][i][1])]);
      if (stacked) {
        const lower = run.map((i) => [x(times[i]), plot.y(layers[k][i][0])]).reverse();
        plot.svg.append(s("path", { class: `area ${one.color}`, d: `${path([...upper, ...lower])}Z` }));
      } else {
        plot.svg.append(s("path", { class: `line ${one.color}${one.dashed ? " dashed" : ""}`, d: path(upper) }));
      }
    }
  });
  const mark = (one) => (stacked ? one.color : `${one.color} ${one.dashed ? "dashed" : "solid"}`);
  const rowsAt = (i) => series.map((one) => [one.name, format(one.values[i]), mark(one)]).reverse();
  plot.stopAt(times.map((time, i) => ({ x: x(time), title: clock(time, true), rows: rowsAt(i) })));
  plot.showLegend(series.map((one) => [one.name, format(last(one.values)), mark(one)]).reverse());
}

// The time below which the share of the counted lies; linear inside a bucket.
export function quantile(buckets, share) {
  const all = buckets.reduce((sum, one) => sum + one.count, 0);
  let seen = 0;
  for (const one of buckets) {
    if (one.count > 0 && seen + one.count >= share * all) {
      if (!Number.isFinite(one.to)) return one.from;
      return one.from + (one.to - one.from) * ((share * all - seen) / one.count);
    }
    seen += one.count;
  }
  return null;
}

// `buckets`: [{from, to (seconds), count}], rising; the last one's `to` may be infinite.
export function drawBars(plot, { buckets, label, empty }) {
  const all = buckets.reduce((sum, one) => sum + one.count, 0);
  if (all === 0) return plot.say(empty);
  const facts = [["half take at most", duration(quantile(buckets, 0.5))], ["99 of 100", duration(quantile(buckets, 0.99))], ["counted", count(all)]];
  plot.begin(Math.max(...buckets.map((one) => one.count)), count, `${label}. ${facts.map((fact) => fact.join(" ")).join(", ")}`);
  const width = (plot.right - plot.left) / buckets.length;
  const stops = buckets.map((one, i) => {
    const x = plot.left + i * width;
    const y = plot.y(one.count);
    plot.svg.append(s("rect", { class: "bar", x: x + 1, y, width: Math.max(1, width - 2), height: Math.max(0, plot.bottom - y), rx: 2 }));
    const name = Number.isFinite(one.to) ? `${duration(one.from)} to ${duration(one.to)}` : `above ${duration(one.from)}`;
    return { x: x + width / 2, title: name, rows: [["count", count(one.count)], ["share", `${((100 * one.count) / all).toFixed(1)} %`]] };
  });
  buckets.forEach((one, i) => {
    if (Math.abs(Math.log10(one.to) % 1) < 1e-6 || Math.abs(Math.abs(Math.log10(one.to) % 1) - 1) < 1e-6) plot.xLabel(plot.left + (i + 1) * width, duration(one.to));
  });
  plot.stopAt(stops);
  plot.showLegend(facts);
}

// `points`: [{bytes, hit_percent}], sizes going up. `marks`: [{bytes, name}].
export function drawCurve(plot, { points, marks, label, empty, note }) {
  const shown = points.filter((point) => point.bytes > 0);
  const best = Math.max(0, ...shown.map((point) => point.hit_percent));
  if (best <= 0) return plot.say(empty);
  const widest = Math.max(...marks.map((mark) => mark.bytes), 1);
  const flat = shown.findIndex((point) => point.hit_percent >= best - 0.05);
  const end = Math.max(flat + 12, shown.findIndex((point) => point.bytes >= widest * 1.5));
  const kept = shown.slice(0, Math.min(shown.length, end + 1));
  const [low, high] = [Math.log10(kept[0].bytes), Math.log10(kept.at(-1).bytes)];
  const x = (size) => plot.left + ((Math.log10(size) - low) / (high - low)) * (plot.right - plot.left);
  plot.begin(Math.min(100, best * 1.05), (value) => `${value} %`, label);
  const everySecond = high - low > 5;
  for (let power = Math.ceil(low); power <= high; ++power) {
    if (!everySecond || power % 3 === 0) plot.xLabel(x(10 ** power), bytes(10 ** power));
  }
  plot.svg.append(s("path", { class: "line c-host", d: path(kept.map((point) => [x(point.bytes), plot.y(point.hit_percent)])) }));
  marks.filter((mark) => mark.bytes > 0).forEach((mark, i) => {
    const at = Math.min(plot.right, Math.max(plot.left, x(mark.bytes)));
    const isBefore = at > plot.right - 130; // The words stand before their line.
    plot.svg.append(
      s("line", { class: "mark", x1: at, x2: at, y1: SPACE.top, y2: plot.bottom }),
      s("text", { class: "mark-text", x: at + (isBefore ? -6 : 6), y: plot.bottom - 8 - 16 * i, "text-anchor": isBefore ? "end" : "start" }, mark.name),
    );
  });
  plot.stopAt(kept.map((point) => ({ x: x(point.bytes), title: bytes(point.bytes), rows: [["would hold", `${point.hit_percent.toFixed(1)} %`]] })));
  plot.showLegend(note ? [[note, ""]] : []);
}
