/*
MessagePack, as far as the library leaves open. It reserves what an array states before it looks whether that is there, makes 1 of 1.0 and U+FFFD
of bytes that are not UTF-8, and forgets that a key of a map came twice. So what is to be read is walked first, which reserves nothing.
*/

import { decode } from "@msgpack/msgpack";

/** A floating point number: what JavaScript can't tell from an integer. */
export class Real {
  constructor(value) {
    this.value = value;
  }
}

/** The bytes are no MessagePack, or end early (`atArray`: within an array that states more than can follow). */
export class Malformed extends Error {
  constructor(why, atArray = false) {
    super(why);
    this.atArray = atArray;
  }
}

// Type and bytes that follow.
const FIXED = {
  0xca: ["real", 4], 0xcb: ["real", 8],
  0xcc: ["integer", 1], 0xcd: ["integer", 2], 0xce: ["integer", 4], 0xcf: ["integer", 8],
  0xd0: ["integer", 1], 0xd1: ["integer", 2], 0xd2: ["integer", 4], 0xd3: ["integer", 8],
  0xd4: ["extension", 2], 0xd5: ["extension", 3], 0xd6: ["extension", 5], 0xd7: ["extension", 9], 0xd8: ["extension", 17],
};

// Type, bytes of the length, bytes that follow beside it.
const STATED = {
  0xc4: ["bytes", 1, 0], 0xc5: ["bytes", 2, 0], 0xc6: ["bytes", 4, 0],
  0xc7: ["extension", 1, 1], 0xc8: ["extension", 2, 1], 0xc9: ["extension", 4, 1],
  0xd9: ["text", 1, 0], 0xda: ["text", 2, 0], 0xdb: ["text", 4, 0],
  0xdc: ["array", 2, 0], 0xdd: ["array", 4, 0],
  0xde: ["map", 2, 0], 0xdf: ["map", 4, 0],
};

/** Walks over values without making them. */
export class Walk {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  get left() {
    return this.bytes.length - this.at;
  }

  /**
   * The next value's type, and its length: entries of an array or map (they are next), bytes of everything else (they are passed).
   * `see` gets both before the bytes are looked for.
   */
  next(see = () => {}) {
    const head = this.#head();
    see(head);
    if (head.type === "array" && head.length > this.left) throw new Malformed(`array of ${head.length} entries, ${this.left} bytes left`, true);
    if (head.type !== "array" && head.type !== "map") this.#skip(head.length + (head.beside ?? 0));
    return head;
  }

  #head() {
    const first = this.#byte();
    if (first < 0x80 || first >= 0xe0) return { type: "integer", length: 0 };
    if (first < 0x90) return { type: "map", length: first & 0x0f };
    if (first < 0xa0) return { type: "array", length: first & 0x0f };
    if (first < 0xc0) return { type: "text", length: first & 0x1f };
    if (first === 0xc0) return { type: "nil", length: 0 };
    if (first === 0xc2 || first === 0xc3) return { type: "boolean", length: 0 };
    if (first in FIXED) return { type: FIXED[first][0], length: FIXED[first][1] };
    if (!(first in STATED)) throw new Malformed("byte 0xc1 begins no value");
    const [type, size, beside] = STATED[first];
    let length = 0;
    for (let n = 0; n < size; n++) length = length * 256 + this.#byte();
    return { type, length, beside };
  }

  #byte() {
    this.#skip(1);
    return this.bytes[this.at - 1];
  }

  #skip(length) {
    if (length > this.left) throw new Malformed("it ends early");
    this.at += length;
  }

  /** Passes a whole value, however deep; `see` gets each head in it before, `passed` after the bytes that are its own. */
  pass(see = () => {}, passed = () => {}) {
    for (let due = 1; due > 0; due--) {
      const head = this.next(see);
      passed(head);
      if (head.type === "array") due += head.length;
      if (head.type === "map") due += 2 * head.length;
      // Each value that is due needs a byte.
      if (due - 1 > this.left) throw new Malformed("it ends early", head.type === "array");
    }
  }
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Text of UTF-8, or undefined. */
export function textOf(bytes) {
  try {
    return UTF8.decode(bytes);
  } catch {
    return undefined;
  }
}

const LIMITS = { useBigInt64: true, rawStrings: true, maxArrayLength: 262144, maxMapLength: 0, maxExtLength: 0, maxStrLength: 512, maxBinLength: 65536 };

/**
 * The value of bytes that were walked: `types` are those of its entries, or of itself.
 * Integers are numbers where these are exact, else BigInts. Text that is no UTF-8 is undefined.
 */
export function valueOf(bytes, types) {
  const value = decode(bytes, LIMITS);
  if (!Array.isArray(value)) return exact(value, types[0]);
  for (let n = 0; n < value.length; n++) value[n] = exact(value[n], types[n]);
  return value;
}

function exact(value, type) {
  if (type === "real") return new Real(value);
  if (type === "text") return textOf(value);
  if (typeof value === "bigint" && value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER) return Number(value);
  return value;
}

/** Whether it is an integer within bounds (numbers and BigInts compare exactly). */
export function isInteger(value, least = -Infinity, most = Infinity) {
  return (typeof value === "number" || typeof value === "bigint") && value >= least && value <= most;
}

export const isText = (value, most) => typeof value === "string" && Buffer.byteLength(value) <= most;
export const isBytes = (value, length) => value instanceof Uint8Array && value.length === length;
