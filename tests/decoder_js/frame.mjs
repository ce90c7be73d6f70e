// Frames and their headers.

import { isBytes, isInteger, Malformed, textOf, valueOf, Walk } from "./messagepack.mjs";
import { Refusal } from "./refusal.mjs";

const MAGIC = [..."MCIB"].map((letter) => letter.charCodeAt(0));
const START = 14;
const VERSION = 1;
const SEALED = 0x01;
const MOST_HEADER = 65536;
const MOST_FRAME = 4194304;
const MOST_KEY_IDS = 32;

/** The first 14 bytes of a frame: where its parts are, and how long it is. */
function startOf(bytes) {
  if (MAGIC.some((byte, n) => n < bytes.length && bytes[n] !== byte)) throw new Refusal("F1", "it does not begin with MCIB");
  if (bytes.length < START) throw new Refusal("F3", "it ends within its first 14 bytes");
  const view = new DataView(bytes.buffer, bytes.byteOffset, START);
  const header = view.getUint32(6);
  const payload = view.getUint32(10);
  const length = START + header + payload + 4;
  if (header > MOST_HEADER || length > MOST_FRAME) throw new Refusal("F7", `a header of ${header} bytes, a frame of ${length}`);
  return { version: bytes[4], flags: bytes[5], header: START + header, payload: START + header + payload, length };
}

/** The frames that follow each other, each for itself; those of other versions too. */
export function* framesOf(bytes) {
  for (let rest = bytes; rest.length > 0;) {
    const { length } = startOf(rest);
    if (length > rest.length) throw new Refusal("F3", "it ends early");
    yield rest.subarray(0, length);
    rest = rest.subarray(length);
  }
}

/** The parts of one frame. */
export function frameOf(bytes) {
  const start = startOf(bytes);
  if (start.version !== VERSION) throw new Refusal("F2", `version ${start.version} is not known`);
  if (start.length > bytes.length) throw new Refusal("F3", "it ends early");
  if (start.length < bytes.length) throw new Refusal("F4", `${bytes.length - start.length} bytes follow it`);
  const stated = new DataView(bytes.buffer, bytes.byteOffset + start.payload, 4).getUint32(0);
  if (crc32(bytes.subarray(0, start.payload)) !== stated) throw new Refusal("F5", "its checksum is wrong");
  if ((start.flags & ~SEALED) !== 0) throw new Refusal("F6", `flags ${start.flags}; the frame comes from a newer writer`);
  return {
    version: start.version,
    sealed: (start.flags & SEALED) !== 0,
    header: bytes.subarray(START, start.header),
    payload: bytes.subarray(start.header, start.payload),
  };
}

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte;
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0xedb88320 : rest >>> 1;
  return rest;
});

function crc32(bytes) {
  let rest = 0xffffffff;
  for (const byte of bytes) rest = (rest >>> 8) ^ TABLE[(rest ^ byte) & 0xff];
  return (rest ^ 0xffffffff) >>> 0;
}

/** The header's entries. */
export function headerOf(bytes, sealed) {
  const [batch, participant, device, grant, sequence, keyIds] = entriesOf(bytes);
  for (const [name, value, length] of [["batch id", batch, 16], ["participant", participant, 16], ["device", device, 16], ["grant", grant, 32]]) {
    if (!isBytes(value, length)) throw new Refusal("H2", `the ${name} is not ${length} bytes`);
  }
  if (!isInteger(sequence, 0, 10n ** 16n - 1n)) throw new Refusal("H3", "the sequence is no integer from 0 to 10^16 - 1");
  if (!Array.isArray(keyIds) || keyIds.length > MOST_KEY_IDS || !keyIds.every((id) => isBytes(id, 4))) throw new Refusal("H4", "the key ids are not up to 32 times 4 bytes");
  if (sealed !== keyIds.length > 0) throw new Refusal("H5", sealed ? "it is sealed without key ids" : "there are key ids, but it is not sealed");
  return { batch, participant, device, grant, sequence, keyIds };
}

function entriesOf(bytes) {
  const walk = new Walk(bytes);
  const entries = [];
  const see = ({ type, length }) => {
    if (type === "map" || type === "extension") throw new Refusal("H6", `${type} in the header`);
    if (type === "array" && length > 64) throw new Refusal("H6", `an array of ${length} entries in the header`);
    if ((type === "text" || type === "bytes") && length > 256) throw new Refusal("H6", `${type} of ${length} bytes in the header`);
  };
  try {
    const { type, length } = walk.next();
    if (type !== "array" || length < 6) throw new Refusal("H1", "the header is no array of six or more entries");
    see({ type, length });
    for (let n = 0; n < length; n++) {
      const start = walk.at;
      const types = [];
      walk.pass(see, ({ type, length }) => {
        if (type === "text" && textOf(bytes.subarray(walk.at - length, walk.at)) === undefined) throw new Refusal("H6", "text that is not UTF-8 in the header");
        types.push(type);
      });
      // An array's own type stands before those of its entries. Deeper ones are no key ids.
      const known = n < 6 && types.lastIndexOf("array") < 1;
      entries.push(known ? valueOf(bytes.subarray(start, walk.at), types[0] === "array" ? types.slice(1) : types) : undefined);
    }
  } catch (error) {
    if (error instanceof Malformed) throw new Refusal("H1", `the header is no MessagePack: ${error.message}`);
    throw error;
  }
  if (walk.left > 0) throw new Refusal("H1", `${walk.left} bytes follow the header's array`);
  return entries;
}
