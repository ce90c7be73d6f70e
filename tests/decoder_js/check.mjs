/*
node check.mjs DIR

Decodes every NAME.mcib in DIR and compares with the NAME.json beside it, in the shape that tests/vectors/README.md describes.
A line for each, a summary, and exit code 1 when any differs. Vectors of other versions must be refused as such: this decoder is one of version 1.
*/

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { decode, Refusal } from "./decoder.mjs";

const hex = (bytes) => Buffer.from(bytes).toString("hex");

const AT = ["x", "y"];
const INPUT = ["synthetic"];
const BUTTON = [...AT, "button", ...INPUT];
const KEY = ["key", ...INPUT];
const FIELDS = {
  move: [...AT, ...INPUT],
  press: BUTTON,
  release: BUTTON,
  scroll: [...AT, "dx", "dy", "count", ...INPUT],
  key_press: KEY,
  key_release: KEY,
  gap: ["duration_ns", "source"],
  display: ["display", ...AT, "width", "height", "scale", "rotation"],
  layout: ["name"],
  focus: ["app", "title", ...AT, "width", "height"],
};

function shapeOf({ version, header, metadata, rows }) {
  return {
    version,
    header: {
      batch_id: hex(header.batch),
      participant: hex(header.participant),
      device: hex(header.device),
      grant: hex(header.grant),
      sequence: header.sequence,
      key_ids: header.keyIds.map(hex),
    },
    metadata: {
      monotonic_ns: metadata.monotonic,
      wall_ns: metadata.unix,
      boot: hex(metadata.boot),
      tick_ns: metadata.tick,
      software: metadata.software,
      platform: metadata.platform,
      quanta_per_px: metadata.quanta,
      coverage: {
        coalesced: metadata.coalesced,
        excluded: metadata.excluded,
        thinned: metadata.thinned,
        not_collected_ns: metadata.notCollected,
        dropped: Object.fromEntries(metadata.lost),
      },
      clocks: Object.fromEntries(metadata.sources),
      ...(metadata.audit && { audit: metadata.audit }),
      ...(metadata.backends.size > 0 && { backends: Object.fromEntries(metadata.backends) }),
      levers: Object.fromEntries(metadata.plan),
      reasons: metadata.reasons,
    },
    rows: rows.map((row) => rowOf(row, metadata.quanta)),
  };
}

function rowOf(row, quanta) {
  const { kind } = row;
  const said = {
    ...row,
    synthetic: row.made,
    dx: row.right,
    dy: row.up,
    count: row.steps,
    duration_ns: row.length,
    name: row.layout,
    app: row.application,
  };
  if (kind === "focus") [said.x, said.y, said.width, said.height] = row.window ?? [null, null, null, null];
  else if (kind !== "display" && row.x !== undefined) Object.assign(said, { x: row.x / quanta, y: row.y / quanta });
  return { t_ns: row.monotonic, wall_ns: row.unix, kind, ...Object.fromEntries(FIELDS[kind].map((name) => [name, said[name]])) };
}

/** A value as it is compared: large integers as digits. */
function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (value !== null && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([name, of]) => [name, plain(of)]));
  const isInteger = typeof value === "bigint" || Number.isInteger(value);
  if (isInteger && !(value > -(2 ** 53) && value < 2 ** 53)) return String(BigInt(value));
  return isInteger ? Number(value) + 0 : value;
}

/** Where two plain values differ first, in words, or null. */
function difference(got, expected, where) {
  const isTree = (value) => value !== null && typeof value === "object";
  if (!isTree(got) || !isTree(expected) || Array.isArray(got) !== Array.isArray(expected)) {
    return got === expected ? null : `${where} is ${JSON.stringify(got)}, not ${JSON.stringify(expected)}`;
  }
  for (const name of new Set([...Object.keys(expected), ...Object.keys(got)])) {
    if (!Object.hasOwn(got, name) || !Object.hasOwn(expected, name)) return `${where}.${name} is ${Object.hasOwn(got, name) ? "there" : "missing"}`;
    const found = difference(got[name], expected[name], `${where}.${name}`);
    if (found !== null) return found;
  }
  return null;
}

/** What is wrong with a vector, in words, or null. */
async function check(bytes, expected) {
  const refused = expected.version > 1 || expected.version === 0 ? "F2" : expected.refused;
  let got;
  try {
    got = await decode(bytes, expected.identities ?? []);
  } catch (error) {
    if (!(error instanceof Refusal)) return `it is not refused but fails: ${error.stack}`;
    return error.rule === refused ? null : `it is refused with ${error.message}${refused ? `, not ${refused}` : ""}`;
  }
  if (refused) return `it is read, but has to be refused with ${refused}`;
  const { version, header, metadata, rows } = expected;
  return difference(plain(shapeOf(got)), plain({ version, header, metadata, rows }), "it");
}

const folder = process.argv[2];
let failed = 0;
const names = readdirSync(folder).filter((name) => name.endsWith(".mcib")).map((name) => name.slice(0, -".mcib".length)).sort();
for (const name of names) {
  let wrong;
  try {
    const expected = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"));
    wrong = await check(readFileSync(join(folder, `${name}.mcib`)), expected);
  } catch (error) {
    wrong = error.message;
  }
  failed += Number(wrong !== null);
  console.log(wrong === null ? `ok ${name}` : `DIFFERENT ${name}: ${wrong.replaceAll("\n", "\\n")}`);
}
console.log(`${names.length - failed} passed, ${failed} failed`);
process.exitCode = Number(failed > 0 || names.length === 0);
