/*
A second decoder of the batch format, written from docs/spec/batch-format.md alone.

`await decode(bytes, identities)` gives version, header, metadata and rows of one frame, or throws a Refusal that names the rule.
Integers are numbers where these are exact, else BigInts; times are always BigInts. Bytes are Uint8Arrays. Positions are in quanta.
*/

import { createHash } from "node:crypto";

import { Columns, columnsOf, numberOf, wordOf, WORDS_OF_BY } from "./columns.mjs";
import { frameOf, headerOf } from "./frame.mjs";
import { isBytes, isInteger, isText, Real } from "./messagepack.mjs";
import { content, opened } from "./payload.mjs";
import { Refusal } from "./refusal.mjs";

export { framesOf } from "./frame.mjs";
export { Refusal } from "./refusal.mjs";

const MOST_INTEGER = 2n ** 63n - 1n;
const MOST_STEP = 60_000_000_000;
const MOST_POSITION = 2 ** 31 - 1;
const MOST_ROWS = 65536;
const MOST_PAIRS = 32;

const KINDS = ["move", "press", "release", "scroll", "key_press", "key_release", "gap", "display", "layout", "focus"];
const LAST_INPUT = KINDS.indexOf("key_release");

export async function decode(bytes, identities = []) {
  const frame = frameOf(bytes);
  const header = headerOf(frame.header, frame.sealed);
  const payload = frame.sealed ? await opened(frame.payload, identities) : frame.payload;
  const columns = new Columns(columnsOf(await content(payload)));
  const tie = columns.bytes("H");
  if (frame.sealed && !columns.has("H")) throw new Refusal("H8", "a sealed payload without H");
  if (columns.has("H") && !createHash("sha256").update(frame.header).digest().subarray(0, 16).equals(tie)) throw new Refusal("H8", "the payload belongs to another header");
  const metadata = metadataOf(columns);
  return { version: frame.version, header, metadata, rows: rowsOf(columns, metadata) };
}

const isWithin = (value) => isInteger(value, -MOST_INTEGER, MOST_INTEGER);
const isCount = (value) => isInteger(value, 0, MOST_INTEGER);

function metadataOf(columns) {
  if (!columns.has("M")) throw new Refusal("M1", "there is no M");
  const about = columns.array("M");
  if (about.length < 6) throw new Refusal("M1", `M has ${about.length} entries`);
  const entry = (at, allowed) => {
    if (!allowed(about[at])) throw new Refusal("M1", `M[${at}] is of another type or range`);
    return about[at];
  };
  const optional = (at, allowed, otherwise) => (at < about.length ? entry(at, allowed) : otherwise);
  const platform = entry(5, (value) => typeof value === "string" || isInteger(value));
  const metadata = {
    monotonic: entry(0, isWithin),
    unix: entry(1, isWithin),
    boot: entry(2, (value) => isBytes(value, 8)),
    tick: entry(3, (value) => isInteger(value, 1, MOST_STEP)),
    software: softwareOf(entry(4, (value) => isText(value, 256))),
    platform: wordOf(platform),
    quanta: optional(6, (value) => isInteger(value, 1, 256), 1),
    coalesced: optional(7, isCount, 0),
    excluded: optional(8, isCount, 0),
    thinned: optional(9, isCount, 0),
    notCollected: optional(10, isCount, 0),
    lost: pairsOf(columns, "D", (value) => (isCount(value) ? value : undefined)),
    sources: pairsOf(columns, "S", (value) => nameOf(value)),
    plan: pairsOf(columns, "P", settingOf),
    reasons: columns.array("R"),
  };
  metadata.backends = backendsOf(columns, [...metadata.sources.keys()]);
  metadata.audit = auditOf(columns);
  if (!isText(metadata.platform, 128)) throw new Refusal("M1", "M[5] is over 128 bytes");
  if (metadata.reasons.length > MOST_PAIRS || !metadata.reasons.every((reason) => isText(reason, 256))) throw new Refusal("M3", "R is not up to 32 texts of up to 256 bytes");
  return metadata;
}

const softwareOf = (text) => (text.includes("/") ? text : `mcilib/${text}`);

/** The word that a name is, or undefined. */
function nameOf(value) {
  if (typeof value !== "string" && !isInteger(value)) return undefined;
  const word = wordOf(value);
  return isText(word, 128) ? word : undefined;
}

/** Source to backend, of those that say one. */
function backendsOf(columns, sources) {
  if (!columns.has("by")) return new Map();
  const by = columns.get("by");
  if (!Array.isArray(by)) throw new Refusal("M4", "by is not an array");
  if (by.length !== sources.length) throw new Refusal("M4", `by has ${by.length} entries for ${sources.length} sources`);
  const backends = new Map();
  by.forEach((value, n) => {
    if (value === null) return;
    if (typeof value !== "string" && !isInteger(value)) throw new Refusal("M4", "by has an entry that is no word");
    const word = wordOf(value, WORDS_OF_BY);
    if (!isText(word, 128)) throw new Refusal("M4", "by has a word of over 128 bytes");
    backends.set(sources[n], word);
  });
  return backends;
}

/** The head of the audit log, in hex digits; empty when it is not said. */
function auditOf(columns) {
  if (!columns.has("audit")) return "";
  const audit = columns.get("audit");
  if (!(audit instanceof Uint8Array) || audit.length !== 32) throw new Refusal("M5", "audit is not 32 bytes");
  return Buffer.from(audit).toString("hex");
}

/** The value of a lever, or undefined. */
function settingOf(value) {
  if (value instanceof Real) return Number.isFinite(value.value) ? value.value : undefined;
  return value === null || typeof value === "boolean" || isWithin(value) || isText(value, 128) ? value : undefined;
}

function pairsOf(columns, name, take) {
  const flat = columns.array(name);
  if (flat.length % 2 !== 0) throw new Refusal("M3", `${name}: half a pair`);
  if (flat.length > 2 * MOST_PAIRS) throw new Refusal("M3", `${name}: ${flat.length / 2} pairs`);
  const pairs = new Map();
  for (let at = 0; at < flat.length; at += 2) {
    const key = nameOf(flat[at]);
    const value = take(flat[at + 1]);
    if (key === undefined || value === undefined) throw new Refusal("M3", `${name}: a name or value of another type or range`);
    if (pairs.has(key)) throw new Refusal("M3", `${name}: ${key} occurs twice`);
    pairs.set(key, value);
  }
  return pairs;
}

function rowsOf(columns, metadata) {
  const moves = columns.bytes("x").length;
  const rare = columns.bytes("k");
  if (moves + rare.length > MOST_ROWS) throw new Refusal("R1", `${moves + rare.length} rows`);
  if (rare.some((kind) => kind === 0 || kind >= KINDS.length)) throw new Refusal("R2", "k has a kind that is not known; the batch comes from a newer writer");
  const rows = orderOf(columns, moves, rare);
  timesOf(columns, metadata, rows);
  positionsOf(columns, rows);
  detailsOf(columns, (...kinds) => rows.filter((row) => kinds.includes(row.kind)));
  madeOf(columns, rows);
  return rows.sort((one, other) => (one.ticks < other.ticks ? -1 : Number(one.ticks > other.ticks)));
}

/** The rows as they are written, still empty. */
function orderOf(columns, moves, rare) {
  const rows = [];
  let left = moves;
  columns.integers("i", rare.length).forEach((between, n) => {
    if (!isInteger(between, 0, left)) throw new Refusal("R3", `i: ${between} of ${left} moves`);
    left -= between;
    for (let move = 0; move < between; move++) rows.push({ kind: "move" });
    rows.push({ kind: KINDS[rare[n]] });
  });
  while (left-- > 0) rows.push({ kind: "move" });
  return rows;
}

const count = (bytes, wanted) => bytes.reduce((sum, byte) => sum + Number(byte === wanted), 0);

/** Sums up from 0, as BigInts. */
function summed(differences) {
  let sum = 0n;
  return differences.map((difference) => (sum += BigInt(difference)));
}

/** Row numbers of their differences: each is there, and above the one before. */
function numbersOf(differences, rows, rule) {
  let last = -1n;
  return summed(differences).map((number) => {
    if (number <= last || number >= rows) throw new Refusal(rule, `row ${number} is not there, or does not rise`);
    last = number;
    return Number(number);
  });
}

function timesOf(columns, metadata, rows) {
  const moves = rows.filter((row) => row.kind === "move").length;
  const short = columns.bytes("t", moves);
  const long = columns.integers("u", count(short, 255)).values();
  const rare = columns.integers("j", rows.length - moves).values();
  let move = 0;
  const differences = rows.map((row) => {
    if (row.kind !== "move") return rare.next().value;
    const byte = short[move++];
    return byte < 255 ? byte : 255n + BigInt(long.next().value);
  });
  const tick = BigInt(metadata.tick);
  const ticks = summed(differences).map(clockOf(columns, tick));
  correct(columns, ticks);
  rows.forEach((row, n) => {
    row.ticks = ticks[n];
    row.monotonic = BigInt(metadata.monotonic) + ticks[n] * tick;
    row.unix = BigInt(metadata.unix) + ticks[n] * tick;
    if (!isWithin(row.monotonic) || !isWithin(row.unix)) throw new Refusal("T1", `row ${n}: its time is out of range`);
  });
}

/** How a sum becomes a tick. */
function clockOf(columns, tick) {
  if (!columns.has("C")) return (sum) => sum;
  const clock = columns.get("C");
  if (!Array.isArray(clock) || clock.length !== 2 || !isInteger(clock[0], 1, MOST_STEP) || !isWithin(clock[1])) throw new Refusal("T3", "C is not two integers in their range");
  const [step, base] = clock.map(BigInt);
  return (sum) => floorDivided(sum * step + base, tick);
}

function floorDivided(value, by) {
  const quotient = value / by;
  return value < 0n && quotient * by !== value ? quotient - 1n : quotient;
}

function correct(columns, ticks) {
  if (columns.has("h") && !columns.has("C")) throw new Refusal("T3", "h without C");
  const numbers = numbersOf(columns.integers("h"), ticks.length, "T3");
  const by = columns.integers("r", numbers.length);
  numbers.forEach((number, n) => (ticks[number] += BigInt(by[n])));
}

function positionsOf(columns, rows) {
  const moves = rows.filter((row) => row.kind === "move");
  const errors = { x: columns.bytes("x", moves.length), y: columns.bytes("y", moves.length) };
  const escapes = columns.integers("v", count(errors.x, 255) + count(errors.y, 255)).values();
  const weight = columns.get("w", 0);
  if (!isInteger(weight, 0, 4)) throw new Refusal("C8", "w is no integer from 0 to 4");
  const step = { x: 0, y: 0 };
  const at = { x: 0, y: 0 };
  moves.forEach((row, n) => {
    for (const axis of ["x", "y"]) {
      const byte = errors[axis][n];
      step[axis] = (byte < 255 ? unzigzag(byte) : escaped(escapes.next().value)) + Math.floor((step[axis] * weight) / 4);
      at[axis] += step[axis];
      if (!isPosition(at[axis])) throw new Refusal("R4", `move ${n}: its position is out of range`);
      row[axis] = at[axis];
    }
  });
  restingOf(columns, rows);
}

const isPosition = (value) => isInteger(value, -MOST_POSITION, MOST_POSITION);
const unzigzag = (code) => (code % 2 === 0 ? code / 2 : -(code + 1) / 2);

function escaped(entry) {
  if (entry < 0) throw new Refusal("C8", `v: ${entry}`);
  // Steps are below 2^32 as positions are, so errors are far below this.
  if (entry > 2 ** 50) throw new Refusal("R4", `v: ${entry} leads out of range`);
  return unzigzag(255 + entry);
}

/** Where presses, releases and scrolls are. */
function restingOf(columns, rows) {
  const resting = [];
  let last = { x: 0, y: 0 };
  for (const row of rows) {
    if (row.kind === "move") last = row;
    if (!["press", "release", "scroll"].includes(row.kind)) continue;
    row.x = last.x;
    row.y = last.y;
    resting.push(row);
  }
  const numbers = numbersOf(columns.integers("a"), resting.length, "R5");
  const [xs, ys] = ["p", "q"].map((name) => summed(columns.integers(name, numbers.length)));
  numbers.forEach((number, n) => {
    if (!isPosition(xs[n]) || !isPosition(ys[n])) throw new Refusal("R5", "p or q is out of range");
    resting[number].x = Number(xs[n]);
    resting[number].y = Number(ys[n]);
  });
}

/** What rows of the single kinds say. `of` gives the rows of some kinds. */
function detailsOf(columns, of) {
  const put = (rows, name, values) => rows.forEach((row, n) => (row[name] = values[n]));

  const buttons = of("press", "release");
  put(buttons, "button", columns.indexed("B", "b", buttons.length));
  const keys = of("key_press", "key_release");
  put(keys, "key", columns.indexed("E", "e", keys.length, true));
  scrollsOf(columns, of("scroll"), put);

  const gaps = of("gap");
  const lengths = columns.integers("l", gaps.length);
  if (!lengths.every(isCount)) throw new Refusal("R8", "l is out of range");
  put(gaps, "length", lengths);
  put(gaps, "source", columns.indexed("G", "g", gaps.length));

  const displays = of("display");
  const numbers = columns.array("Y", 7 * displays.length);
  displays.forEach((row, n) => displayOf(row, numbers.slice(7 * n, 7 * n + 7)));

  const layouts = of("layout");
  put(layouts, "layout", columns.words("L", layouts.length));

  const focuses = of("focus");
  put(focuses, "application", columns.words("A", focuses.length, true));
  const isTitle = (value) => value === null || typeof value === "string";
  put(focuses, "title", columns.has("T") ? columns.array("T", focuses.length, isTitle) : focuses.map(() => null));
  const corners = columns.has("W") ? columns.array("W", 4 * focuses.length) : focuses.flatMap(() => [null, null, null, null]);
  put(focuses, "window", focuses.map((_, n) => windowOf(corners.slice(4 * n, 4 * n + 4))));
}

function scrollsOf(columns, scrolls, put) {
  // 2^53 + 1 must not become 2^53 before it is compared.
  const isScroll = (value) => numberOf(value) >= -(2 ** 53) && numberOf(value) <= 2 ** 53;
  const axis = (name) => columns.array(name, scrolls.length, isScroll, "R7").map((value) => Number(numberOf(value)));
  const up = axis("s");
  const right = columns.has("d") ? axis("d") : up.map(() => 0);
  const isSteps = (value) => Number.isInteger(value) && value >= 1 && value <= MOST_POSITION;
  let steps;
  if (columns.has("c")) {
    steps = columns.integers("c", scrolls.length);
    if (!steps.every(isSteps)) throw new Refusal("R8", "c is out of range");
  } else {
    steps = up.map((value, n) => Math.abs(value) + Math.abs(right[n]));
    if (!steps.every(isSteps)) throw new Refusal("R7", "c is missing");
  }
  put(scrolls, "up", up);
  put(scrolls, "right", right);
  put(scrolls, "steps", steps);
}

function displayOf(row, [display, x, y, width, height, scale, rotation]) {
  const ratio = numberOf(scale);
  const fits =
    isInteger(display, 0, 255) &&
    isPosition(x) && isPosition(y) &&
    isInteger(width, 0, MOST_POSITION) && isInteger(height, 0, MOST_POSITION) &&
    ratio > 0 && ratio <= 64 &&
    [0, 90, 180, 270].includes(rotation);
  if (!fits) throw new Refusal("R9", "Y: a value of another type or range");
  Object.assign(row, { display, x, y, width, height, scale: ratio, rotation });
}

function windowOf(corners) {
  if (corners.every((value) => value === null)) return null;
  if (!corners.every(isPosition)) throw new Refusal("R9", "W is out of range or partly nil");
  return corners;
}

/** Which rows a program made. */
function madeOf(columns, rows) {
  const inputs = rows.filter((row) => KINDS.indexOf(row.kind) <= LAST_INPUT);
  const flat = columns.array("z");
  if (flat.length % 2 !== 0) throw new Refusal("R10", "z: half a pair");
  const differences = flat.filter((_, n) => n % 2 === 0);
  if (!differences.every((value) => isInteger(value))) throw new Refusal("R10", "z: a number is none");
  numbersOf(differences, inputs.length, "R10").forEach((number, n) => {
    const made = flat[2 * n + 1];
    if (made !== null && typeof made !== "boolean") throw new Refusal("R10", "z: a value is not true, false or nil");
    inputs[number].made = made;
  });
  let made = null;
  for (const row of inputs) {
    if (row.made !== undefined) made = row.made;
    row.made = made;
  }
}
