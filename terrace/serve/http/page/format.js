// Numbers as people read them, and Prometheus text as a map.

const SI = ["", "k", "M", "G", "T", "P"];

// 12 345 678 -> "12.3 M"; whole numbers below 10 000 stay whole.
export function count(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size < 10000) return size >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : digits(value);
  let power = Math.min(SI.length - 1, Math.floor(Math.log10(size) / 3));
  if (size / 1000 ** power >= 999.5 && power < SI.length - 1) ++power;
  return `${digits(value / 1000 ** power)} ${SI[power]}`;
}

// Three digits that count.
export function digits(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const places = size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  if (size < 0.005) return value.toPrecision(1);
  return value.toFixed(places).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}

// As `terrace status` says them: powers of ten.
export function bytes(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size < 1000) return `${Math.round(value)} B`;
  let power = Math.min(SI.length - 1, Math.floor(Math.log10(size) / 3));
  if (size / 1000 ** power >= 999.5 && power < SI.length - 1) ++power;
  return `${digits(value / 1000 ** power)} ${SI[power]}B`;
}

export const byteRate = (value) => `${bytes(value)}/s`;
export const rate = (value) => `${count(value)}/s`;

export function percent(ratio) {
  if (ratio === null || !Number.isFinite(ratio)) return "–";
  const value = 100 * ratio;
  return `${value > 0 && value < 0.05 ? "< 0.1" : value.toFixed(value >= 99.95 || value === 0 ? 0 : 1)} %`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds === 0) return "0";
  if (seconds < 1e-3) return `${digits(seconds * 1e6)} µs`;
  if (seconds < 1) return `${digits(seconds * 1e3)} ms`;
  if (seconds < 120) return `${digits(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${digits(seconds / 3600)} h`;
  return `${digits(seconds / 86400)} days`;
}

export function clock(wallSeconds, withSeconds) {
  const options = { hour: "2-digit", minute: "2-digit", hour12: false };
  if (withSeconds) options.second = "2-digit";
  return new Date(wallSeconds * 1000).toLocaleTimeString("en-GB", options);
}

// Prometheus text -> {samples: Map of "name{labels}" -> number, help: Map of name -> text}.
export function parseMetrics(text) {
  const samples = new Map();
  const help = new Map();
  for (const line of text.split("\n")) {
    if (line.startsWith("# HELP ")) {
      const [, name, words] = /^# HELP (\S+) (.*)$/.exec(line) ?? [];
      if (name) help.set(name, words.replaceAll("\\n", "\n").replaceAll("\\\\", "\\"));
    } else if (line && !line.startsWith("#")) {
      const at = line.lastIndexOf(" ");
      samples.set(line.slice(0, at), Number(line.slice(at + 1).replace("Inf", "Infinity")));
    }
  }
  return { samples, help };
}
