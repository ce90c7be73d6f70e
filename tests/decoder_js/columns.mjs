// The content of a payload: its columns, checked for their form.

import { isInteger, Malformed, Real, textOf, valueOf, Walk } from "./messagepack.mjs";
import { Refusal } from "./refusal.mjs";

const KNOWN = "xytvuwChrkijapqBbEesdclGgYLATWzMSDPRH";
/** Columns of several letters that are not skipped. */
const KNOWN_LONGER = ["by", "audit"];
const MOST_COLUMNS = 64;
const MOST_ENTRIES = 262144;
const MOST_TEXT = 512;
const MOST_BYTES = 65536;

export const WORDS = [
  ..."left middle right back forward".split(" "),
  ..."letter digit punctuation space enter tab editing navigation function modifier other".split(" "),
  ..."pointer keyboard window display suspend".split(" "),
  ..."x11 callback trace".split(" "),
  ..."linux win32 darwin".split(" "),
  ..."buffer_full not_running spool invalid unsealable".split(" "),
];

/** Words of the column `by`. */
export const WORDS_OF_BY = [...WORDS, "xrecord", "pynput"];

/** Name to value of the columns that are on the page. */
export function columnsOf(content) {
  const walk = new Walk(content);
  const columns = new Map();
  try {
    const { type, length } = walk.next();
    if (type !== "map") throw new Refusal("C1", "the content is no map");
    if (length > MOST_COLUMNS) throw new Refusal("C2", `${length} columns`);
    const names = new Set();
    for (let left = length, entries = 0; left > 0; left--) {
      const name = nameOf(walk);
      if (names.has(name)) throw new Refusal("C3", `column ${name} occurs twice`);
      names.add(name);
      if ([...name].length > 1 && !KNOWN_LONGER.includes(name)) {
        walk.pass();
        continue;
      }
      if ([...name].length === 1 && !KNOWN.includes(name)) throw new Refusal("C4", `column ${name} is not known; the batch comes from a newer writer`);
      const start = walk.at;
      const types = typesOf(walk, name, MOST_ENTRIES - entries);
      if (types.array) entries += types.of.length;
      const value = valueOf(content.subarray(start, walk.at), types.of);
      if (value === undefined || (types.array && value.includes(undefined))) throw new Refusal("C7", `${name}: text that is not UTF-8`);
      columns.set(name, value);
    }
  } catch (error) {
    if (error instanceof Malformed) throw new Refusal(error.atArray ? "C6" : "C1", `the content is no MessagePack: ${error.message}`);
    throw error;
  }
  if (walk.left > 0) throw new Refusal("C1", `${walk.left} bytes follow the content`);
  return columns;
}

function nameOf(walk) {
  const { length } = walk.next(({ type, length }) => {
    if (type !== "text") throw new Refusal("C3", `a column's name is ${type}`);
    if (length === 0) throw new Refusal("C3", "a column's name is empty");
    if (length > MOST_TEXT) throw new Refusal("C7", `a column's name of ${length} bytes`);
  });
  const name = textOf(walk.bytes.subarray(walk.at - length, walk.at));
  if (name === undefined) throw new Refusal("C7", "a column's name is not UTF-8");
  return name;
}

function typesOf(walk, name, room) {
  const { type, length } = walk.next(({ type, length }) => {
    if (type === "map" || type === "extension") throw new Refusal("C5", `${name} is ${type}`);
    if (type === "array" && length > room) throw new Refusal("C6", `${name}: more than ${MOST_ENTRIES} entries in all arrays`);
    checkLength(name, type, length);
  });
  if (type !== "array") return { array: false, of: [type] };
  const of = new Array(length);
  for (let n = 0; n < length; n++) {
    of[n] = walk.next(({ type, length }) => {
      if (["array", "map", "extension"].includes(type)) throw new Refusal("C5", `${name} holds ${type}`);
      checkLength(name, type, length);
    }).type;
  }
  return { array: true, of };
}

function checkLength(name, type, length) {
  if (type === "text" && length > MOST_TEXT) throw new Refusal("C7", `${name}: text of ${length} bytes`);
  if (type === "bytes" && length > MOST_BYTES) throw new Refusal("C7", `${name}: ${length} bytes`);
}

/** Asks for columns by what the document says of them. */
export class Columns {
  constructor(columns) {
    this.columns = columns;
  }

  has(name) {
    return this.columns.has(name);
  }

  /** The value, nil too; `otherwise` when the column is left out. */
  get(name, otherwise) {
    return this.has(name) ? this.columns.get(name) : otherwise;
  }

  /** Bytes, `count` of them where that is given. */
  bytes(name, count) {
    const value = this.get(name, new Uint8Array(0));
    if (!(value instanceof Uint8Array)) throw new Refusal("C8", `${name} is not bytes`);
    return this.#counted(name, value, count);
  }

  /** An array, `count` entries long where that is given, whose entries `allow` allows; `rule` is for those it does not. */
  array(name, count, allow = () => true, rule = "C8") {
    const value = this.get(name, []);
    if (!Array.isArray(value)) throw new Refusal("C8", `${name} is not an array`);
    if (!value.every(allow)) throw new Refusal(rule, `${name} has an entry of another type or range`);
    return this.#counted(name, value, count);
  }

  integers(name, count) {
    return this.array(name, count, (value) => isInteger(value));
  }

  #counted(name, value, count = value.length) {
    if (value.length !== count) throw new Refusal("C8", `${name} has ${value.length} entries, not ${count}`);
    return value;
  }

  /** Words; `nil` says whether nil may stand among them. */
  words(name, count, nil = false) {
    const isWord = (value) => typeof value === "string" || isInteger(value) || (nil && value === null);
    return this.array(name, count, isWord, "R6").map((value) => {
      const word = value === null ? null : wordOf(value);
      if (word !== null && Buffer.byteLength(word) > 128) throw new Refusal("R6", `${name}: a word of over 128 bytes`);
      return word;
    });
  }

  /** The words that an index column stands for. */
  indexed(table, index, count, nil = false) {
    const words = this.words(table, undefined, nil);
    if (!this.has(index) && count > 0) {
      if (words.length !== 1) throw new Refusal("R6", `${index} is missing, ${table} has ${words.length} entries`);
      return new Array(count).fill(words[0]);
    }
    return this.integers(index, count).map((at) => {
      if (!isInteger(at, 0, words.length - 1)) throw new Refusal("R6", `${index}: ${at} is not in ${table}`);
      return words[at];
    });
  }
}

/** The word that a text or a number is. */
export function wordOf(value, words = WORDS) {
  if (typeof value === "string") return value;
  if (!isInteger(value, 0, words.length - 1)) throw new Refusal("W1", `there is no word ${value}`);
  return words[value];
}

/** The number that an integer or a float is, exactly; NaN for everything else. */
export function numberOf(value) {
  if (value instanceof Real) return value.value;
  return isInteger(value) ? value : NaN;
}
